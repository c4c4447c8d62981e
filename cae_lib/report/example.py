"""One caption scored by every method, before and after training."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from cae_lib.attribution import METHODS
from cae_lib.errors import DataError
from cae_lib.report.faithfulness import Faithfulness, faithfulness, scorer_label
from cae_lib.report.figure import ROLE_COLORS, WIDTH, Figure, finish, style
from cae_lib.report.markup import number
from cae_lib.report.runs import BASE, TUNED, cae_runs, label
from cae_lib.words.roles import ROLE_NAMES

MAP = "vlag"


def example_runs(profile: str, seeds: int) -> dict[str, dict[str, Faithfulness]]:
    """For each method: CLIP, CLIP-FT and, where there is one, the CAE trained on it."""
    trained = {method: run for run, method in cae_runs(profile).items()}
    return {
        method: {
            label(name): faithfulness(name, profile, seeds)
            for name in (BASE, TUNED, *([trained[method]] if method in trained else []))
        }
        for method in METHODS
    }


def example_figure(panels: Mapping[str, Mapping[str, Faithfulness]]) -> Figure:
    """A grid of scores for each method: a row a model, a column a word; one scale a method.

    Raises:
        DataError: The models' records hold different captions.
    """
    first = next(iter(next(iter(panels.values())).values())).records[0]["example"]
    words, roles = first["words"], [ROLE_NAMES[r] for r in first["roles"]]
    for runs in panels.values():
        if any(r["example"]["words"] != words for run in runs.values() for r in run.records):
            raise DataError("the records hold different examples: run `make reproduce` again")
    heights = [len(runs) + 1 for runs in panels.values()]
    with style():
        canvas, axes = plt.subplots(len(panels), 1, figsize=(WIDTH, 0.5 + 0.34 * sum(heights)),
                                    height_ratios=heights, layout="constrained", squeeze=False,
                                    sharex=True)  # fmt: skip
        for axis, (method, runs) in zip(axes.flat, panels.items(), strict=True):
            values = np.array([run.example(method) for run in runs.values()])
            _grid(axis, values, list(runs))
            axis.set_title(f"by {scorer_label(method)}", loc="left", fontweight="bold")
        last = axes.flat[-1]
        last.set_xticks(range(len(words)), words, rotation=35, ha="right")
        last.tick_params(axis="x", labelbottom=True)
        for tick, role in zip(last.get_xticklabels(), roles, strict=True):
            tick.set_color(ROLE_COLORS.get(role, "black"))
        return finish(canvas, _alt(panels, words))


def _grid(axis: Axes, values: np.ndarray, names: list[str]) -> None:
    """Cells with their numbers; the colour is white at 0."""
    size = float(np.abs(values).max()) or 1.0
    axis.imshow(values, cmap=MAP, vmin=-size, vmax=size, aspect="auto")
    axis.set_yticks(range(len(names)), names)
    axis.grid(visible=False)
    axis.tick_params(axis="x", labelbottom=False)
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            color = "white" if abs(value) > 0.7 * size else "black"
            axis.text(column, row, number(float(value), 2), ha="center", va="center", fontsize=8.5,
                      color=color)  # fmt: skip


def _alt(panels: Mapping[str, Mapping[str, Faithfulness]], words: list[str]) -> str:
    parts = [
        f"{name} by {scorer_label(method)} "
        + ", ".join(
            f"{w} {number(float(v), 2)}" for w, v in zip(words, run.example(method), strict=True)
        )
        for method, runs in panels.items()
        for name, run in runs.items()
    ]
    return f"Grids of word scores of the caption “{' '.join(words)}”. {'; '.join(parts)}."
