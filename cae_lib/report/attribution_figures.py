"""Figures of attribution by role: distributions, and gaps before and after CAE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from cae_lib.evaluation.attribution import ROLES
from cae_lib.report.attribution import RoleScores
from cae_lib.report.figure import (
    NEUTRAL,
    ROLE_COLORS,
    ROLE_MARKERS,
    WIDTH,
    Figure,
    finish,
    style,
)
from cae_lib.report.markup import interval, number
from cae_lib.report.runs import method_label

SPREAD = 0.25
COLUMNS = 2


def distributions(panels: Mapping[str, Mapping[str, RoleScores]]) -> Figure:
    """Boxes of the tokens' scores and means of the captions, one panel a method.

    Args:
        panels: For each method, what it says of one run or several, by the run's label. Each panel
            has its own scale, since the methods' units differ.
    """
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    with style():
        canvas, axes = plt.subplots(
            rows, columns, figsize=(WIDTH, 0.5 + 2.7 * rows), layout="constrained", squeeze=False
        )
        for axis, (method, runs) in zip(axes.flat, panels.items(), strict=False):
            _boxes(axis, runs)
            axis.set_title(method_label(method), loc="left", fontweight="bold")
            axis.set_ylabel("attribution of a token")
        for axis in axes.flat[len(panels) :]:
            axis.set_axis_off()
        canvas.legend(handles=_legend(), loc="outside upper center", ncols=4)
        return finish(canvas, _alt(panels))


def _boxes(axis: Axes, runs: Mapping[str, RoleScores]) -> None:
    """Three boxes for each run: 5, 25, 50, 75, 95 %, and the mean with its interval."""
    for position, scores in enumerate(runs.values()):
        for step, role in enumerate(ROLES):
            x = position + SPREAD * (step - 1)
            _box(axis, x, scores.percentiles[role], ROLE_COLORS[role])
            _mean(axis, x, scores, role)
    if len(runs) == 1:
        axis.set_xticks([SPREAD * (step - 1) for step in range(len(ROLES))], list(ROLES))
    else:
        axis.set_xticks(range(len(runs)), [_folded(name) for name in runs])
    axis.set_xlim(-0.5, len(runs) - 0.5)
    axis.grid(axis="x", visible=False)
    axis.axhline(0, color=NEUTRAL, linewidth=0.8, zorder=1)


def _folded(name: str) -> str:
    return name.replace(" (", "\n(")


def _box(axis: Axes, x: float, percentiles: np.ndarray, color: object) -> None:
    low, first, middle, third, high = (float(percentiles[p]) for p in (5, 25, 50, 75, 95))
    part = {"whislo": low, "q1": first, "med": middle, "q3": third, "whishi": high, "fliers": []}
    axis.bxp(
        [part], positions=[x], widths=0.8 * SPREAD, showfliers=False, patch_artist=True,
        manage_ticks=False, boxprops={"facecolor": color, "alpha": 0.35, "edgecolor": color},
        medianprops={"color": color, "linewidth": 1.5},
        whiskerprops={"color": color}, capprops={"color": color},
    )  # fmt: skip


def _mean(axis: Axes, x: float, scores: RoleScores, role: str) -> None:
    found = scores.means[role].interval()
    error = [[found.estimate - found.low], [found.high - found.estimate]]
    axis.errorbar(
        x, found.estimate, yerr=error, fmt=ROLE_MARKERS[role], color="black", markersize=4.5,
        markerfacecolor=ROLE_COLORS[role], capsize=2, linewidth=1, zorder=4,
    )  # fmt: skip


def _legend() -> list[Line2D]:
    return [
        Line2D([], [], marker=ROLE_MARKERS[role], linestyle="", markeredgecolor="black",
               markerfacecolor=ROLE_COLORS[role], label=f"{role} words")
        for role in ROLES
    ]  # fmt: skip


def _alt(panels: Mapping[str, Mapping[str, RoleScores]]) -> str:
    sentences = [
        f"{method_label(method)}, {name}: "
        + ", ".join(f"{role} {number(scores.means[role].estimate)}" for role in ROLES)
        for method, runs in panels.items()
        for name, scores in runs.items()
    ]
    return (
        "Box plots of the attribution of object, attribute and relation words. Means by method "
        f"and model: {'; '.join(sentences)}."
    )


def gaps(panels: Mapping[str, Mapping[str, RoleScores]]) -> Figure:
    """The gap A_obj - A_comp of each run with its interval, one panel a method."""
    names = list(dict.fromkeys(name for runs in panels.values() for name in runs))
    height = 0.7 + len(panels) * (0.4 + 0.33 * max(len(runs) for runs in panels.values()))
    with style():
        canvas, axes = plt.subplots(
            len(panels), 1, figsize=(WIDTH, height), layout="constrained", squeeze=False
        )
        for axis, (method, runs) in zip(axes.flat, panels.items(), strict=True):
            _gap_rows(axis, runs)
            axis.set_title(f"by {method_label(method)}", loc="left", fontweight="bold")
        axes.flat[-1].set_xlabel("gap: mean of object words - mean of composition words".replace(
            "-", "\N{MINUS SIGN}"))  # fmt: skip
        return finish(canvas, _gap_alt(panels, names))


def _gap_rows(axis: Axes, runs: Mapping[str, RoleScores]) -> None:
    for place, scores in enumerate(runs.values()):
        found = scores.gap.interval()
        error = [[found.estimate - found.low], [found.high - found.estimate]]
        axis.errorbar(found.estimate, place, xerr=error, fmt="o", color=ROLE_COLORS["object"],
                      markersize=6, capsize=3)  # fmt: skip
    axis.axvline(0, color=NEUTRAL, linewidth=1)
    axis.set_yticks(range(len(runs)), list(runs))
    axis.set_ylim(len(runs) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)


def _gap_alt(panels: Mapping[str, Mapping[str, RoleScores]], names: Sequence[str]) -> str:
    parts = [
        f"by {method_label(method)} "
        + ", ".join(
            f"{name} {interval(runs[name].gap.interval(), runs[name].decimals)}"
            for name in names
            if name in runs
        )
        for method, runs in panels.items()
    ]
    listed = "; ".join(parts)
    return f"Gap between object words and composition words with 95 % intervals: {listed}."
