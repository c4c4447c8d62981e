"""Scores of a caption's words, put together from those of its tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from open_clip import SimpleTokenizer
from torch import Tensor

from cae_lib.attribution import get_method
from cae_lib.attribution.grouping import word_index
from cae_lib.errors import ConfigError
from cae_lib.models.clip import Clip
from cae_lib.models.text_encoder import text_encoder


def _merged(scores: Tensor, words: Tensor, reduction: str, missing: float) -> Tensor:
    """Scores `(B, W)` of words from those of tokens `(B, T)`; after a caption's last `missing`."""
    zeros = scores.new_zeros(len(words), int(words.max()) + 1)
    sums = zeros.scatter_add(1, words, scores)[:, 1:]
    counts = zeros.scatter_add(1, words, torch.ones_like(scores))[:, 1:]
    merged = sums / counts.clamp(min=1) if reduction == "mean" else sums
    return merged.masked_fill(counts == 0, missing)


def scores_by_word(scores: Tensor, words: Tensor, reduction: str = "mean") -> np.ndarray:
    """Scores `(B, W)` of words, float64, from those of tokens `(B, T)`; NaN after a caption's last
    word. The reduction is "sum", for scores that are shares of a whole, or "mean", as CAE's loss
    averages; `words` are as of `word_index`."""
    return _merged(scores.detach().double(), words, reduction, torch.nan).cpu().numpy()


def word_scores(
    clip: Clip, tokens: Tensor, image_features: Tensor, method: str, **parameters: Any
) -> Tensor:
    """Scores `(B, W)` of the words of captions for their own pictures, 0 after the last word: the
    sum over a word's tokens, or the score of a method that scores whole words. The tokens have to
    be those of CLIP's byte-pair encoding; see also `get_method`."""
    scorer = get_method(method, **parameters)
    found = scorer(clip.model, tokens, image_features).scores
    words = word_index(tokens[:, : found.shape[1]], text_encoder(clip.model).vocabulary_size)
    return _merged(found, words, "mean" if scorer.scores_words else "sum", 0.0)


def positive_shares(scores: Tensor) -> Tensor:
    """Scores `(B, W)` divided by their sum, negative ones counted as 0: what Fig. 6 shows."""
    positive = scores.clamp(min=0)
    return positive / positive.sum(dim=1, keepdim=True).clamp(min=1e-30)


def split_words(caption: str, tokenizer: SimpleTokenizer) -> list[str]:
    """A caption's words as `word_scores` counts them; a ConfigError for another tokenizer."""
    if not isinstance(tokenizer, SimpleTokenizer):
        raise ConfigError(f"words need CLIP's SimpleTokenizer, not {type(tokenizer).__name__}.")
    tokens = tokenizer([caption])
    words = word_index(tokens, tokenizer.vocab_size)[0]
    return [
        tokenizer.decode(tokens[0, words == number].tolist()).strip()
        for number in range(1, int(words.max()) + 1)
    ]
