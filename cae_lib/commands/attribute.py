"""`cae attribute`: attribution of any picture and caption by any weights, as a figure."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import open_clip
import pandas as pd
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
from cae_lib.commands.evaluate import released_models
from cae_lib.config import profile as find_profile
from cae_lib.errors import ConfigError, DataError
from cae_lib.grid import BASE, find_run
from cae_lib.models.clip import WEIGHT_SUFFIXES, Clip
from cae_lib.models.released import Released, load_released
from cae_lib.models.text_encoder import encode_text
from cae_lib.plots import METHODS as METHOD_LABELS
from cae_lib.plots import ROLE_COLORS, label, number
from cae_lib.runs import weights_of
from cae_lib.runtime import pick_device, whole_file
from cae_lib.words.alignment import token_roles
from cae_lib.words.dependency import DependencyTagger
from cae_lib.words.roles import ROLE_NAMES

MOST_MODELS = 5
ROOT = 0.5
"""Exponent of the colour scale: relevance is concentrated, and half of the range holds little."""

WORD_HEIGHT, PANEL = 0.19, 2.4
"""Inches."""


@dataclass(frozen=True)
class PairAttribution:
    """What one model says of a picture and its caption."""

    picture: np.ndarray  # what the model saw of it, `(H, W, 3)` in [0, 1]
    relevance: np.ndarray  # the map on the patch grid, summing to 1
    words: list[str]  # the caption's; those beyond the context are left out
    roles: list[str]  # theirs, by the paper's parser
    scores: Mapping[str, np.ndarray]  # for each method, one number a word, in the method's unit
    shares: Mapping[str, np.ndarray]  # the same divided by their sum, negative ones counted as 0
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
    return PairAttribution(
        picture=seen.permute(1, 2, 0).numpy(),
        relevance=shares(found.maps[0])[0].cpu().numpy(),
        words=words,
        roles=word_roles(clip, caption),
        scores={name: part[0].cpu().numpy() for name, part in scores.items()},
        shares={name: positive_shares(part)[0].cpu().numpy() for name, part in scores.items()},
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
    clip = load_released(released_models().get(weights, how), pick_device())
    if not hasattr(clip.model, "visual"):
        raise ConfigError(f"{weights}: there is no heat map of a model of transformers; "
                          "`cae evaluate` takes it")
    return clip


def run(parsed: argparse.Namespace) -> None:
    """Draw a picture's heat map and its words' shares for each of some weights into one file."""
    weights = parsed.weights or [BASE]
    if len(weights) > MOST_MODELS or len(set(weights)) < len(weights):
        raise ConfigError(f"--weights: expected up to {MOST_MODELS} different ones")
    picture = read_picture(parsed.image)
    found: dict[str, PairAttribution] = {}
    for name in weights:
        clip = open_weights(name, parsed.model, parsed.activation, parsed.profile, parsed.seed)
        title = clip.name if name == BASE else label(name)
        title = Path(name).stem if title == name else title
        title = name if title in found else title
        found[title] = attribute_pair(clip, picture, parsed.caption, parsed.start_layer)
    if len({part.picture.shape for part in found.values()}) > 1:
        raise DataError("the models take pictures of different sizes: draw one figure for each")
    known = {-1: "last layer", 0: "all layers"}
    layer = known.get(parsed.start_layer, f"layers from {parsed.start_layer}")
    figure = draw(found, parsed.caption, layer)
    with whole_file(parsed.output) as path:
        figure.savefig(path, format="png", dpi=200)
    plt.close(figure)
    for title, part in found.items():
        print(f"{title}: cosine {number(part.cosine, 2)}; score (share of the words)")
        scores, shares = (pd.DataFrame(values, part.words) for values in (part.scores, part.shares))
        cells = scores.map("{:.4f} (".format) + shares.map("{:.2f})".format)
        print(cells.rename(columns=METHOD_LABELS).to_string())
    print(f"The figure is {parsed.output}")


def draw(found: Mapping[str, PairAttribution], caption: str, layer: str) -> Figure:
    """The picture with its caption, and for each model, by its title, its map above the words'
    shares. `layer` is the maps' start layer in words."""
    parts = list(found.values())
    norm = PowerNorm(ROOT, 0, max(part.relevance.max() for part in parts))
    longest = max(shares.max() for part in parts for shares in part.shares.values())
    below = max(1.3, WORD_HEIGHT * len(parts[0].words))
    figure, axes = plt.subplots(
        2, 1 + len(parts), height_ratios=(PANEL, below), layout="constrained", squeeze=False,
        figsize=(PANEL * (1 + len(parts)), PANEL + below + 1.3),
    )
    axes[0, 0].imshow(parts[0].picture, interpolation="nearest")
    axes[0, 0].set_axis_off()
    axes[1, 0].set_axis_off()
    text = textwrap.fill(caption, 30, max_lines=8)
    axes[1, 0].text(0, 1, text, va="top", fontsize=10, transform=axes[1, 0].transAxes)
    for (title, part), (above, table) in zip(found.items(), axes.T[1:], strict=True):
        _map(above, part, norm)
        above.set_title(f"{title}\ncosine {number(part.cosine, 2)}", fontsize=10)
        _shares(table, part, longest)
        if part is not parts[0]:
            table.set_yticklabels([])
    handles = [Patch(color=color, label=role) for role, color in ROLE_COLORS.items()]
    axes[1, 0].legend(handles=handles, loc="lower left", fontsize=9, frameon=False)
    figure.get_layout_engine().set(rect=(0, 0, 1, 0.97))  # else a square picture's title is cut
    bar = figure.colorbar(ScalarMappable(norm, "inferno"), ax=axes, shrink=0.6, location="bottom",
                          aspect=40, pad=0.02, ticks=[0, norm.vmax / 4, norm.vmax])
    bar.ax.set_xticklabels([number(tick, 2) for tick in (0, norm.vmax / 4, norm.vmax)])
    bar.set_label(f"share of the picture's relevance in a patch ({layer})", fontsize=9)
    return figure


def _map(axis: Axes, part: PairAttribution, norm: PowerNorm) -> None:
    """The map in colour above the picture in grey, which shines through where there is little."""
    height, width = part.picture.shape[:2]
    axis.imshow(part.picture.mean(axis=-1), cmap="gray", vmin=0, vmax=1.2, interpolation="nearest")
    small = torch.as_tensor(part.relevance, dtype=torch.float64)[None]
    found = upsampled(small, height, width)[0].numpy()
    strength = np.clip(norm(found), 0, 1)
    axis.imshow(found, cmap="inferno", norm=norm, alpha=0.25 + 0.5 * strength,
                interpolation="nearest")
    axis.set_axis_off()


def _shares(axis: Axes, part: PairAttribution, longest: float) -> None:
    """Shares of the words by method, the words in the colours of their roles."""
    table = np.stack(list(part.shares.values()), axis=1)
    axis.imshow(table, cmap="Greys", vmin=0, vmax=1.3 * longest, aspect="auto")
    for (row, column), value in np.ndenumerate(table):
        axis.text(column, row, number(value, 2), ha="center", va="center", fontsize=8,
                  color="white" if value > 0.75 * longest else "black")
    axis.set_xticks(range(table.shape[1]), [METHOD_LABELS[name] for name in part.shares],
                    rotation=35, ha="right", fontsize=9)
    axis.set_yticks(range(len(part.words)), part.words, fontsize=9)
    for word, role in zip(axis.get_yticklabels(), part.roles, strict=True):
        word.set_color(ROLE_COLORS.get(role, "black"))
    axis.tick_params(length=0)
