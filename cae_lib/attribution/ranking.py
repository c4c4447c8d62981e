"""From scores of tokens to scores of words, and how alike two rankings of the words are."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata
from torch import Tensor

from cae_lib.errors import ConfigError

FEWEST_WORDS = 3
"""Captions with fewer words have no ranking to speak of."""


def scores_by_word(scores: Tensor, words: Tensor, reduction: str = "mean") -> np.ndarray:
    """Score of each word of each caption.

    Args:
        scores: Of the tokens `(C, T)`.
        words: Number of the word each token belongs to `(C, T)`, 0 for none; see `word_index`.
        reduction: "mean" of the word's tokens, as CAE's loss averages; or "sum", for scores that
            are shares of a whole.

    Returns:
        `(C, W)` float64; NaN after a caption's last word.

    Raises:
        ConfigError: Unknown reduction.
    """
    if reduction not in ("mean", "sum"):
        raise ConfigError(f"unknown reduction {reduction!r}: expected mean or sum.")
    scores = scores.detach().double()
    size = (len(words), int(words.max()) + 1)
    counts = scores.new_zeros(size).scatter_add_(1, words, scores.new_ones(words.shape))
    total = scores.new_zeros(size).scatter_add_(1, words, scores)
    if reduction == "mean":
        total = total / counts.clamp(min=1)
    return total.masked_fill(counts == 0, float("nan"))[:, 1:].cpu().numpy()


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of each caption's word scores; ties share their mean rank.

    Args:
        first: `(C, W)`, NaN where there is no word.
        second: The same words by another method or model.

    Returns:
        `(C,)`; NaN for captions of fewer than `FEWEST_WORDS` words, and where one side does not
        tell its words apart.
    """
    ranks = [rankdata(values, axis=1, nan_policy="omit") for values in (first, second)]
    n = np.isfinite(first).sum(axis=1)
    a, b = (np.nan_to_num(r - (n[:, None] + 1) / 2) for r in ranks)
    size = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    defined = (n >= FEWEST_WORDS) & (size > 0)
    return np.where(defined, (a * b).sum(axis=1) / np.where(defined, size, 1), np.nan)
