"""The figure of Table 1: CLIP-CAE minus CLIP-FT on each family."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from cae_lib.evaluation.statistics import Interval
from cae_lib.report.figure import (
    METHOD_COLORS,
    METHOD_MARKERS,
    NEUTRAL,
    WIDTH,
    Figure,
    finish,
    style,
)
from cae_lib.report.markup import percent
from cae_lib.report.runs import TUNED, label, method_label, method_of


def forest(table: Mapping[str, Mapping[str, Interval]], against: str = TUNED) -> Figure:
    """Differences with intervals: a row a benchmark, a mark a CAE run.

    Args:
        table: For each CAE run, the difference to `against` by benchmark.
        against: The run that the others are compared with.
    """
    names = list(dict.fromkeys(name for row in table.values() for name in row))
    height = 1.1 + len(names) * (0.22 + 0.13 * len(table))
    with style():
        canvas, axis = plt.subplots(figsize=(WIDTH, height), layout="constrained")
        for place, (run, row) in enumerate(table.items()):
            offset = 0.7 * ((place + 0.5) / len(table) - 0.5)
            _marks(axis, run, {names.index(name) + offset: row[name] for name in row})
        axis.axvline(0, color=NEUTRAL, linewidth=1)
        axis.set_yticks(range(len(names)), names)
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.set_xlabel(f"CAE \N{MINUS SIGN} {label(against)}, percentage points")
        axis.grid(axis="y", visible=False)
        canvas.legend(loc="outside upper center", ncols=4)
        return finish(canvas, _alt(table, against))


def _marks(axis: Axes, run: str, row: Mapping[float, Interval]) -> None:
    method = method_of(run) or run
    values = list(row.values())
    middle = [100 * v.estimate for v in values]
    error = [
        [100 * (v.estimate - v.low) for v in values],
        [100 * (v.high - v.estimate) for v in values],
    ]
    axis.errorbar(
        middle, list(row), xerr=error, linestyle="", capsize=3, markersize=6,
        marker=METHOD_MARKERS.get(method, "o"), color=METHOD_COLORS.get(method, NEUTRAL),
        label=f"CAE by {method_label(method)}",
    )  # fmt: skip


def _alt(table: Mapping[str, Mapping[str, Interval]], against: str) -> str:
    parts = [
        f"{label(run)}: "
        + ", ".join(f"{name} {percent(value, sign=True)}" for name, value in row.items())
        for run, row in table.items()
    ]
    return (
        f"Difference to {label(against)} in percentage points with 95 % intervals, by benchmark. "
        f"{'; '.join(parts)}."
    )
