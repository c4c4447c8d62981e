"""The size of a paired difference in units of its spread, with a bootstrap interval."""

from __future__ import annotations

import numpy as np

from cae_lib.errors import DataError
from cae_lib.evaluation.statistics import Interval

RESAMPLES = 2000


def effect_size(
    first: np.ndarray,
    second: np.ndarray,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Cohen's d for pairs: mean of the items' differences over their standard deviation.

    Differences are averaged over seeds first. Items and seeds are resampled. Where the differences
    do not vary, d is 0 for a mean of 0, and otherwise not defined.

    Args:
        first: `(n,)` or `(S, n)`, one row a seed.
        second: The same items; a single row stands for every seed of the other one.
        level: Coverage of the percentile interval.
        resamples: Number of bootstrap samples.
        seed: Of the resampling.

    Raises:
        DataError: The items differ in number, there are fewer than two, or d is not defined.
    """
    a, b = (np.atleast_2d(np.asarray(x, dtype=np.float64)) for x in (first, second))
    if a.shape[1] != b.shape[1] or a.shape[1] < 2:
        raise DataError(f"effect size: {a.shape[1]} and {b.shape[1]} items; expected equal pairs.")
    if len(a) != len(b) and 1 not in (len(a), len(b)):
        raise DataError(f"effect size: {len(a)} seeds against {len(b)}; expected the same number.")
    differences = a - b
    n_seeds, n = differences.shape
    generator = np.random.default_rng(seed)
    items = generator.multinomial(n, np.full(n, 1 / n), size=resamples)
    seeds = generator.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=resamples)
    draws = _d(seeds @ differences / n_seeds, items)
    estimate = _d(differences.mean(axis=0)[None], np.ones((1, n), dtype=int))[0]
    if np.isnan(estimate):
        raise DataError("effect size: all differences are equal and not zero, so d has no value.")
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(estimate), float(low), float(high), level, n, n_seeds)


def _d(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean over standard deviation `(R,)` of values `(R, n)` that occur `counts` times."""
    n = values.shape[1]
    mean = (counts * values).sum(axis=1) / n
    spread = np.sqrt((counts * (values - mean[:, None]) ** 2).sum(axis=1) / (n - 1))
    flat = spread <= 1e-12 * np.abs(values).max(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(flat, np.where(np.abs(mean) <= 1e-15, 0.0, np.nan), mean / spread)
