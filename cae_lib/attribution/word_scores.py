"""Compute the scores of a caption's words from the scores of its tokens."""

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
from cae_lib.words.alignment import word_numbers


def _merge_tokens(
    scores: Tensor, words: Tensor, reduction: Literal["mean", "sum"], missing: float
) -> Tensor:
    """Merge scores of tokens `(B, T)` into scores of words `(B, W)`, padded with `missing`."""
    # Column 0 collects the tokens of no word, and is cut off below.
    zeros = scores.new_zeros(len(words), int(words.max()) + 1)
    sums = zeros.scatter_add(1, words, scores)[:, 1:]
    counts = zeros.scatter_add(1, words, torch.ones_like(scores))[:, 1:]
    merged = sums / counts.clamp(min=1) if reduction == "mean" else sums
    return merged.masked_fill(counts == 0, missing)


def merge_token_scores(
    scores: Tensor, words: Tensor, reduction: Literal["mean", "sum"] = "mean"
) -> np.ndarray:
    """Merge token scores `(B, T)` into word scores `(B, W)` in float64, NaN after the last word.

    "mean" averages over the tokens of a word, as CAE's loss does with the scope "word"; "sum" is
    for scores that are shares of a whole.
    """
    return _merge_tokens(scores.detach().double(), words, reduction, torch.nan).cpu().numpy()


def word_scores(
    clip: Clip, tokens: Tensor, image_features: Tensor, method: str, **parameters: Any
) -> Tensor:
    """Score the words of captions for their matched images, `(B, W)`, 0 after the last word.

    A word has the score of its tokens if the method scores words, and otherwise their sum.
    """
    scorer = get_method(method, **parameters)
    scores = scorer(clip.model, tokens, image_features).scores
    words = word_numbers(tokens[:, : scores.shape[1]], text_encoder(clip.model).vocabulary_size)
    # A token that has the score of its whole word must not count once for each token.
    return _merge_tokens(scores, words, "mean" if scorer.scores_words else "sum", 0.0)


def positive_shares(scores: Tensor) -> Tensor:
    """Convert scores of words `(B, W)` to shares of their caption, negative ones to 0 (Fig. 6)."""
    positive = scores.clamp(min=0)
    # A caption without a positive score gets shares of 0 instead of NaN.
    return positive / positive.sum(dim=1, keepdim=True).clamp(min=1e-30)


def split_words(caption: str, tokenizer: SimpleTokenizer) -> list[str]:
    """Split a caption into the words that `word_scores` scores, as the tokenizer decodes them.

    Words beyond the context length are left out; a word that it cuts is returned up to the cut.
    """
    if not isinstance(tokenizer, SimpleTokenizer):
        raise ConfigError(f"words need CLIP's SimpleTokenizer, not {type(tokenizer).__name__}.")
    tokens = tokenizer([caption])
    words = word_numbers(tokens, tokenizer.vocab_size)[0]
    return [
        tokenizer.decode(tokens[0, words == number].tolist()).strip()
        for number in range(1, int(words.max()) + 1)
    ]
