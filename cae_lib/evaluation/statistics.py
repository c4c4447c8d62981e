"""Bootstrap intervals of accuracies and of their differences, over items and over seeds.

Scores come as strata: parts of the items, each an array `(n,)`, or `(S, n)` with one row a seed and
the same items in each row. The estimate is the weighted sum of the strata's means, averaged over
seeds. Items are resampled within each stratum, together for all seeds, because all seeds answer the
same items; where items share a picture, pictures are resampled instead: see `resampling`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cae_lib.errors import DataError
from cae_lib.evaluation.resampling import (
    Clusters,
    Strata,
    average_seeds,
    checked,
    plain_means,
    resampled_means,
)

RESAMPLES = 10_000


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
    values: np.ndarray, *, clusters: np.ndarray | None = None, **options: Any
) -> Interval:
    """Interval of the mean of `values`, `(n,)` or `(S, n)`; options as in `weighted_interval`."""
    labels = None if clusters is None else [clusters]
    return weighted_interval([values], clusters=labels, **options)


def weighted_interval(
    strata: Strata,
    weights: Sequence[float] | None = None,
    *,
    clusters: Clusters | None = None,
    resample_seeds: bool = False,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Interval of a weighted sum of means, such as a macro average.

    Args:
        strata: Scores of each group, `(n,)` or `(S, n)`, the same S everywhere.
        weights: Weight of each group's mean; by default equal weights that sum to 1.
        clusters: For each group labels `(n,)`, equal where items share a picture, in whichever
            group they are; by default every item is independent of the others.
        resample_seeds: Resample the seeds as well as the items (two-way bootstrap). With few seeds
            this understates their spread, by the factor (S - 1) / S in variance.
        level: Coverage of the interval.
        resamples: Number of bootstrap samples.
        seed: Of the resampling.

    Raises:
        DataError: If there are no scores, a group is empty, or the shapes do not fit.
    """
    arrays, weighting = checked(strata, weights)
    generator = np.random.default_rng(seed)
    by_seed = resampled_means(arrays, weighting, resamples, generator, clusters)
    draws = average_seeds(by_seed, generator if resample_seeds else None)
    return _interval(plain_means(arrays, weighting).mean(), draws, level, arrays)


def paired_difference(
    first: Strata,
    second: Strata,
    weights: Sequence[float] | None = None,
    *,
    clusters: Clusters | None = None,
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
        clusters: As in `weighted_interval`.
        resample_seeds: Resample the seeds as well as the items.
        pair_seeds: Row s of both was trained with the same seed, so rows are drawn together;
            otherwise the seeds of each method are drawn on their own.
        level: Coverage of the interval.
        resamples: Number of bootstrap samples.
        seed: Of the resampling.

    Raises:
        DataError: If items or, for paired seeds, numbers of seeds differ.
    """
    a, weighting = checked(first, weights)
    b, _ = checked(second, weights)
    if [x.shape[1] for x in a] != [x.shape[1] for x in b]:
        raise DataError("paired difference: the two sides have different items.")
    n_a, n_b = len(a[0]), len(b[0])
    if pair_seeds and n_a != n_b and 1 not in (n_a, n_b):
        raise DataError(f"paired difference: {n_a} seeds against {n_b}. Pass pair_seeds=False.")
    generator = np.random.default_rng(seed)
    source = generator if resample_seeds else None
    if pair_seeds:
        differences = [x - y for x, y in zip(a, b, strict=True)]
        by_seed = resampled_means(differences, weighting, resamples, generator, clusters)
        draws = average_seeds(by_seed, source)
    else:
        both = [np.concatenate([x, y]) for x, y in zip(a, b, strict=True)]
        by_seed = resampled_means(both, weighting, resamples, generator, clusters)
        draws = average_seeds(by_seed[:, :n_a], source) - average_seeds(by_seed[:, n_a:], source)
    estimate = plain_means(a, weighting).mean() - plain_means(b, weighting).mean()
    return _interval(estimate, draws, level, a if n_a >= n_b else b)


def _interval(
    estimate: float, draws: np.ndarray, level: float, arrays: list[np.ndarray]
) -> Interval:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    n_items = sum(part.shape[1] for part in arrays)
    return Interval(float(estimate), float(low), float(high), level, n_items, len(arrays[0]))
