"""The figures of Fig. 6's page: drawn scenes side by side, and means over the test scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from cae_lib.errors import DataError
from cae_lib.evaluation.example_scenes import EXAMPLES
from cae_lib.evaluation.heatmaps import START_LAYERS
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
from cae_lib.report.relation_shares import LAYER, METHOD
from cae_lib.report.relevance import Relevance, mean, relevance
from cae_lib.report.relevance_figure import Panel, SceneRow, relevance_figure
from cae_lib.report.runs import label, method_of
from cae_lib.report.stored import if_measured
from cae_lib.world.draw import render

SHOWN = ("subject", "relation", "object")


@if_measured
def examples_figure(runs: Sequence[str], profile: str, layer: str = LAYER,
                    method: str = METHOD) -> Figure:  # fmt: skip
    """The drawn scenes with the maps and word shares of some runs, seed 0, on one colour scale.

    Raises:
        DataError: A record holds other scenes than the code draws.
    """
    found = {run: relevance(run, profile, 1).examples for run in runs}
    rows = []
    for place, example in enumerate(EXAMPLES):
        stored = {run: examples[place] for run, examples in found.items()}
        if any(part["caption"] != example.caption for part in stored.values()):
            raise DataError("the records hold other scenes: run `make reproduce` again")
        panels = {
            label(run): Panel(np.asarray(part["maps"][layer]), {method: part["shares"][method]})
            for run, part in stored.items()
        }
        picture = np.asarray(render(example.scene)) / 255
        rows.append(SceneRow(picture, stored[runs[0]]["words"], panels))
    return relevance_figure(rows, [method], layer)


@if_measured
def region_figure(runs: Sequence[str], profile: str, seeds: int) -> Figure:
    """Mean share of relevance on each region with its interval; a line marks the region's area."""
    found = {run: relevance(run, profile, seeds) for run in runs}
    with style():
        canvas, axes = plt.subplots(
            len(START_LAYERS), len(SHOWN), sharey=True, sharex="col", layout="constrained",
            figsize=(WIDTH, 1.0 + len(START_LAYERS) * (0.5 + 0.26 * len(runs))), squeeze=False,
        )  # fmt: skip
        for row, layer in zip(axes, START_LAYERS, strict=True):
            for axis, region in zip(row, SHOWN, strict=True):
                _shares(axis, found, layer, region)
                axis.set_title(f"{region}, {layer}", loc="left")
            row[0].set_yticks(range(len(runs)), [label(run) for run in runs])
            row[0].set_ylim(len(runs) - 0.5, -0.5)
        for axis in axes[-1]:
            axis.set_xlabel("relevance, %")
        return finish(canvas, _alt(found))


def _shares(axis: Axes, found: Mapping[str, Relevance], layer: str, region: str) -> None:
    for place, (run, part) in enumerate(found.items()):
        share = mean(part.regions[layer][region])
        error = [[100 * (share.estimate - share.low)], [100 * (share.high - share.estimate)]]
        method = method_of(run)
        axis.errorbar(100 * share.estimate, place, xerr=error, capsize=3, markersize=6,
                      marker=METHOD_MARKERS.get(method, "o"),
                      color=METHOD_COLORS.get(method, NEUTRAL))  # fmt: skip
    area = next(iter(found.values())).area[region]
    axis.axvline(100 * area, color=NEUTRAL, linestyle=":", linewidth=1.2)
    axis.grid(axis="y", visible=False)
    axis.locator_params(axis="x", nbins=4)


def _alt(found: Mapping[str, Relevance]) -> str:
    parts = [
        f"{region}, {layer}: "
        + ", ".join(
            f"{label(run)} {percent(mean(part.regions[layer][region]))}"
            for run, part in found.items()
        )
        for layer in START_LAYERS
        for region in SHOWN
    ]
    return (
        "Mean share of a picture's relevance on the subject, the region of the relation and the "
        f"object, with 95 % intervals, by model. {'; '.join(parts)}."
    )
