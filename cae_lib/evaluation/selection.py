"""The rules that choose settings by scores on validation captions.

A weight of the attribution loss enforces a constraint, so the smallest one is chosen that enforces
it; choosing it by the score would choose 0 wherever CAE does not help. Where CLIP-FT has no gap,
there is nothing to close. What trains on bindings is chosen by the score. Nothing here needs
PyTorch, so that a page that only reads scores starts at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

LEFT_GAP = 0.1
"""Share of CLIP-FT's gap A_obj - A_comp that the chosen lambda may leave."""

TUNING_SEED = 100
"""The seed of runs by which settings are chosen; no reported run has it."""

Row = Mapping[str, Any]


def is_closed(gap: float, reference_gap: float) -> bool:
    """Whether a gap is at most `LEFT_GAP` of the reference's, which is CLIP-FT's."""
    return gap <= LEFT_GAP * reference_gap


def smallest_closing(rows: Sequence[Row], reference_gap: float, gap: str) -> Row:
    """Of rows by growing lambda, return the first whose column `gap` is closed; if none is, the
    last."""
    return next((row for row in rows if is_closed(row[gap], reference_gap)), rows[-1])


def walk(
    measure: Callable[[float], Row], reference_gap: float, gap: str, weights: Sequence[float]
) -> list[Row]:
    """Measure lambdas of growing `weights` from 1 down while they close the gap, else up until one
    does. So the neighbours of the smallest lambda that is enough are measured, and no others; this
    takes for granted that a larger lambda leaves a smaller gap."""
    first = weights.index(1.0)
    rows = [measure(weights[first])]
    down = is_closed(rows[0][gap], reference_gap)
    for weight in weights[:first][::-1] if down else weights[first + 1 :]:
        rows.append(measure(weight))
        if is_closed(rows[-1][gap], reference_gap) != down:
            break
    return sorted(rows, key=lambda row: row["weight"])
