"""The figure of Fig. 3: how close captions are to their phrases, before and after CAE."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from cae_lib.evaluation.statistics import mean_interval
from cae_lib.report.figure import ROLE_COLORS, ROLE_MARKERS, WIDTH, Figure, finish, style
from cae_lib.report.markup import number
from cae_lib.report.phrases import CLAIMED, Cosines, by_run
from cae_lib.report.stored import if_measured

ENDS = (5, 25, 50, 75, 95)


@if_measured
def phrase_figure(runs: list[str], profile: str, seeds: int) -> Figure:
    """Boxes of the captions' cosines to their relation and attribute phrases, a box a run.

    Boxes give the 5th, 25th, 50th, 75th and 95th percentile over captions (each the mean over
    seeds), marks the mean with its interval; hollow marks the mean for phrases of other captions.
    """
    panels = by_run(runs, profile, seeds)
    height = 0.8 + len(CLAIMED) * (0.5 + 0.3 * len(runs))
    with style():
        canvas, axes = plt.subplots(
            len(CLAIMED), 1, figsize=(WIDTH, height), layout="constrained", sharex=True
        )
        for axis, kind in zip(axes, CLAIMED, strict=True):
            _panel(axis, kind, panels[kind])
            axis.set_title(f"{kind} phrases", loc="left", fontweight="bold")
        axes[-1].set_xlabel("cosine between a caption and its phrases")
        return finish(canvas, _alt({kind: panels[kind] for kind in CLAIMED}))


def _panel(axis: Axes, kind: str, runs: Mapping[str, Cosines]) -> None:
    color = ROLE_COLORS[kind]
    for place, found in enumerate(runs.values()):
        low, first, middle, third, high = np.percentile(found.own.mean(axis=0), ENDS)
        part = {"whislo": low, "q1": first, "med": middle, "q3": third, "whishi": high}
        axis.bxp(
            [part | {"fliers": []}], positions=[place], widths=0.6, orientation="horizontal",
            showfliers=False, patch_artist=True, manage_ticks=False,
            boxprops={"facecolor": color, "alpha": 0.35, "edgecolor": color},
            medianprops={"color": color, "linewidth": 1.5},
            whiskerprops={"color": color}, capprops={"color": color},
        )  # fmt: skip
        mean = mean_interval(found.own, resample_seeds=True)
        error = [[mean.estimate - mean.low], [mean.high - mean.estimate]]
        axis.errorbar(
            mean.estimate, place, xerr=error, fmt=ROLE_MARKERS[kind], color="black",
            markerfacecolor=color, markersize=5, capsize=2, linewidth=1, zorder=4,
        )  # fmt: skip
        axis.plot(found.other.mean(), place, ROLE_MARKERS[kind], color="black", markersize=5,
                  markerfacecolor="white", zorder=4)  # fmt: skip
    axis.set_yticks(range(len(runs)), list(runs))
    axis.set_ylim(len(runs) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)


def _alt(panels: Mapping[str, Mapping[str, Cosines]]) -> str:
    parts = [
        f"{kind} phrases: "
        + ", ".join(
            f"{name} {number(found.own.mean())} (others' {number(found.other.mean())})"
            for name, found in runs.items()
        )
        for kind, runs in panels.items()
    ]
    return (
        "Box plots of the cosine between captions and the phrases in them, a box a model, with "
        f"the mean for phrases of other captions. Means: {'; '.join(parts)}."
    )
