"""Figure of the composition curve: accuracy and gain by what the caption states."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from cae_lib.evaluation.statistics import Interval
from cae_lib.report.composition_curve import Curve, composition
from cae_lib.report.composition_tables import COUNTED, class_label
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
from cae_lib.report.runs import BASE, HARD, TUNED, cae_runs, label, method_of
from cae_lib.report.stored import if_measured

SPREAD = 0.5
WITHOUT_CAE = {BASE: (":", "*", NEUTRAL), TUNED: ("--", "X", "black"), HARD: ("-.", "P", "#888888")}


@if_measured
def curve_figure(profile: str, seeds: int) -> Figure:
    """Above the accuracy of each run, below CLIP-CAE minus CLIP-FT, a column for each count."""
    curve = composition(profile, seeds)
    own = list(cae_runs(profile))
    shown = [run for run in WITHOUT_CAE if run in curve.runs] + own
    with style():
        canvas, axes = plt.subplots(2, len(curve.sizes), figsize=(WIDTH, 5.6), layout="constrained",
                                    sharex="col", sharey="row",
                                    width_ratios=[len(size) for size in curve.sizes.values()],
                                    )  # fmt: skip
        for column, name in enumerate(curve.sizes):
            for place, run in enumerate(shown):
                levels = [d.interval() if d else None for d in curve.levels(run, name)]
                _line(axes[0, column], run, levels, place, len(shown))
            for place, run in enumerate(own):
                _line(axes[1, column], run, curve.gains(run, TUNED, name), place, len(own))
            _dress(axes[:, column], curve, name)
        axes[0, 0].set_ylabel("accuracy, %")
        axes[1, 0].set_ylabel("CLIP-CAE \N{MINUS SIGN} CLIP-FT,\npercentage points")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside upper center", ncols=3)
        return finish(canvas, _alt(curve, own))


def _line(axis: Axes, run: str, found: list[Interval | None], place: int, n: int) -> None:
    known = [(k, value) for k, value in enumerate(found) if value]
    if not known:
        return
    offset = SPREAD * ((place + 0.5) / n - 0.5)
    middle = np.array([100 * value.estimate for _, value in known])
    error = [[100 * (value.estimate - value.low) for _, value in known],
             [100 * (value.high - value.estimate) for _, value in known]]  # fmt: skip
    method = method_of(run) or ""
    line, marker, color = WITHOUT_CAE.get(
        run, ("-", METHOD_MARKERS.get(method, "o"), METHOD_COLORS.get(method, NEUTRAL))
    )
    axis.errorbar([k + offset for k, _ in known], middle, yerr=error, linestyle=line,
                  marker=marker, color=color, markersize=5, linewidth=1, elinewidth=0.8,
                  label=label(run))  # fmt: skip


def _dress(axes: np.ndarray, curve: Curve, name: str) -> None:
    axes[0].set_title(COUNTED[name].replace(", ", ",\n").replace("+ ", "+\n"), loc="left")
    axes[1].axhline(0, color=NEUTRAL, linewidth=1)
    ticks = [f"{class_label(name, k)}\n{size}" for k, size in enumerate(curve.sizes[name])]
    axes[1].set_xticks(range(len(ticks)), ticks, fontsize=7)
    axes[1].set_xlabel("stated; below: items", fontsize=9)
    for axis in axes:
        axis.grid(axis="x", visible=False)


def _alt(curve: Curve, own: list[str]) -> str:
    parts = []
    for name in curve.sizes:
        found = {TUNED: [d.interval() if d else None for d in curve.levels(TUNED, name)]}
        found |= {run: curve.gains(run, TUNED, name) for run in own}
        lines = [
            f"{'accuracy of ' if run == TUNED else 'gain of '}{label(run)} "
            + ", ".join(f"{percent(value, sign=run != TUNED)} at {class_label(name, k)}"
                        for k, value in enumerate(row) if value)
            for run, row in found.items()
        ]  # fmt: skip
        parts.append(f"By {COUNTED[name]}: {'; '.join(lines)}")
    return "Lines with intervals, accuracy above and gain over CLIP-FT below. " + ". ".join(parts)
