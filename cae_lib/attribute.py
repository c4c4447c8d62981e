"""Attribution of any picture and caption by any weights: the command `cae attribute`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError

from cae_lib.attribution import METHODS
from cae_lib.attribution.heatmap import LAST_LAYER, image_relevances, shares
from cae_lib.attribution.word_scores import split_words, word_scores
from cae_lib.config import experiment
from cae_lib.config import profile as find_profile
from cae_lib.errors import ConfigError, DataError
from cae_lib.experiments import checkpoint_path, weights_path
from cae_lib.models.checkpoint import read_meta
from cae_lib.models.clip import WEIGHT_SUFFIXES, Clip, load_clip
from cae_lib.models.text_encoder import encode_text
from cae_lib.runtime import pick_device


@dataclass(frozen=True)
class PairAttribution:
    """What one model says of a picture and its caption.

    Attributes:
        picture: What the model saw of the picture, `(H, W, 3)` in [0, 1].
        relevance: The map on the patch grid, summing to 1.
        words: The caption's words; those beyond the context are left out.
        scores: For each method, one number a word, in the method's own unit.
        shares: The same divided by their sum, negative ones counted as 0.
        cosine: Similarity of picture and caption.
    """

    picture: np.ndarray
    relevance: np.ndarray
    words: list[str]
    scores: Mapping[str, np.ndarray]
    shares: Mapping[str, np.ndarray]
    cosine: float


def attribute_pair(
    clip: Clip, picture: Image.Image, caption: str, start_layer: int = LAST_LAYER
) -> PairAttribution:
    """Score a picture's patches and a caption's words for their similarity.

    Raises:
        ConfigError: For an image tower without attention maps, a layer it does not have, or a
            model with another vocabulary than CLIP's.
        DataError: For a caption without a word.
    """
    words = split_words(caption, clip.tokenizer)
    if not words:
        raise DataError(f"the caption {caption!r} holds no word")
    device = next(clip.model.parameters()).device
    pixels = clip.preprocess(picture.convert("RGB"))[None].to(device)
    tokens = clip.tokenizer([caption]).to(device)
    with torch.no_grad():
        texts = encode_text(clip.model, tokens).features
    found = image_relevances(clip.model, pixels, texts, (start_layer,))
    by_method = {
        method: word_scores(clip, tokens, found.image_features, method) for method in METHODS
    }
    return PairAttribution(
        picture=_seen(clip, pixels[0]),
        relevance=shares(found.maps[0])[0].cpu().numpy(),
        words=words,
        scores={name: part.scores[0].cpu().numpy() for name, part in by_method.items()},
        shares={name: part.shares()[0].cpu().numpy() for name, part in by_method.items()},
        cosine=float((found.image_features * F.normalize(texts, dim=-1)).sum()),
    )


def read_picture(path: str | Path) -> Image.Image:
    """A picture as RGB.

    Raises:
        DataError: The file is missing or cannot be decoded.
    """
    try:
        with Image.open(path) as file:
            return file.convert("RGB")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such picture; check the path") from error
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be decoded ({error})") from error


def open_weights(
    weights: str, model: str | None = None, activation: str | None = None,
    profile: str = "mini", seed: int = 0,
) -> Clip:  # fmt: skip
    """The model that a word on the command line means.

    Args:
        weights: A run of the profile ("base", "clip-ft", ...), a weight file, or a tag of
            open_clip such as "openai".
        model: open_clip model name, for a tag or a file that does not name its model.
        activation: "quickgelu" or "gelu", for a file that does not state it.
        profile, seed: Of a run.

    Raises:
        ConfigError: It is none of the three, or the model or activation has to be given.
        CheckpointError: The weights are missing, broken or do not fit.
    """
    device = pick_device()
    path = Path(weights)
    start = experiment("clip-ft", profile)
    if weights == "base" and not isinstance(weights_path(start), Path):
        return load_clip(start.model, start.weights, activation or start.activation, device)
    if weights == "base" or weights in find_profile(profile).methods:
        path = checkpoint_path(weights, profile, seed)
        return load_clip(_named(path), path, activation, device)
    if path.suffix in WEIGHT_SUFFIXES or path.is_file():
        return load_clip(model or _named(path), path, activation, device)
    if model is None:
        runs = ", ".join(["base", *find_profile(profile).methods])
        raise ConfigError(
            f"--weights {weights} is no run of the profile {profile} ({runs}) and no file; a tag "
            "of open_clip needs --model, for example --model ViT-B-32 --weights openai"
        )
    return load_clip(model, weights, activation, device)


def _named(path: Path) -> str:
    """The model that a checkpoint names."""
    meta = read_meta(path)
    if meta is None:
        raise ConfigError(
            f"{path} does not say which model it belongs to: pass --model, such as ViT-B-32, and "
            "--activation, quickgelu for weights that descend from OpenAI's"
        )
    return meta.model


def _seen(clip: Clip, pixels: torch.Tensor) -> np.ndarray:
    settings = open_clip.get_model_preprocess_cfg(clip.model)
    mean, std = (torch.tensor(settings[name]).view(3, 1, 1) for name in ("mean", "std"))
    return (pixels.cpu() * std + mean).clamp(0, 1).permute(1, 2, 0).numpy()
