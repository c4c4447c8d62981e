"""Bootstrap intervals of accuracies and of their differences, over items and over seeds.

Scores come as strata: parts of the items, each an array `(n,)`, or `(S, n)` with one row a seed and
the same items in each row. The estimate is the weighted sum of the strata's means, averaged over
seeds. Items are resampled within each stratum, together for all seeds, because all seeds answer the
same items. Resampling n items with replacement is a multinomial draw over the distinct columns of
the array, of which right-or-wrong scores have few; that is exact and takes no loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from cae_lib.errors import DataError

RESAMPLES = 10_000
FEW_COLUMNS = 256
DRAWS_AT_ONCE = 2_000_000

Strata = Sequence[np.ndarray]


@dataclass(frozen=True)
class Interval:
    """An estimate with its percentile bootstrap interval.

    Attributes:
        estimate: The statistic on the data themselves.
        low: Lower end.
        high: Upper end.
        level: Nominal coverage, for example 0.95.
        n_items: Items, in all strata together.
        n_seeds: Seeds averaged over.
    """

    estimate: float
    low: float
    high: float
    level: float
    n_items: int
    n_seeds: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0

    def to_record(self) -> dict[str, float | int]:
        """Plain JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def mean_interval(
    values: np.ndarray,
    *,
    resample_seeds: bool = False,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Interval of the mean of `values`, `(n,)` or `(S, n)`; see `weighted_interval`."""
    return weighted_interval(
        [values], resample_seeds=resample_seeds, level=level, resamples=resamples, seed=seed
    )


def weighted_interval(
    strata: Strata,
    weights: Sequence[float] | None = None,
    *,
    resample_seeds: bool = False,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Interval of a weighted sum of means, such as a macro average.

    Args:
        strata: Scores of each group, `(n,)` or `(S, n)`, the same S everywhere.
        weights: Weight of each group's mean; by default equal weights that sum to 1.
        resample_seeds: Resample the seeds as well as the items (two-way bootstrap). With few seeds
            this understates their spread, by the factor (S - 1) / S in variance.
        level: Coverage of the interval.
        resamples: Number of bootstrap samples.
        seed: Of the resampling.

    Raises:
        DataError: If there are no scores, a group is empty, or the shapes do not fit.
    """
    arrays, weighting = _checked(strata, weights)
    generator = np.random.default_rng(seed)
    by_seed = _resampled_means(arrays, weighting, resamples, generator)
    draws = _average_seeds(by_seed, generator if resample_seeds else None)
    return _interval(_plain_means(arrays, weighting).mean(), draws, level, arrays)


def paired_difference(
    first: Strata,
    second: Strata,
    weights: Sequence[float] | None = None,
    *,
    resample_seeds: bool = False,
    pair_seeds: bool = True,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Interval of the mean of `first` minus the mean of `second` on the same items.

    Args:
        first: Scores of one method, `(n,)` or `(S, n)` a group.
        second: Scores of the other method on the same items in the same order. A single row stands
            for every seed of the other one, as a model without seeds does.
        weights: As in `weighted_interval`.
        resample_seeds: Resample the seeds as well as the items.
        pair_seeds: Row s of both was trained with the same seed, so rows are drawn together;
            otherwise the seeds of each method are drawn on their own.
        level: Coverage of the interval.
        resamples: Number of bootstrap samples.
        seed: Of the resampling.

    Raises:
        DataError: If items or, for paired seeds, numbers of seeds differ.
    """
    a, weighting = _checked(first, weights)
    b, _ = _checked(second, weights)
    if [x.shape[1] for x in a] != [x.shape[1] for x in b]:
        raise DataError("paired difference: the two sides have different items.")
    n_a, n_b = len(a[0]), len(b[0])
    if pair_seeds and n_a != n_b and 1 not in (n_a, n_b):
        raise DataError(f"paired difference: {n_a} seeds against {n_b}. Pass pair_seeds=False.")
    generator = np.random.default_rng(seed)
    source = generator if resample_seeds else None
    if pair_seeds:
        differences = [x - y for x, y in zip(a, b, strict=True)]
        by_seed = _resampled_means(differences, weighting, resamples, generator)
        draws = _average_seeds(by_seed, source)
    else:
        both = [np.concatenate([x, y]) for x, y in zip(a, b, strict=True)]
        by_seed = _resampled_means(both, weighting, resamples, generator)
        draws = _average_seeds(by_seed[:, :n_a], source) - _average_seeds(by_seed[:, n_a:], source)
    estimate = _plain_means(a, weighting).mean() - _plain_means(b, weighting).mean()
    return _interval(estimate, draws, level, a if n_a >= n_b else b)


def _checked(
    strata: Strata, weights: Sequence[float] | None
) -> tuple[list[np.ndarray], np.ndarray]:
    arrays = [np.atleast_2d(np.asarray(part, dtype=np.float64)) for part in strata]
    if not arrays or any(part.size == 0 for part in arrays):
        raise DataError("bootstrap: there are no scores, or a group has none. Leave it out.")
    if len({len(part) for part in arrays}) > 1 or any(part.ndim != 2 for part in arrays):
        raise DataError("bootstrap: every group needs scores (S, n) with the same number of seeds.")
    weighting = np.full(len(arrays), 1 / len(arrays)) if weights is None else np.asarray(weights)
    if weighting.shape != (len(arrays),):
        raise DataError(f"bootstrap: {len(weighting)} weights for {len(arrays)} groups.")
    return arrays, weighting


def _plain_means(arrays: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Weighted mean of each seed, `(S,)`."""
    return sum(w * part.mean(axis=1) for w, part in zip(weights, arrays, strict=True))


def _resampled_means(
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


def _average_seeds(by_seed: np.ndarray, generator: Generator | None) -> np.ndarray:
    """Mean over seeds `(R,)`, over resampled ones if there is a generator."""
    n = by_seed.shape[1]
    if generator is None or n == 1:
        return by_seed.mean(axis=1)
    drawn = generator.multinomial(n, np.full(n, 1 / n), size=len(by_seed))
    return (drawn * by_seed).sum(axis=1) / n


def _interval(
    estimate: float, draws: np.ndarray, level: float, arrays: list[np.ndarray]
) -> Interval:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    n_items = sum(part.shape[1] for part in arrays)
    return Interval(float(estimate), float(low), float(high), level, n_items, len(arrays[0]))
