"""How many differences are called significant, step by step from one seed to Holm's correction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cae_lib.report.significance import LEVEL, Cell, direction

Signs = Callable[[Cell], Sequence[int]]
"""For a cell: 1 for a significant gain, -1 for a significant loss, else 0; one a seed, or one."""


@dataclass(frozen=True)
class Count:
    """Significant differences among some cells.

    Attributes:
        gains: Upwards; one number a seed for a step that looks at one seed, else one.
        losses: Downwards.
    """

    gains: tuple[int, ...]
    losses: tuple[int, ...]


def _sign(p_value: float, estimate: float) -> int:
    return int(np.sign(estimate)) if p_value < LEVEL else 0


def _unpaired(cell: Cell) -> list[int]:
    return [_sign(p, d) for p, d in zip(cell.unpaired, cell.test.by_seed, strict=True)]


def _mcnemar(cell: Cell) -> list[int]:
    return [_sign(found.p_value, direction(found)) for found in cell.mcnemar]


def _every_seed(cell: Cell) -> list[int]:
    signs = set(_mcnemar(cell))
    return [signs.pop() if len(signs) == 1 else 0]


STEPS: dict[str, Signs] = {
    "one seed, unpaired": _unpaired,
    "one seed, McNemar on paired items": _mcnemar,
    "McNemar in every seed, same direction": _every_seed,
    "all seeds and items: two-way t test": lambda c: [_sign(c.test.p_value, c.test.estimate)],
    "and Holm over the families": lambda c: [_sign(c.holm, c.test.estimate)],
    "and Holm over all comparisons": lambda c: [_sign(c.holm_all, c.test.estimate)],
}


def count_steps(cells: Sequence[Cell]) -> dict[str, Count]:
    """Significant gains and losses among cells, at each step."""
    return {name: _counted([signs(cell) for cell in cells]) for name, signs in STEPS.items()}


def _counted(signs: Sequence[Sequence[int]]) -> Count:
    by_seed = list(zip(*signs, strict=True))
    return Count(tuple(column.count(1) for column in by_seed),
                 tuple(column.count(-1) for column in by_seed))  # fmt: skip
