"""Word scores by hand; rank correlation against scipy, caption by caption."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from cae_lib.attribution.ranking import rank_correlation, scores_by_word
from cae_lib.errors import ConfigError

NAN = float("nan")


def test_a_word_is_the_mean_or_the_sum_of_its_tokens() -> None:
    words = torch.tensor([[0, 1, 1, 2, 0], [0, 1, 0, 0, 0]])
    scores = torch.tensor([[9.0, 1.0, 3.0, 5.0, 9.0], [9.0, -1.0, 9.0, 9.0, 9.0]])
    np.testing.assert_array_equal(scores_by_word(scores, words), [[2, 5], [-1, NAN]])
    np.testing.assert_array_equal(scores_by_word(scores, words, "sum"), [[4, 5], [-1, NAN]])
    with pytest.raises(ConfigError, match="reduction 'max'"):
        scores_by_word(scores, words, "max")


def test_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 5, (2, 40, 9)).astype(float)  # many ties
    lengths = rng.integers(3, 10, 40)
    first[:, 0], first[:, 1], second[:, 0], second[:, 1] = 0, 1, 2, 3  # none is constant
    for row, n in enumerate(lengths):
        first[row, n:] = second[row, n:] = NAN
    expected = [spearmanr(a[:n], b[:n]).statistic
                for a, b, n in zip(first, second, lengths, strict=True)]
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(rank_correlation(first, second), expected, atol=1e-12)


def test_no_ranking_no_correlation() -> None:
    first = np.array([[1, 2, NAN], [1, 1, 1], [1, 2, 3]])
    second = np.array([[1, 2, NAN], [1, 2, 3], [3, 2, 1]])
    np.testing.assert_array_equal(rank_correlation(first, second), [NAN, NAN, -1])
