"""The figure of the ablation: what each setting does to the benchmarks and to the gap."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from cae_lib.evaluation.statistics import Interval
from cae_lib.report.ablation import Trial, trials
from cae_lib.report.ablation_tables import name_of
from cae_lib.report.figure import (
    METHOD_COLORS,
    METHOD_MARKERS,
    NEUTRAL,
    WIDTH,
    Figure,
    finish,
    style,
)
from cae_lib.report.markup import interval, number, percent
from cae_lib.report.rules import CLOSED
from cae_lib.report.runs import method_label
from cae_lib.report.stored import if_measured
from cae_lib.report.variants import MEAN, describe
from cae_lib.report.yardstick import Yardstick, yardstick

BAND = "#e6e6e6"


@if_measured
def ablation_figure(profile: str) -> Figure:
    """Change of the mean of families, and share of CLIP-FT's gap that is left, by setting."""
    found, measure = _ordered(trials(profile)), yardstick(profile)
    with style():
        size = (WIDTH, 1.3 + 0.3 * len(found))
        canvas, axes = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
        _change_panel(axes[0], found, measure)
        _gap_panel(axes[1], found)
        axes[0].set_yticks(range(len(found)), [_tick(trial) for trial in found])
        axes[0].set_ylim(len(found) - 0.5, -0.5)
        for text, trial in zip(axes[0].get_yticklabels(), found, strict=True):
            text.set_fontweight("normal" if trial.change else "bold")
        for axis in axes:
            axis.grid(axis="y", visible=False)
            for place, trial in enumerate(found):
                if place and not trial.change:
                    axis.axhline(place - 0.5, color=NEUTRAL, linewidth=0.6)
        return finish(canvas, _alt(found, measure))


def _ordered(found: Sequence[Trial]) -> list[Trial]:
    """Each reference with the settings that are compared with it below."""
    runs = list(dict.fromkeys(trial.variant.run for trial in found))
    return sorted(found, key=lambda trial: runs.index(trial.variant.run))


def _tick(trial: Trial) -> str:
    if trial.change:
        return describe(trial.variant)
    return f"CAE by {method_label(trial.method)}" if trial.is_cae else "CLIP-FT"


def _change_panel(axis: Axes, found: Sequence[Trial], measure: Yardstick | None) -> None:
    if measure:
        limit = 100 * measure.limits[MEAN]
        axis.axvspan(-limit, limit, color=BAND, linewidth=0, zorder=0)
    axis.axvline(0, color=NEUTRAL, linewidth=1)
    for place, trial in enumerate(found):
        if trial.change:
            _mark(axis, place, trial, trial.change[MEAN], 100)
        else:
            axis.plot(0, place, marker="|", color=NEUTRAL, markersize=9)
    axis.set_xlabel("mean of families minus\nreference, percentage points")


def _gap_panel(axis: Axes, found: Sequence[Trial]) -> None:
    axis.axvspan(-100 * CLOSED, 100 * CLOSED, color=BAND, linewidth=0, zorder=0)
    axis.axvline(0, color=NEUTRAL, linewidth=1)
    axis.axvline(100, color=NEUTRAL, linewidth=1, linestyle=":")
    for place, trial in enumerate(found):
        if trial.left is not None:
            _mark(axis, place, trial, trial.left, 100)
    axis.set_xlabel("gap left,\n% of CLIP-FT's")


def _mark(axis: Axes, place: int, trial: Trial, value: Interval, scale: float) -> None:
    middle, low, high = (scale * v for v in (value.estimate, value.low, value.high))
    method = trial.method if trial.is_cae else ""
    axis.errorbar(
        middle, place, xerr=[[max(middle - low, 0)], [max(high - middle, 0)]], linestyle="",
        capsize=3, markersize=6, marker=METHOD_MARKERS.get(method, "X"),
        color=METHOD_COLORS.get(method, NEUTRAL),
    )  # fmt: skip


def _alt(found: Sequence[Trial], measure: Yardstick | None) -> str:
    changes = "; ".join(
        f"{name_of(t)} {percent(t.change[MEAN], sign=True)}" for t in found if t.change
    )
    gaps = "; ".join(
        f"{name_of(t)} {interval(t.left, 0, 100)}" for t in found if t.left is not None
    )
    band = (
        f" A band marks ±{number(100 * measure.limits[MEAN], 1)}, which another seed may give."
        if measure
        else ""
    )
    return (
        "Two panels, a row for each setting. Left, mean of families minus the reference, in "
        f"percentage points with 95 % intervals over items: {changes}.{band} Right, the gap left, "
        f"in percent of CLIP-FT's: {gaps or 'none can be given'}."
    )
