"""Choose the weight λ of the attribution loss: the smallest that closes the object-word gap.

The gap is A_obj - A_comp on validation captions. Without a gap of CLIP-FT there is no λ to choose.
Runs that train on bindings are chosen by their score, in `data/recipes/choose_settings.py`. PyTorch
is not imported, so pages that only read scores start at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Largest share of CLIP-FT's gap A_obj - A_comp at which the gap of a model counts as closed.
GAP_TOLERANCE = 0.1

# Of the runs by which settings are chosen; no reported run has this seed.
TUNING_SEED = 100

ScoreRow = Mapping[str, Any]  # scores of one training, by name of the column


def is_closed(gap: float, reference_gap: float) -> bool:
    """Return whether a gap is at most `GAP_TOLERANCE` times the positive gap of CLIP-FT."""
    # No absolute value: a negative gap, on the other side of level, counts as closed, too.
    return gap <= GAP_TOLERANCE * reference_gap


def choose_row(rows: Sequence[ScoreRow], reference_gap: float, gap_column: str) -> ScoreRow:
    """Return the first row, sorted by ascending λ, that closes the gap; else the last row."""
    # Not by the validation score, which would choose a λ of 0 wherever CAE does not help.
    return next((row for row in rows if is_closed(row[gap_column], reference_gap)), rows[-1])
