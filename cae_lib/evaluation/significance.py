"""Tests of paired right-or-wrong answers, and a correction for testing several benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom, norm

from cae_lib.errors import DataError
from cae_lib.evaluation.resampling import Strata, numbered


@dataclass(frozen=True)
class McNemar:
    """Outcome of McNemar's exact test.

    Attributes:
        first_only: Items that only the first method has right.
        second_only: Items that only the second method has right.
        p_value: Two-sided probability of a split at least as uneven if both were equally good.
    """

    first_only: int
    second_only: int
    p_value: float


def mcnemar(first: np.ndarray, second: np.ndarray, clusters: np.ndarray | None = None) -> McNemar:
    """Exact test of two methods on the same items, by the binomial of the discordant ones.

    Items that share a picture have one sign, that of the methods' difference there, and its size.

    Args:
        first: `(n,)` bool, right or wrong.
        second: `(n,)` bool, the same items in the same order.
        clusters: Labels `(n,)`, equal where items share a picture; by default no two do.

    Raises:
        DataError: If the lengths differ.
    """
    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if first.shape != second.shape:
        raise DataError(f"McNemar: {first.size} items against {second.size}; pair the same items.")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    (numbers,), _ = numbered(None if clusters is None else [clusters], [first.size])
    differences = np.abs(np.bincount(numbers, first * 1.0 - second)).astype(int)
    chances = np.ones(1)  # of sums of the clusters that favour the first method, from 0 upwards
    for size, n in zip(*np.unique(differences[differences > 0], return_counts=True), strict=True):
        part = np.zeros(size * n + 1)
        part[::size] = binom.pmf(np.arange(n + 1), n, 0.5)
        chances = np.convolve(chances, part)
    shift = np.abs(2 * np.arange(len(chances)) - len(chances) + 1)
    p_value = min(1.0, float(chances[shift >= abs(only_first - only_second)].sum()))
    return McNemar(only_first, only_second, p_value)


def unpaired(first: Strata, second: Strata, weights: Sequence[float]) -> float:
    """Two-sided p-value of a z test that takes two methods' answers for independent samples.

    It is what two printed accuracies and a number of items allow: it cannot know that the items are
    the same or share pictures, nor that another seed would have given other numbers.

    Args:
        first: Right or wrong of one method, `(n,)` a group.
        second: Right or wrong of the other method.
        weights: Weight of each group's mean.
    """
    difference = variance = 0.0
    for a, b, weight in zip(first, second, weights, strict=True):
        p, q = np.mean(a), np.mean(b)
        difference += weight * (p - q)
        variance += weight**2 * (p * (1 - p) / len(a) + q * (1 - q) / len(b))
    if not variance:
        return 0.0 if difference else 1.0
    return float(2 * norm.sf(abs(difference) / variance**0.5))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """P-values adjusted by Holm (1979), in the given order.

    The i-th smallest of m is multiplied by m - i + 1, made monotone, and cut at 1; those below a
    level alpha are significant with a family-wise error of at most alpha.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
