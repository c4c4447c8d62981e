"""From scores of tokens to scores of words, and how alike two rankings of the words are."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata
from torch import Tensor

from cae_lib.attribution.grouping import merge_tokens

FEWEST_WORDS = 3
"""Captions with fewer words have no ranking to speak of."""


def scores_by_word(scores: Tensor, words: Tensor, reduction: str = "mean") -> np.ndarray:
    """Score of each word of each caption.

    Args:
        scores: Of the tokens `(C, T)`.
        words: Number of the word each token belongs to `(C, T)`, 0 for none; see `word_index`.
        reduction: "mean" or "sum" of the word's tokens; see `merge_tokens`.

    Returns:
        `(C, W)` float64; NaN after a caption's last word.

    Raises:
        ConfigError: Unknown reduction.
    """
    merged, present = merge_tokens(scores.detach().double(), words, reduction)
    return merged.masked_fill(~present, float("nan")).cpu().numpy()


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
