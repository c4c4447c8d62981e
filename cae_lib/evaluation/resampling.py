"""Means of resampled items, as a bootstrap needs them.

Resampling n items with replacement is a multinomial draw over the distinct columns of the array,
of which right-or-wrong scores have few; that is exact and takes no loop.
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


def resampled_means(
    arrays: list[np.ndarray], weights: np.ndarray, resamples: int, generator: Generator
) -> np.ndarray:
    """Weighted mean of each seed in each bootstrap sample of the items, `(R, S)`."""
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
