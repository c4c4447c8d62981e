"""The figure of the base study: CAE's gain against what each base knows, and against its gap."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from cae_lib.report.figure import (
    NEUTRAL,
    ROLE_COLORS,
    ROLE_MARKERS,
    WIDTH,
    Figure,
    finish,
    style,
)
from cae_lib.report.markup import interval, number, percent
from cae_lib.report.runs import method_label
from cae_lib.report.stored import if_measured
from cae_lib.report.variants import MEAN
from cae_lib.report.when_it_helps import MEASURES, Start, starts

LOOKS: Mapping[str, str] = {MEAN: "composition", "relation": "relation", "attribute": "attribute"}
"""The role whose colour and marker a measure takes."""

DODGE = 0.03
"""Horizontal distance between the marks of one base, as a share of the axis."""


@if_measured
def gain_figure(profile: str, seeds: int) -> Figure:
    """CLIP-CAE minus CLIP-FT by the base's knowledge of relations and by its relative gap."""
    found = starts(profile, seeds)
    with style():
        canvas, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.9), sharey=True, layout="constrained")
        _panel(axes[0], found, _knowledge)
        axes[0].set_xlabel("relation choices of the base, % right")
        axes[0].set_ylabel("CAE \N{MINUS SIGN} CLIP-FT, percentage points")
        _panel(axes[1], found, _relative_gap)
        axes[1].set_xlabel(f"relative gap of the base\nby {method_label(found[0].method)}")
        handles, labels = axes[0].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside upper center", ncols=3)
        return finish(canvas, _alt(found))


def _knowledge(start: Start) -> float:
    return 100 * start.knowledge["relation"].interval().estimate


def _relative_gap(start: Start) -> float:
    return start.base.contrast


def _panel(axis: Axes, found: Sequence[Start], place: Callable[[Start], float]) -> None:
    places = [place(start) for start in found]
    spread = (max(places) - min(places)) or 1.0
    axis.axhline(0, color=NEUTRAL, linewidth=1)
    for offset, (measure, name) in zip((-1, 0, 1), MEASURES.items(), strict=True):
        values = [start.gains[measure] for start in found]
        middle = [100 * v.estimate for v in values]
        error = [[100 * (v.estimate - v.low) for v in values],
                 [100 * (v.high - v.estimate) for v in values]]  # fmt: skip
        role = LOOKS[measure]
        axis.errorbar(
            [x + offset * DODGE * spread for x in places], middle, yerr=error, linestyle="",
            capsize=3, markersize=6, marker=ROLE_MARKERS[role], color=ROLE_COLORS[role], label=name,
        )  # fmt: skip
    axis.set_xlim(min(places) - 0.15 * spread, max(places) + 0.15 * spread)
    for start, x in zip(found, places, strict=True):
        axis.annotate(
            f"{start.steps} steps", (x, 1.01), xycoords=("data", "axes fraction"), rotation=40,
            ha="left", va="bottom", fontsize=9, color=NEUTRAL,
        )  # fmt: skip


def _alt(found: Sequence[Start]) -> str:
    parts = []
    for start in found:
        gains = ", ".join(
            f"{name} {percent(start.gains[measure], sign=True)}"
            for measure, name in MEASURES.items()
        )
        known = interval(start.knowledge["relation"].interval(), 1, 100)
        parts.append(
            f"base of {start.steps} steps (relation choices {known} %, relative gap "
            f"{number(start.base.contrast, 2)}): {gains}"
        )
    return (
        "Two panels with the same gains, CLIP-CAE minus CLIP-FT in percentage points with 95 % "
        "intervals, against the base's relation choices and against its relative gap. "
        f"{'; '.join(parts)}."
    )
