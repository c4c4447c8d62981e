"""The figure of the activation control: what is training, what is the activation."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt

from cae_lib.evaluation.statistics import Interval
from cae_lib.report.activation import PRINTED, RELOAD, TRAINING, control_answers, steps
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
from cae_lib.report.stored import if_measured

LOOKS = {
    TRAINING.name: (METHOD_COLORS["attention"], METHOD_MARKERS["attention"]),
    RELOAD.name: (METHOD_COLORS["gradcam"], METHOD_MARKERS["gradcam"]),
    PRINTED.name: (NEUTRAL, METHOD_MARKERS["gradient"]),
}
"""Colour and marker of the three differences that are drawn."""


@if_measured
def step_figure(profile: str, seeds: int) -> Figure:
    """Three differences to CLIP by family: fine-tuning, the activation, and both mixed."""
    found = steps(control_answers(profile, seeds))
    names = list(next(iter(found.values())))
    with style():
        canvas, axis = plt.subplots(figsize=(WIDTH, 1.1 + 0.5 * len(names)), layout="constrained")
        for place, (step, (color, marker)) in enumerate(LOOKS.items()):
            values = [found[step][name] for name in names]
            rows = [row + 0.22 * (place - 1) for row in range(len(names))]
            error = [[100 * (v.estimate - v.low) for v in values],
                     [100 * (v.high - v.estimate) for v in values]]  # fmt: skip
            middle = [100 * v.estimate for v in values]
            axis.errorbar(middle, rows, xerr=error, linestyle="", marker=marker, color=color,
                          capsize=3, markersize=6, label=step)  # fmt: skip
        axis.axvline(0, color=NEUTRAL, linewidth=1)
        axis.set_yticks(range(len(names)), names)
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.set_xlabel("difference to CLIP (QuickGELU), percentage points")
        axis.grid(axis="y", visible=False)
        canvas.legend(loc="outside upper center", ncols=3)
        return finish(canvas, _alt(found))


def _alt(found: Mapping[str, Mapping[str, Interval]]) -> str:
    parts = [
        f"{step}: "
        + ", ".join(f"{name} {percent(value, sign=True)}" for name, value in found[step].items())
        for step in LOOKS
    ]
    return (
        "Differences to CLIP in percentage points with 95 % intervals, by benchmark family. "
        f"{'; '.join(parts)}."
    )
