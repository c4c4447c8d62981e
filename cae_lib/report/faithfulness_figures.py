"""Figures of faithfulness: curves, models side by side, and the randomisation check."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from cae_lib.attribution import METHODS
from cae_lib.evaluation.faithfulness import INTEGRATED
from cae_lib.report.faithfulness import SCORERS, Faithfulness, faithfulness, scorer_label
from cae_lib.report.figure import (
    METHOD_COLORS,
    METHOD_MARKERS,
    NEUTRAL,
    WIDTH,
    Figure,
    finish,
    style,
)
from cae_lib.report.markup import interval, number
from cae_lib.report.runs import BASE, TUNED, cae_runs, label

CHANCE = "random"
KINDS = {"deletion": "deletion: highest first masked", "insertion": "insertion: highest first back"}
NORMAL = 1.96


def curves_figure(base: Faithfulness) -> Figure:
    """Mean deletion and insertion curves of one run, a line for each method."""
    grid = np.array(base.records[0]["curves"]["grid"])
    with style():
        canvas, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.4), layout="constrained", sharey=True)
        for axis, (kind, title) in zip(axes, KINDS.items(), strict=True):
            for scorer in (*SCORERS, CHANCE):
                _curve(axis, grid, base, scorer, kind)
            axis.set_title(title, loc="left")
            axis.set_xlabel(f"words {'masked' if kind == 'deletion' else 'present'}, %")
        axes[0].set_ylabel("cosine of picture and caption")
        handles, labels = axes[0].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside upper center", ncols=3)
        return finish(canvas, _curves_alt(base, grid))


def _curve(axis: Axes, grid: np.ndarray, run: Faithfulness, scorer: str, kind: str) -> None:
    mean, error = run.curve(scorer, kind)
    if scorer == CHANCE and kind == "insertion":
        mean, error = mean[::-1], error[::-1]
    color = METHOD_COLORS.get(scorer, NEUTRAL if scorer == CHANCE else "black")
    look = ":" if scorer == CHANCE else "--" if scorer == INTEGRATED else "-"
    name = "random order" if scorer == CHANCE else scorer_label(scorer)
    axis.plot(100 * grid, mean, look, color=color, marker=METHOD_MARKERS.get(scorer),
              markersize=4, label=name)  # fmt: skip
    axis.fill_between(100 * grid, mean - NORMAL * error, mean + NORMAL * error, color=color,
                      alpha=0.12, linewidth=0)  # fmt: skip


def _curves_alt(run: Faithfulness, grid: np.ndarray) -> str:
    middle = len(grid) // 2
    parts = []
    for kind in KINDS:
        values = ", ".join(
            f"{scorer_label(s)} {number(float(run.curve(s, kind)[0][middle]), 2)}" for s in SCORERS
        )
        parts.append(f"{kind} {values}")
    chance = number(float(run.curve(CHANCE, "deletion")[0][middle]), 2)
    return (
        "Two panels of falling and rising lines. Mean cosine at half of the words: "
        f"{'; '.join(parts)}; random order {chance}."
    )


def training_figure(profile: str, seeds: int) -> Figure:
    """Faithfulness by each method: CLIP, CLIP-FT, and the CLIP-CAE trained on that method."""
    panels = {
        method: {label(name): faithfulness(name, profile, seeds) for name in (BASE, TUNED, run)}
        for run, method in cae_runs(profile).items()
    }
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    with style():
        canvas, axes = plt.subplots(rows, columns, figsize=(WIDTH, 0.5 + 1.5 * rows), sharex=True,
                                    layout="constrained", squeeze=False)  # fmt: skip
        for axis, (method, runs) in zip(axes.flat, panels.items(), strict=False):
            _panel(axis, method, runs)
        for axis in axes.flat[len(panels) :]:
            axis.set_axis_off()
        for axis in axes[-1]:
            axis.set_xlabel("faithfulness")
        return finish(canvas, _training_alt(panels))


def _panel(axis: Axes, method: str, runs: Mapping[str, Faithfulness]) -> None:
    looks = {
        method: {"fmt": METHOD_MARKERS[method], "color": METHOD_COLORS[method]},
        INTEGRATED: {"fmt": "o", "color": NEUTRAL, "markerfacecolor": "white"},
    }
    for place, run in enumerate(runs.values()):
        for step, (scorer, look) in zip((-0.13, 0.13), looks.items(), strict=True):
            share = run.areas(scorer).faithfulness
            if share is None:
                continue
            found = share.interval()
            error = [[found.estimate - found.low], [found.high - found.estimate]]
            axis.errorbar(found.estimate, place + step, xerr=error, markersize=6, capsize=3, **look)
    axis.axvline(0, color=NEUTRAL, linewidth=1)
    axis.set_yticks(range(len(runs)), [name.replace(" (", "\n(") for name in runs])
    axis.set_ylim(len(runs) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
    axis.set_title(f"by {scorer_label(method)}", loc="left", fontweight="bold")


def _training_alt(panels: Mapping[str, Mapping[str, Faithfulness]]) -> str:
    parts = []
    for method, runs in panels.items():
        values = ", ".join(
            f"{name} {_share(run, method)}, by integrated gradients {_share(run, INTEGRATED)}"
            for name, run in runs.items()
        )
        parts.append(f"by {scorer_label(method)} {values}")
    return f"Faithfulness with 95 % intervals: {'; '.join(parts)}."


def _share(run: Faithfulness, scorer: str) -> str:
    share = run.areas(scorer).faithfulness
    return "not defined" if share is None else interval(share.interval(), 2)


def randomisation_figure(base: Faithfulness) -> Figure:
    """Rank correlation with the trained model's scores, from stage to stage."""
    places = np.arange(len(base.stages))
    with style():
        canvas, axis = plt.subplots(figsize=(WIDTH, 3.2), layout="constrained")
        for step, method in enumerate(METHODS):
            found = [base.randomised(method, stage).interval() for stage in base.stages]
            middle = np.array([f.estimate for f in found])
            error = np.array([[f.estimate - f.low, f.high - f.estimate] for f in found]).T
            axis.errorbar(places + 0.06 * (step - 1.5), middle, yerr=error, capsize=2,
                          color=METHOD_COLORS[method], marker=METHOD_MARKERS[method],
                          markersize=5, linewidth=1.2, label=scorer_label(method))  # fmt: skip
        axis.axhline(0, color=NEUTRAL, linewidth=1)
        axis.set_xticks(places, [s if i == 0 else f"+ {s}" for i, s in enumerate(base.stages)])
        axis.set(xlabel="random so far, from the top of the text tower down",
                 ylabel="rank correlation\nwith the trained model")  # fmt: skip
        canvas.legend(loc="outside upper center", ncols=4)
        return finish(canvas, _randomisation_alt(base))


def _randomisation_alt(run: Faithfulness) -> str:
    parts = []
    for method in METHODS:
        values = ", ".join(
            f"{stage} {number(run.randomised(method, stage).estimate, 2)}" for stage in run.stages
        )
        parts.append(f"{scorer_label(method)}: {values}")
    return (
        "Lines of the rank correlation with the trained model's scores while the text tower is "
        f"randomised. {'; '.join(parts)}."
    )
