"""Regression of scores on properties of the items, with the benchmark held fixed.

score = (a level for each stratum) + sum_k slope_k x_k, by least squares: only differences within a
stratum count. Every bootstrap sample redraws the pictures of each stratum, with all their items;
all columns of scores share it, so differences between models are paired. The fit needs sums over
items alone, and sums of strata add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from cae_lib.errors import DataError
from cae_lib.evaluation.resampling import numbered

RESAMPLES = 1000
DRAWS_AT_ONCE = 4_000_000
SMALL = 1e-9


@dataclass(frozen=True)
class Moments:
    """Sums over items: row 0 on the data, rows 1 to R on the bootstrap samples.

    Attributes:
        n: Items.
        x: Sums of the p properties, `(R + 1, p)`.
        y: Sums of the m scores, `(R + 1, m)`.
        xx: Products of the properties about the means of their stratum, `(R + 1, p, p)`.
        xy: Products of properties and scores likewise, `(R + 1, p, m)`.
    """

    n: int
    x: np.ndarray
    y: np.ndarray
    xx: np.ndarray
    xy: np.ndarray

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.n + other.n, self.x + other.x, self.y + other.y,
                       self.xx + other.xx, self.xy + other.xy)  # fmt: skip

    def slopes(self, columns: Sequence[int]) -> np.ndarray:
        """Slopes `(R + 1, K, m)` of the scores on K properties together.

        NaN where the data cannot tell the properties apart within any stratum.
        """
        chosen = np.asarray(columns)
        xx, xy = self.xx[:, chosen[:, None], chosen], self.xy[:, chosen]
        scale = np.sqrt(np.diagonal(xx[0]))
        varies = scale > SMALL
        found = np.full(xy.shape, np.nan)
        if not varies.any():
            return found
        unit = (xx[0] / np.outer(scale, scale).clip(SMALL))[np.ix_(varies, varies)]
        if np.linalg.matrix_rank(unit, tol=SMALL) < len(unit):
            return found
        inverse = np.linalg.pinv(xx[:, varies][:, :, varies], hermitian=True)
        found[:, varies] = inverse @ xy[:, varies]
        return found

    def levels(self, columns: Sequence[int]) -> np.ndarray:
        """Mean score `(R + 1, K + 1, m)` if all items were in the same class.

        Args:
            columns: K properties, 1 for the items of a class and 0 for others; items of no such
                class form the first one.

        Returns:
            For each class, the level of the strata, averaged over all items, plus the class's
            slope; NaN for a class that no stratum compares with another.
        """
        slopes = self.slopes(columns)
        present = np.nan_to_num(slopes)
        means = self.x[:, list(columns), None] / self.n
        base = self.y / self.n - (present * means).sum(axis=1)
        first = np.full_like(base, np.nan) if np.isnan(slopes[0]).all() else base
        return np.concatenate([first[:, None], base[:, None] + slopes], axis=1)


def moments(
    x: np.ndarray,
    y: np.ndarray,
    seed: int,
    resamples: int = RESAMPLES,
    clusters: np.ndarray | None = None,
) -> Moments:
    """Sums of one stratum.

    Args:
        x: Properties of the items, `(n, p)`.
        y: Scores, `(n, m)`, a column for each model and seed.
        seed: Of the resampling; another one for each stratum.
        resamples: R.
        clusters: Labels `(n,)`, equal where items share a picture; by default no two do.

    Raises:
        DataError: The numbers of items differ, or there are none.
    """
    if len(x) != len(y) or not len(x):
        raise DataError(f"slopes: {len(x)} items with properties, {len(y)} with scores")
    (n, p), m = x.shape, y.shape[1]
    x, y = x.astype(np.float64), y.astype(np.float64)
    parts = [np.ones((n, 1)), x, y, _products(x, x), _products(x, y)]
    every = np.concatenate(parts, axis=1)
    (numbers,), n_clusters = numbered(None if clusters is None else [clusters], [n])
    together = np.zeros((n_clusters, every.shape[1]))
    np.add.at(together, numbers, every)
    sums = np.concatenate([every.sum(axis=0)[None], _resampled(together, seed, resamples)])
    sums *= n / sums[:, :1]  # a sample of clusters of unequal size holds more items or fewer
    sx, sy, sxx, sxy = np.split(sums[:, 1:], np.cumsum([p, m, p * p]), axis=1)
    xx = sxx.reshape(-1, p, p) - sx[:, :, None] * sx[:, None, :] / n
    xy = sxy.reshape(-1, p, m) - sx[:, :, None] * sy[:, None, :] / n
    return Moments(n, sx, sy, xx, xy)


def total(parts: Sequence[Moments]) -> Moments:
    """Sums of several strata as one.

    Raises:
        DataError: There are none.
    """
    if not parts:
        raise DataError("slopes: there is no stratum to fit")
    return reduce(add, parts)


def _products(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x[:, :, None] * y[:, None, :]).reshape(len(x), -1)


def _resampled(values: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Sums `(R, k)` over rows `(n, k)` drawn with replacement."""
    generator = np.random.default_rng(seed)
    n = len(values)
    step = max(1, DRAWS_AT_ONCE // n)
    sizes = [min(step, resamples - start) for start in range(0, resamples, step)]
    shares = np.full(n, 1 / n)
    draws = (generator.multinomial(n, shares, size=size) for size in sizes)
    return np.concatenate([draw.astype(np.float64) @ values for draw in draws])
