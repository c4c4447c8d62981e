"""Attribution of one picture and its caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image

from cae_lib.attribution.heatmap import LAST_LAYER, image_relevances, shares
from cae_lib.attribution.word_scores import positive_shares, split_words, word_scores
from cae_lib.data.images import read_image
from cae_lib.errors import ConfigError, DataError
from cae_lib.methods import METHODS
from cae_lib.models.clip import Clip
from cae_lib.models.text_encoder import encode_text
from cae_lib.words.alignment import check_captions, token_roles, word_index
from cae_lib.words.dependency import DependencyTagger
from cae_lib.words.roles import ROLE_NAMES


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


def attribute(
    clip: Clip,
    image: str | Path | Image.Image,
    caption: str,
    start_layer: int = LAST_LAYER,
    methods: Sequence[str] = METHODS,
) -> PairAttribution:
    """Score a picture's patches, and a caption's words by some methods, the paper's by default, for
    their similarity in a model of `load_clip`. The map's rule begins at `start_layer`, -1 the last.
    A file is read by `read_image`: its EXIF orientation is not applied, as in evaluation.
    ConfigError for a model that is no `Clip`, an image tower without attention maps or that layer,
    or another vocabulary; DataError for what is no picture, or a caption without a word."""
    if not isinstance(clip, Clip):
        raise ConfigError(
            f"the model is a {type(clip).__name__}: expected one of `load_clip`, which holds the "
            "preprocessing and the tokenizer too. Open your weights with load_clip(name, path)."
        )
    if not isinstance(image, str | Path | Image.Image):
        raise DataError(
            f"the picture is a {type(image).__name__}: expected a path or a PIL image. "
            "PIL.Image.fromarray makes one of an array of uint8 (H, W, 3)."
        )
    check_captions([caption])
    picture = image if isinstance(image, Image.Image) else read_image(image)
    words = split_words(caption, clip.tokenizer)
    if not words:
        raise DataError(f"the caption {caption!r} holds no word")
    device = next(clip.model.parameters()).device
    pixels = clip.preprocess(picture.convert("RGB"))[None].to(device)
    tokens = clip.tokenizer([caption]).to(device)
    with torch.no_grad():
        texts = encode_text(clip.model, tokens).features
    found = image_relevances(clip.model, pixels, texts, (start_layer,))
    scores = {name: word_scores(clip, tokens, found.image_features, name) for name in methods}
    settings = open_clip.get_model_preprocess_cfg(clip.model)
    mean, std = (torch.tensor(settings[name]).view(3, 1, 1) for name in ("mean", "std"))
    seen = (pixels[0].cpu() * std + mean).clamp(0, 1)
    of_words = [
        pd.DataFrame(
            {name: change(part)[0].cpu().numpy() for name, part in scores.items()}, index=words
        )
        for change in (torch.Tensor.detach, positive_shares)
    ]
    return PairAttribution(
        seen.permute(1, 2, 0).numpy(),
        shares(found.maps[0])[0].cpu().numpy(),
        word_roles(clip, caption),
        *of_words,
        cosine=float((found.image_features * F.normalize(texts, dim=-1)).sum()),
    )


_tagger = cache(DependencyTagger)  # which takes a second to load, once for all models


def word_roles(clip: Clip, caption: str) -> list[str]:
    """The role of each word of a caption, by the tagger that finds more of them."""
    found = token_roles([caption], clip.tokenizer, _tagger())
    words = word_index(found.tokens, clip.tokenizer.vocab_size)[0]
    return [
        ROLE_NAMES[int(found.roles[0][words == number][0])]
        for number in range(1, int(words.max()) + 1)
    ]
