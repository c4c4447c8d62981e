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
    """Merge scores of tokens `(B, T)` into scores of words `(B, W)`, padded with `missing`.

    W is the largest number of words in a caption.
    """
    zeros = scores.new_zeros(len(words), int(words.max()) + 1)
    sums = zeros.scatter_add(1, words, scores)[:, 1:]
    counts = zeros.scatter_add(1, words, torch.ones_like(scores))[:, 1:]
    merged = sums / counts.clamp(min=1) if reduction == "mean" else sums
    return merged.masked_fill(counts == 0, missing)


def merge_token_scores(
    scores: Tensor, words: Tensor, reduction: Literal["mean", "sum"] = "mean"
) -> np.ndarray:
    """Merge the scores of tokens into scores of words, detached, in float64.

    Args:
        scores: Scores of tokens `(B, T)`.
        words: Word number of each token `(B, T)`, int64, as `word_numbers` returns it.
        reduction: "mean" averages over the tokens of a word, as CAE's loss does with the scope
            "word"; "sum" adds them up, for scores that are shares of a whole.

    Returns:
        Scores of words `(B, W)`, NaN after a caption's last word. W is the largest number of words
        in a caption.
    """
    return _merge_tokens(scores.detach().double(), words, reduction, torch.nan).cpu().numpy()


def word_scores(
    clip: Clip, tokens: Tensor, image_features: Tensor, method: str, **parameters: Any
) -> Tensor:
    """Score the words of captions for their matched images.

    The score of a word is the sum of the scores of its tokens. If the method scores whole words
    (`AttributionMethod.scores_words`), each token already has the score of its word, and the mean
    takes the place of the sum.

    Args:
        clip: A model with CLIP's vocabulary.
        tokens: Token ids of B captions in C columns `(B, C)`.
        image_features: `(B, E)`, not necessarily normalised; row i belongs to caption i.
        method: Name of an attribution method; see `get_method`.
        **parameters: Parameters of the method.

    Returns:
        Scores of words `(B, W)`, detached, and 0 after a caption's last word. W is the largest
        number of words in a caption.

    Raises:
        ConfigError: If the vocabulary is not CLIP's, the method or a parameter is unknown, the
            model does not allow the method, or the method needs roles, as "binding" does.
        DataError: If tokens or image features have the wrong shape, type or values, or a caption
            has no end-of-text token.
    """
    scorer = get_method(method, **parameters)
    scores = scorer(clip.model, tokens, image_features).scores
    words = word_numbers(tokens[:, : scores.shape[1]], text_encoder(clip.model).vocabulary_size)
    return _merge_tokens(scores, words, "mean" if scorer.scores_words else "sum", 0.0)


def positive_shares(scores: Tensor) -> Tensor:
    """Convert scores of words to shares of their caption, as in the paper's Fig. 6.

    Negative scores become 0. Then each row is divided by its sum; a row without a positive score
    becomes 0.

    Args:
        scores: Scores of up to W words in each caption `(B, W)`, padded with 0.
    """
    positive = scores.clamp(min=0)
    return positive / positive.sum(dim=1, keepdim=True).clamp(min=1e-30)


def split_words(caption: str, tokenizer: SimpleTokenizer) -> list[str]:
    """Split a caption into the words that `word_scores` scores, as the tokenizer decodes them.

    Words beyond the context length are left out. If the cut falls inside a word, the part of the
    word before the cut is returned.

    Raises:
        ConfigError: If the tokenizer is not CLIP's `SimpleTokenizer`.
    """
    if not isinstance(tokenizer, SimpleTokenizer):
        raise ConfigError(f"words need CLIP's SimpleTokenizer, not {type(tokenizer).__name__}.")
    tokens = tokenizer([caption])
    words = word_numbers(tokens, tokenizer.vocab_size)[0]
    return [
        tokenizer.decode(tokens[0, words == number].tolist()).strip()
        for number in range(1, int(words.max()) + 1)
    ]
