"""Attribution of one picture and its caption by some models, and the figure of it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import seaborn as sns
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image, ImageOps

from cae_lib.attribution import METHODS
from cae_lib.attribution.grouping import word_index
from cae_lib.attribution.heatmap import LAST_LAYER, image_relevances, shares, upsampled
from cae_lib.attribution.word_scores import positive_shares, split_words, word_scores
from cae_lib.commands.released import models
from cae_lib.config import profile as find_profile
from cae_lib.errors import ConfigError, DataError
from cae_lib.grid import BASE, find_run
from cae_lib.models.clip import WEIGHT_SUFFIXES, Clip
from cae_lib.models.released import Released, load_released
from cae_lib.models.text_encoder import encode_text
from cae_lib.plots import METHODS as METHOD_LABELS
from cae_lib.plots import ROLE_COLORS, number
from cae_lib.runs import weights_of
from cae_lib.runtime import pick_device
from cae_lib.words.alignment import token_roles
from cae_lib.words.dependency import DependencyTagger
from cae_lib.words.roles import ROLE_NAMES

ROOT = 0.5
"""Exponent of the colour scale: relevance is concentrated, and half of the range holds little."""

WORD_HEIGHT, PANEL = 0.19, 2.4
"""Inches."""


@dataclass(frozen=True)
class PairAttribution:
    """What one model says of a picture and its caption."""

    picture: np.ndarray  # what the model saw of it, `(H, W, 3)` in [0, 1]
    relevance: np.ndarray  # the map on the patch grid, summing to 1
    roles: list[str]  # of the caption's words, by the tagger that finds more of them
    scores: pd.DataFrame  # by word and method, in the method's unit; words beyond the context are
    # left out
    shares: pd.DataFrame  # the same divided by their sum, negative ones counted as 0
    cosine: float  # similarity of picture and caption


def attribute_pair(
    clip: Clip, picture: Image.Image, caption: str, start_layer: int = LAST_LAYER
) -> PairAttribution:
    """Score a picture's patches and a caption's words for their similarity. ConfigError for an
    image tower without attention maps or that layer, or another vocabulary; DataError for a caption
    without a word."""
    words = split_words(caption, clip.tokenizer)
    if not words:
        raise DataError(f"the caption {caption!r} holds no word")
    device = next(clip.model.parameters()).device
    pixels = clip.preprocess(picture.convert("RGB"))[None].to(device)
    tokens = clip.tokenizer([caption]).to(device)
    with torch.no_grad():
        texts = encode_text(clip.model, tokens).features
    found = image_relevances(clip.model, pixels, texts, (start_layer,))
    scores = {name: word_scores(clip, tokens, found.image_features, name) for name in METHODS}
    settings = open_clip.get_model_preprocess_cfg(clip.model)
    mean, std = (torch.tensor(settings[name]).view(3, 1, 1) for name in ("mean", "std"))
    seen = (pixels[0].cpu() * std + mean).clamp(0, 1)
    of_words = [pd.DataFrame({name: change(part)[0].cpu().numpy() for name, part in scores.items()},
                             index=words) for change in (torch.Tensor.detach, positive_shares)]
    return PairAttribution(
        seen.permute(1, 2, 0).numpy(), shares(found.maps[0])[0].cpu().numpy(),
        word_roles(clip, caption), *of_words,
        cosine=float((found.image_features * F.normalize(texts, dim=-1)).sum()),
    )


_tagger = cache(DependencyTagger)  # which takes a second to load, once for all models


def word_roles(clip: Clip, caption: str) -> list[str]:
    """The role of each word of a caption, by the tagger that finds more of them."""
    found = token_roles([caption], _tagger(), clip.tokenizer)
    words = word_index(found.tokens, clip.tokenizer.vocab_size)[0]
    return [ROLE_NAMES[int(found.roles[0][words == number][0])]
            for number in range(1, int(words.max()) + 1)]


def read_picture(path: str | Path) -> Image.Image:
    """A picture as RGB, turned as its EXIF data say; DataError if the file is missing or cannot be
    decoded."""
    try:
        with Image.open(path) as file:
            return ImageOps.exif_transpose(file).convert("RGB")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such picture; check the path") from error
    except (OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be decoded ({error})") from error


def open_weights(weights: str, model: str | None = None, activation: str | None = None,
                 profile: str = "mini", seed: int = 0) -> Clip:
    """The model that a word on the command line means: a run of the profile with this seed, a
    released model of `data/sources.yml`, or what `load_released` reads; with `model` also a tag of
    it, such as "openai". ConfigError or CheckpointError as there."""
    row, settings = find_run(weights, profile)
    if row in (BASE, *find_profile(profile).methods):
        return weights_of(row, profile, seed, **settings).load(pick_device())
    tag = model is not None and Path(weights).suffix not in WEIGHT_SUFFIXES
    how = Released(f"{model}:{weights}" if tag else weights, model, activation)
    clip = load_released(models().get(weights, how), pick_device())
    if not hasattr(clip.model, "visual"):
        raise ConfigError(f"{weights}: there is no heat map of a model of transformers; "
                          "`cae evaluate` takes it")
    return clip


def draw(found: Mapping[str, PairAttribution], caption: str, layer: str) -> Figure:
    """The picture with its caption, and for each model, by its title, its map above the words'
    shares. `layer` is the maps' start layer in words."""
    first, *_ = pairs = list(found.values())
    norm = PowerNorm(ROOT, 0, max(pair.relevance.max() for pair in pairs))
    longest = max(pair.shares.to_numpy().max() for pair in pairs)
    below = max(1.3, WORD_HEIGHT * len(first.shares))
    figure = Figure((PANEL * (1 + len(pairs)), PANEL + below + 1.3), layout="constrained")
    axes = figure.subplots(2, 1 + len(pairs), height_ratios=(PANEL, below), squeeze=False)
    axes[0, 0].imshow(first.picture, interpolation="nearest")
    text = textwrap.fill(caption, 30, max_lines=8)
    axes[1, 0].text(0, 1, text, va="top", fontsize=10, transform=axes[1, 0].transAxes)
    handles = [Patch(color=color, label=role) for role, color in ROLE_COLORS.items()]
    axes[1, 0].legend(handles=handles, loc="lower left", fontsize=9, frameon=False)
    for axis in axes[:, 0]:
        axis.set_axis_off()
    for (title, pair), (above, table) in zip(found.items(), axes.T[1:], strict=True):
        _map(above, pair, norm)
        above.set_title(f"{title}\ncosine {number(pair.cosine, 2)}", fontsize=10)
        _shares(table, pair, longest, pair is first)
    figure.get_layout_engine().set(rect=(0, 0, 1, 0.97))  # else a square picture's title is cut
    ticks = [0, norm.vmax / 4, norm.vmax]
    bar = figure.colorbar(ScalarMappable(norm, "inferno"), ax=axes, shrink=0.6, location="bottom",
                          aspect=40, pad=0.02, ticks=ticks)
    bar.ax.set_xticklabels([number(tick, 2) for tick in ticks])
    bar.set_label(f"share of the picture's relevance in a patch ({layer})", fontsize=9)
    return figure


def _map(axis: Axes, pair: PairAttribution, norm: PowerNorm) -> None:
    """The map in colour above the picture in grey, which shines through where there is little."""
    height, width = pair.picture.shape[:2]
    axis.imshow(pair.picture.mean(axis=-1), cmap="gray", vmin=0, vmax=1.2, interpolation="nearest")
    small = torch.as_tensor(pair.relevance, dtype=torch.float64)[None]
    relevance = upsampled(small, height, width)[0].numpy()
    axis.imshow(relevance, cmap="inferno", norm=norm, interpolation="nearest",
                alpha=0.25 + 0.5 * np.clip(norm(relevance), 0, 1))
    axis.set_axis_off()


def _shares(axis: Axes, pair: PairAttribution, longest: float, with_words: bool) -> None:
    """Shares of the words by method, the words in the colours of their roles."""
    texts = pair.shares.map(lambda value: number(value, 2))
    sns.heatmap(pair.shares.rename(columns=METHOD_LABELS), annot=texts, fmt="", cmap="Greys",
                vmin=0, vmax=1.3 * longest, cbar=False, annot_kws={"fontsize": 8}, ax=axis,
                xticklabels=True, yticklabels=with_words)
    axis.set_xticks(axis.get_xticks(), axis.get_xticklabels(), rotation=35, ha="right", fontsize=9)
    axis.tick_params(length=0)
    for word, role in zip(axis.get_yticklabels(), pair.roles, strict=False):
        word.set(color=ROLE_COLORS.get(role, "black"), fontsize=9, rotation=0)
