"""The rules that choose settings by scores on validation captions.

A weight of the attribution loss enforces a constraint, so the smallest one that enforces it is
chosen; choosing it by the score would choose 0 wherever CAE does not help. Where CLIP-FT has no
gap, there is nothing to close. Runs that train on bindings are chosen by the score. Nothing here
needs PyTorch, so that a page that only reads scores starts at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

GAP_TOLERANCE = 0.1
"""Share of CLIP-FT's gap A_obj - A_comp that the chosen λ may leave."""

TUNING_SEED = 100
"""The seed of runs by which settings are chosen; no reported run has it."""

Row = Mapping[str, Any]


def is_closed(gap: float, reference_gap: float) -> bool:
    """Whether a gap is at most `GAP_TOLERANCE` of the reference's, which is CLIP-FT's."""
    return gap <= GAP_TOLERANCE * reference_gap


def smallest_closing_row(rows: Sequence[Row], reference_gap: float, gap_column: str) -> Row:
    """Return the row of the smallest λ that closes the gap; of the largest λ if none does.

    Args:
        rows: Rows by growing λ.
        reference_gap: Gap of CLIP-FT.
        gap_column: Name of the column that holds the gap.
    """
    return next((row for row in rows if is_closed(row[gap_column], reference_gap)), rows[-1])
