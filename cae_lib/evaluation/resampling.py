"""Means of resampled items, as a bootstrap needs them.

Resampling n items with replacement is a multinomial draw over the distinct columns of the array,
of which right-or-wrong scores have few; that is exact and takes no loop.

Items that share a picture are a cluster, and clusters are drawn instead of items. Means over them
are ratios, taken to first order: a cluster adds the sum of its items' residuals, which is what a
cluster-robust variance squares (Cameron, Gelbach and Miller, 2011).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from cae_lib.errors import DataError

FEW_COLUMNS = 256
DRAWS_AT_ONCE = 2_000_000

Strata = Sequence[np.ndarray]
"""Scores of parts of the items, each `(n,)` or `(S, n)`."""

Clusters = Sequence[np.ndarray]
"""For each stratum the labels `(n,)` of its items; an equal label, in any stratum, is a cluster."""


def checked(strata: Strata, weights: Sequence[float] | None) -> tuple[list[np.ndarray], np.ndarray]:
    """Scores `(S, n)` of each group, and the weights of their means, by default equal ones.

    Raises:
        DataError: There are no scores, a group is empty, or the shapes do not fit.
    """
    arrays = [np.atleast_2d(np.asarray(part, dtype=np.float64)) for part in strata]
    if not arrays or any(part.size == 0 for part in arrays):
        raise DataError("bootstrap: there are no scores, or a group has none. Leave it out.")
    if len({len(part) for part in arrays}) > 1 or any(part.ndim != 2 for part in arrays):
        raise DataError("bootstrap: every group needs scores (S, n) with the same number of seeds.")
    weighting = np.full(len(arrays), 1 / len(arrays)) if weights is None else np.asarray(weights)
    if weighting.shape != (len(arrays),):
        raise DataError(f"bootstrap: {len(weighting)} weights for {len(arrays)} groups.")
    return arrays, weighting


def plain_means(arrays: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Weighted mean of each seed, `(S,)`."""
    return sum(w * part.mean(axis=1) for w, part in zip(weights, arrays, strict=True))


def numbered(clusters: Clusters | None, sizes: Sequence[int]) -> tuple[list[np.ndarray], int]:
    """Numbers from 0 in place of the labels, and how many clusters there are; None: one an item.

    Raises:
        DataError: A stratum does not have as many labels as items, which `sizes` are.
    """
    if clusters is None:
        clusters = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    if (shapes := [np.shape(part) for part in clusters]) != [(n,) for n in sizes]:
        raise DataError(f"clusters: labels {shapes} for groups of {list(sizes)} items.")
    labels, numbers = np.unique(np.concatenate(list(clusters)), return_inverse=True)
    return np.split(numbers, np.cumsum(sizes)[:-1]), len(labels)


def residual_sums(values: np.ndarray, numbers: np.ndarray, n_clusters: int) -> np.ndarray:
    """What each cluster adds to the mean of values `(S, n)`: sums `(S, C)` of residuals over n."""
    sizes = np.bincount(numbers, minlength=n_clusters)
    sums = np.stack([np.bincount(numbers, row, n_clusters) for row in values])
    return (sums - sizes * values.mean(axis=1, keepdims=True)) / values.shape[1]


def resampled_means(
    arrays: list[np.ndarray],
    weights: np.ndarray,
    resamples: int,
    generator: Generator,
    clusters: Clusters | None = None,
) -> np.ndarray:
    """Weighted mean of each seed in each bootstrap sample of the items or clusters, `(R, S)`.

    Clusters are drawn from all strata together, items within each stratum.
    """
    sizes = [part.shape[1] for part in arrays]
    numbers, n_clusters = numbered(clusters, sizes)
    if n_clusters < sum(sizes):
        pairs = zip(arrays, numbers, strict=True)
        moves = [residual_sums(part, number, n_clusters) for part, number in pairs]
        drawn = _stratum_means(np.tensordot(weights, moves, axes=1), resamples, generator)
        return plain_means(arrays, weights) + n_clusters * drawn
    parts = (_stratum_means(part, resamples, generator) for part in arrays)
    return sum(weight * part for weight, part in zip(weights, parts, strict=True))


def _stratum_means(values: np.ndarray, resamples: int, generator: Generator) -> np.ndarray:
    """Means `(R, S)` of resampled columns of values `(S, n)`."""
    n = values.shape[1]
    columns, counts = np.unique(values, axis=1, return_counts=True)
    if len(counts) <= FEW_COLUMNS:
        return generator.multinomial(n, counts / n, size=resamples) @ columns.T / n
    means = []
    step = max(1, DRAWS_AT_ONCE // n)
    for start in range(0, resamples, step):
        draw = generator.integers(n, size=(min(step, resamples - start), n))
        means.append(np.stack([row[draw].mean(axis=1) for row in values], axis=1))
    return np.concatenate(means)


def average_seeds(by_seed: np.ndarray, generator: Generator | None) -> np.ndarray:
    """Mean over seeds `(R,)`, over resampled ones if there is a generator."""
    n = by_seed.shape[1]
    if generator is None or n == 1:
        return by_seed.mean(axis=1)
    drawn = generator.multinomial(n, np.full(n, 1 / n), size=len(by_seed))
    return (drawn * by_seed).sum(axis=1) / n
