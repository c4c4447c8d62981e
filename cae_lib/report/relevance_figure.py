"""Heat maps with the scores of the words under them: models side by side on one colour scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure as Canvas
from matplotlib.gridspec import GridSpec

from cae_lib.attribution.heatmap import upsampled
from cae_lib.report.figure import METHOD_COLORS, MOST_BYTES, NEUTRAL, WIDTH, Figure, finish, style
from cae_lib.report.markup import number
from cae_lib.report.runs import method_label

COLORS = "magma"
ROOT = 0.5
"""Exponent of the colour scale: relevance is concentrated, and half of the range holds little."""

WORD_HEIGHT = 0.17
MAP_HEIGHT = 1.55


@dataclass(frozen=True)
class Panel:
    """What one model says of a scene.

    Attributes:
        relevance: Map on the patch grid, sums to 1.
        shares: For each method, the share of each word; negative scores count as 0.
    """

    relevance: np.ndarray
    shares: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class SceneRow:
    """A picture with its caption and what each model says, by the model's label.

    Attributes:
        picture: `(H, W, 3)` in [0, 1].
        words: Of the caption.
        panels: One a model.
    """

    picture: np.ndarray
    words: Sequence[str]
    panels: Mapping[str, Panel]


def relevance_figure(rows: Sequence[SceneRow], methods: Sequence[str], layer: str,
                     most: int = MOST_BYTES) -> Figure:  # fmt: skip
    """Draw each scene's picture, then the map of each model with its words' shares below.

    Args:
        rows: The scenes; all with the same models.
        methods: Whose word shares to draw.
        layer: Start layer of the maps in words, for the colour bar.
        most: Bytes that the file may have.
    """
    norm = PowerNorm(ROOT, 0, max(p.relevance.max() for row in rows for p in row.panels.values()))
    longest = max(
        max(shares) for row in rows for p in row.panels.values() for shares in p.shares.values()
    )
    heights: list[float] = []
    for row in rows:
        heights += [MAP_HEIGHT, *[WORD_HEIGHT * len(row.words) + 0.08] * len(methods)]
    with style():
        canvas = plt.figure(figsize=(WIDTH, sum(heights) + 0.75), layout="constrained")
        grid = canvas.add_gridspec(len(heights), 1 + len(rows[0].panels), height_ratios=heights)
        step = 1 + len(methods)
        for place, row in enumerate(rows):
            _scene(canvas, grid, place * step, row, methods, norm, longest)
        bar = canvas.colorbar(ScalarMappable(norm, COLORS), ax=canvas.axes, shrink=0.6,
                              location="bottom", aspect=40, pad=0.01)  # fmt: skip
        bar.set_label(f"share of a picture's relevance in a patch ({layer})")
        return finish(canvas, _alt(rows, methods), most)


def _scene(canvas: Canvas, grid: GridSpec, top: int, row: SceneRow, methods: Sequence[str],
           norm: PowerNorm, longest: float) -> None:  # fmt: skip
    axis = canvas.add_subplot(grid[top, 0])
    axis.imshow(row.picture, interpolation="nearest")
    axis.set_axis_off()
    for column, (name, panel) in enumerate(row.panels.items(), start=1):
        axis = canvas.add_subplot(grid[top, column])
        _map(axis, row.picture, panel.relevance, norm)
        if top == 0:
            axis.set_title(name.replace(" (", "\n("))
        for step, method in enumerate(methods, start=1):
            words = canvas.add_subplot(grid[top + step, column])
            _bars(words, row.words, panel.shares[method], method, longest)
            if column == 1:
                words.set_yticks(range(len(row.words)), list(row.words), fontsize=9)
                if len(methods) > 1:
                    words.set_ylabel(method_label(method))
            else:
                words.set_yticks([])


def _map(axis: Axes, picture: np.ndarray, relevance: np.ndarray, norm: PowerNorm) -> None:
    """The map, and the outlines of the picture in white."""
    height, width = picture.shape[:2]
    large = upsampled(torch.as_tensor(relevance, dtype=torch.float64)[None], height, width)[0]
    axis.imshow(large.numpy(), cmap=COLORS, norm=norm, interpolation="nearest")
    down, across = np.gradient(picture.mean(axis=-1))
    edges = np.clip(4 * np.hypot(down, across), 0, 0.7)
    axis.imshow(np.dstack([np.ones((height, width, 3)), edges]), interpolation="nearest")
    axis.set_axis_off()


def _bars(axis: Axes, words: Sequence[str], shares: Sequence[float], method: str,
          longest: float) -> None:  # fmt: skip
    axis.barh(range(len(words)), shares, height=0.75, color=METHOD_COLORS.get(method, NEUTRAL))
    for place, value in enumerate(shares):
        axis.text(value + 0.02 * longest, place, number(float(value), 2), va="center", fontsize=9)
    axis.set_xlim(0, 1.45 * longest)
    axis.set_ylim(len(words) - 0.5, -0.5)
    axis.set_xticks([])
    axis.grid(visible=False)
    axis.spines["bottom"].set_visible(False)


def _alt(rows: Sequence[SceneRow], methods: Sequence[str]) -> str:
    parts = []
    for row in rows:
        for name, panel in row.panels.items():
            place = np.unravel_index(int(np.argmax(panel.relevance)), panel.relevance.shape)
            words = "; ".join(
                f"words by {method_label(method)} "
                + ", ".join(
                    f"{word} {number(float(value), 2)}"
                    for word, value in zip(row.words, panel.shares[method], strict=True)
                )
                for method in methods
            )
            parts.append(
                f"“{' '.join(row.words)}”, {name}: strongest patch in row {place[0] + 1}, column "
                f"{place[1] + 1} with {number(float(panel.relevance.max()), 2)}; {words}"
            )
    return f"Pictures, heat maps on one colour scale and bars of word scores. {'. '.join(parts)}."
