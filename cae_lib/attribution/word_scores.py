"""Scores of a caption's words, merged from the scores of its tokens."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from open_clip import SimpleTokenizer
from torch import Tensor

from cae_lib.attribution import get_method
from cae_lib.errors import ConfigError
from cae_lib.models.clip import Clip
from cae_lib.models.text_encoder import text_encoder
from cae_lib.words.alignment import word_index


def _merge_tokens(
    scores: Tensor, words: Tensor, reduction: Literal["mean", "sum"], missing: float
) -> Tensor:
    """Merge scores of tokens `(B, T)` by word `(B, W)`; rows are filled up with `missing`."""
    zeros = scores.new_zeros(len(words), int(words.max()) + 1)
    sums = zeros.scatter_add(1, words, scores)[:, 1:]
    counts = zeros.scatter_add(1, words, torch.ones_like(scores))[:, 1:]
    merged = sums / counts.clamp(min=1) if reduction == "mean" else sums
    return merged.masked_fill(counts == 0, missing)


def merge_token_scores(
    scores: Tensor, words: Tensor, reduction: Literal["mean", "sum"] = "mean"
) -> np.ndarray:
    """Merge scores of tokens by word, in float64.

    Args:
        scores: `(B, T)`.
        words: Number of each token's word `(B, T)`, as `word_index` returns it.
        reduction: "sum" for scores that are shares of a whole, "mean" as CAE's loss averages.

    Returns:
        Scores of words `(B, W)`, NaN after a caption's last word.
    """
    return _merge_tokens(scores.detach().double(), words, reduction, torch.nan).cpu().numpy()


def word_scores(
    clip: Clip, tokens: Tensor, image_features: Tensor, method: str, **parameters: Any
) -> Tensor:
    """Score the words of captions for their own images.

    Args:
        clip: A model with CLIP's byte-pair encoding.
        tokens: Ids of the captions `(B, C)`.
        image_features: `(B, E)`; row i belongs to caption i.
        method: Name of a method, see `get_method`.
        parameters: Parameters of the method.

    Returns:
        `(B, W)`, 0 after the last word: the sum over a word's tokens, or the score of the word if
        the method scores whole words.
    """
    scorer = get_method(method, **parameters)
    scores = scorer(clip.model, tokens, image_features).scores
    words = word_index(tokens[:, : scores.shape[1]], text_encoder(clip.model).vocabulary_size)
    return _merge_tokens(scores, words, "mean" if scorer.scores_words else "sum", 0.0)


def positive_shares(scores: Tensor) -> Tensor:
    """Divide scores `(B, W)` by their sum, with negative scores set to 0, as in Fig. 6."""
    positive = scores.clamp(min=0)
    return positive / positive.sum(dim=1, keepdim=True).clamp(min=1e-30)


def split_words(caption: str, tokenizer: SimpleTokenizer) -> list[str]:
    """Split a caption into the words that `word_scores` scores.

    Raises:
        ConfigError: The tokenizer is not CLIP's.
    """
    if not isinstance(tokenizer, SimpleTokenizer):
        raise ConfigError(f"words need CLIP's SimpleTokenizer, not {type(tokenizer).__name__}.")
    tokens = tokenizer([caption])
    words = word_index(tokens, tokenizer.vocab_size)[0]
    return [
        tokenizer.decode(tokens[0, words == number].tolist()).strip()
        for number in range(1, int(words.max()) + 1)
    ]
