"""Attribute the similarity of one image and its caption to patches and words."""

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

from cae_lib.attribution.heatmap import LAST_LAYER, image_relevances, relevance_shares
from cae_lib.attribution.word_scores import positive_shares, split_words, word_scores
from cae_lib.data.images import read_image
from cae_lib.errors import ConfigError, DataError
from cae_lib.methods import PAPER_METHODS
from cae_lib.models.clip import Clip
from cae_lib.models.text_encoder import encode_text
from cae_lib.words.alignment import check_captions, token_roles, word_numbers
from cae_lib.words.dependency import DependencyTagger
from cae_lib.words.roles import ROLE_NAMES


@dataclass(frozen=True)
class PairAttribution:
    """Attribution of the similarity of an image and its caption in one model.

    Attributes:
        image: The image as the model reads it, RGB `(height, width, 3)` in [0, 1], float32.
        relevance: Heat map over the patches of the image `(rows, columns)`, which sums to 1.
        roles: Name of the role of each word, in the order of the rows of `scores`.
        scores: Scores with a row for each word, whose text is the index, and a column for each
            attribution method. Each method has its own unit. Words beyond the context length are
            left out.
        shares: The scores, with negative ones set to 0 and each column then divided by its sum. A
            column without a positive score is 0.
        cosine: Cosine similarity of image and caption.
    """

    image: np.ndarray
    relevance: np.ndarray
    roles: list[str]
    scores: pd.DataFrame
    shares: pd.DataFrame
    cosine: float


def attribute(
    clip: Clip,
    image: str | Path | Image.Image,
    caption: str,
    heatmap_start_layer: int = LAST_LAYER,
    methods: Sequence[str] = PAPER_METHODS,
) -> PairAttribution:
    """Attribute the similarity of an image and its caption to image patches and words.

    Args:
        clip: A model that `load_clip` returns.
        image: A PIL image or the path of a file. The EXIF orientation of a file is not applied (see
            `read_image`).
        caption: The caption.
        heatmap_start_layer: The heat map covers the layers of the image tower from this one to the
            last. -1 is the last layer alone, 0 takes all layers. The scores of the words do not
            depend on this argument.
        methods: Names of the methods that score the words; by default, the paper's attribution
            methods.

    Returns:
        The heat map of the image by the rule of Chefer et al. (2021), and the scores and roles of
        the caption's words.

    Raises:
        ConfigError: If any of these holds: `clip` is not a `Clip`; its model is a model of
            transformers; its image tower has no attention maps or no layer `heatmap_start_layer`;
            its vocabulary is not CLIP's; a method is unknown, does not fit the model, or needs the
            roles of words; no English spaCy model is installed.
        DataError: If the image cannot be read, or if the caption is not a text or has no word.
    """
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
    if not hasattr(clip.model, "visual"):
        raise ConfigError(
            f"{clip.name}: there is no heat map of a model of transformers; `cae evaluate` takes it"
        )
    check_captions([caption])
    pil_image = image if isinstance(image, Image.Image) else read_image(image)
    words = split_words(caption, clip.tokenizer)
    if not words:
        raise DataError(f"the caption {caption!r} holds no word")
    device = next(clip.model.parameters()).device
    pixels = clip.preprocess(pil_image.convert("RGB"))[None].to(device)
    tokens = clip.tokenizer([caption]).to(device)
    with torch.no_grad():
        # The heat map is differentiated in the image tower alone.
        texts = encode_text(clip.model, tokens).features
    relevances = image_relevances(clip.model, pixels, texts, (heatmap_start_layer,))
    features = relevances.image_features
    scores = {name: word_scores(clip, tokens, features, name) for name in methods}

    def frame(by_method: dict[str, torch.Tensor]) -> pd.DataFrame:
        columns = {name: values[0].cpu().numpy() for name, values in by_method.items()}
        return pd.DataFrame(columns, index=words)

    settings = open_clip.get_model_preprocess_cfg(clip.model)
    mean, std = (torch.tensor(settings[name]).view(3, 1, 1) for name in ("mean", "std"))
    return PairAttribution(
        # The normalisation of the preprocessing undone, (height, width, 3).
        image=(pixels[0].cpu() * std + mean).clamp(0, 1).permute(1, 2, 0).numpy(),
        relevance=relevance_shares(relevances.maps[0])[0].cpu().numpy(),
        roles=word_roles(clip, caption),
        scores=frame({name: values.detach() for name, values in scores.items()}),
        shares=frame({name: positive_shares(values) for name, values in scores.items()}),
        cosine=float((features * F.normalize(texts, dim=-1)).sum()),
    )


# Loading takes a second, so all models share one tagger.
_tagger = cache(DependencyTagger)


def word_roles(clip: Clip, caption: str) -> list[str]:
    """Return the role of each word of `split_words`, as `DependencyTagger` finds it."""
    alignment = token_roles([caption], clip.tokenizer, _tagger())
    words = word_numbers(alignment.tokens, clip.tokenizer.vocab_size)[0]
    return [
        # A tagger may mark only a part of a word, so the highest role of its tokens counts.
        ROLE_NAMES[int(alignment.roles[0][words == number].max())]
        for number in range(1, int(words.max()) + 1)
    ]
