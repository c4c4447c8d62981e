"""Draw the attribution of an image and its caption in some models, as `cae attribute` does."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from cae_lab.plots import METHOD_LABELS, ROLE_COLORS, format_number
from cae_lib.attribution.heatmap import upsample
from cae_lib.attribution.pair import PairAttribution
from cae_lib.errors import DataError

# Of the colour scale: relevance is concentrated in few patches, so a linear scale would leave half
# of the colours almost unused.
COLOR_EXPONENT = 0.5

# Height of a word's row, and width and height of a heat map.
WORD_HEIGHT_INCHES, PANEL_INCHES = 0.19, 2.4


def draw_attributions(
    attributions: Mapping[str, PairAttribution], caption: str, heatmap_start_layer: int
) -> Figure:
    """Draw the image with its caption and, for each model, a heat map above the words' shares.

    The keys of `attributions` are the titles of the models' columns.
    """
    first, *_ = pairs = list(attributions.values())
    if len({pair.image.shape for pair in pairs}) > 1:
        raise DataError("the models read images of different sizes: draw one figure for each")
    layer = {-1: "last layer", 0: "all layers"}.get(
        heatmap_start_layer, f"layers from {heatmap_start_layer}"
    )
    # All models share one colour scale and one scale of greys, so that their columns compare.
    highest = float(max(pair.relevance.max() for pair in pairs))
    norm = PowerNorm(COLOR_EXPONENT, 0, highest)
    longest = max(pair.shares.to_numpy().max() for pair in pairs)
    below = max(1.3, WORD_HEIGHT_INCHES * len(first.shares))
    figure = Figure(
        (PANEL_INCHES * (1 + len(pairs)), PANEL_INCHES + below + 1.3), layout="constrained"
    )
    axes = figure.subplots(2, 1 + len(pairs), height_ratios=(PANEL_INCHES, below), squeeze=False)
    axes[0, 0].imshow(first.image, interpolation="nearest")
    text = textwrap.fill(caption, 30, max_lines=8)
    axes[1, 0].text(0, 1, text, va="top", fontsize=10, transform=axes[1, 0].transAxes)
    handles = [Patch(color=color, label=role) for role, color in ROLE_COLORS.items()]
    axes[1, 0].legend(handles=handles, loc="lower left", fontsize=9, frameon=False)
    for axis in axes[:, 0]:
        axis.set_axis_off()
    for (title, pair), (above, table) in zip(attributions.items(), axes.T[1:], strict=True):
        _draw_heat_map(above, pair, norm)
        above.set_title(f"{title}\ncosine {format_number(pair.cosine, 2)}", fontsize=10)
        _draw_shares(table, pair, longest, pair is first)
    # Without this margin, the layout cuts off the title of a square image.
    layout: Any = figure.get_layout_engine()
    layout.set(rect=(0, 0, 1, 0.97))
    ticks = [0, highest / 4, highest]
    bar = figure.colorbar(
        ScalarMappable(norm, "inferno"),
        ax=axes,
        shrink=0.6,
        location="bottom",
        aspect=40,
        pad=0.02,
        ticks=ticks,
    )
    bar.ax.set_xticklabels([format_number(tick, 2) for tick in ticks])
    bar.set_label(f"share of the picture's relevance in a patch ({layer})", fontsize=9)
    return figure


def _draw_heat_map(axis: Axes, pair: PairAttribution, norm: PowerNorm) -> None:
    """Draw a heat map over its image in grey, more transparent where the relevance is low."""
    height, width = pair.image.shape[:2]
    # Pixels are at most 1, so white becomes light grey.
    axis.imshow(pair.image.mean(axis=-1), cmap="gray", vmin=0, vmax=1.2, interpolation="nearest")
    # (1, rows, columns) of patches, upsampled to (height, width)
    small = torch.as_tensor(pair.relevance, dtype=torch.float64)[None]
    relevance = upsample(small, height, width)[0].numpy()
    axis.imshow(
        relevance,
        cmap="inferno",
        norm=norm,
        interpolation="nearest",
        alpha=0.25 + 0.5 * np.clip(norm(relevance), 0, 1),
    )
    axis.set_axis_off()


def _draw_shares(axis: Axes, pair: PairAttribution, longest: float, with_words: bool) -> None:
    """Draw the shares of the words by method; `longest` is the largest share in the figure."""
    texts = pair.shares.map(lambda value: format_number(value, 2))
    sns.heatmap(
        pair.shares.rename(columns=METHOD_LABELS),
        annot=texts,
        fmt="",
        cmap="Greys",
        vmin=0,
        vmax=1.3 * longest,
        cbar=False,
        annot_kws={"fontsize": 8},
        ax=axis,
        xticklabels=True,
        yticklabels=with_words,
    )
    names = [text.get_text() for text in axis.get_xticklabels()]
    axis.set_xticks(axis.get_xticks(), names, rotation=35, ha="right", fontsize=9)
    axis.tick_params(length=0)
    # Without words there are no labels, so the lists may differ in length.
    for word, role in zip(axis.get_yticklabels(), pair.roles, strict=False):
        word.set(color=ROLE_COLORS.get(role, "black"), fontsize=9, rotation=0)
