"""Choose the weight λ of the attribution loss by the object-word gap on validation captions.

The object-word gap is A_obj - A_comp: the mean attribution score of object words minus that of
attribute and relation words. λ serves to make it small, so the smallest λ that does so is chosen;
if none does, the largest.
Choosing λ by the validation score would choose 0 wherever CAE does not help. If CLIP-FT, the model
fine-tuned without CAE, has no gap, there is nothing to close and no λ to choose. The settings of
runs that train on bindings are chosen by the score instead, in `data/recipes/choose_settings.py`.

This module does not import PyTorch, so pages that only read scores start at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

GAP_TOLERANCE = 0.1
"""Largest share of CLIP-FT's gap A_obj - A_comp at which the gap of a model counts as closed."""

TUNING_SEED = 100
"""Seed of the runs by which settings are chosen; no reported run has it."""

ScoreRow = Mapping[str, Any]
"""Scores of one training, by name of the column."""


def is_closed(gap: float, reference_gap: float) -> bool:
    """Return whether a gap is at most `GAP_TOLERANCE` times the gap of CLIP-FT.

    Args:
        gap: Object-word gap of a model; it may be negative.
        reference_gap: Object-word gap of CLIP-FT, which has to be positive.
    """
    return gap <= GAP_TOLERANCE * reference_gap


def choose_row(rows: Sequence[ScoreRow], reference_gap: float, gap_column: str) -> ScoreRow:
    """Return the row of the smallest λ that closes the gap, or of the largest λ if none does.

    `is_closed` decides whether the object-word gap is closed.

    Args:
        rows: Scores of trainings, sorted by ascending λ; not empty.
        reference_gap: Object-word gap of CLIP-FT, which has to be positive.
        gap_column: Name of the column that holds the object-word gap.
    """
    return next((row for row in rows if is_closed(row[gap_column], reference_gap)), rows[-1])
