"""A mean with two sources of chance, items and seeds: its variance and interval, and what it could
have shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.sparse.csgraph import connected_components
from scipy.stats import nct, t

POWER = 0.8
LEVEL = 0.95


@dataclass(frozen=True)
class Components:
    """Where the variance of a mean comes from.

    Every seed answers the same items, so the value of an answer is the true one, plus what is
    particular to the seed, to the item, and to both; variances add up accordingly (crossed random
    effects; Clark, 1973; Cameron, Gelbach and Miller, 2011). With a single seed the test speaks of
    the items alone.
    """

    by_seed: float  # variance over seeds of a seed's mean; contains `rest`
    by_item: float  # that of the mean over seeds due to the items; contains `rest / n_seeds`
    rest: float  # variance of one seed's mean that is particular to seed and item
    n_seeds: int
    item_freedom: float  # degrees of freedom of `by_item`

    def variance(self) -> float:
        """Variance of the mean."""
        n, seeds = self.n_seeds, np.maximum(0.0, self.by_seed - self.rest)
        return seeds / n + np.maximum(0.0, self.by_item - self.rest / n) + self.rest / n

    def freedom(self, expected: bool = False) -> float:
        """Degrees of freedom of `variance`: from the variances as observed, or those that are
        `expected` if they are the true ones. Satterthwaite's squared shares would give the few
        seeds too little weight: theirs enters as it is, with half of `rest` in it. By simulation
        (`speed/coverage.py`) that holds the intervals of three seeds nearest to 95 %."""
        n, total, by_seed, by_item = self.n_seeds, self.variance(), self.by_seed, self.by_item
        if expected:
            by_seed = np.maximum(by_seed, self.rest)
            by_item = np.maximum(0.0, by_item - self.rest / n) + self.rest / n
        seeds = np.maximum(0.0, by_seed - self.rest / 2) / n
        spread = by_item**2 / self.item_freedom + (seeds * total / (n - 1) if n > 1 else 0.0)
        return total**2 / spread if spread else self.item_freedom


def crossed(
    values: np.ndarray, strata: np.ndarray, weights: np.ndarray, clusters: np.ndarray
) -> tuple[np.ndarray, Components]:
    """The weighted mean of each seed `(S,)`, and the components of its variance.

    Items that share a picture count as one: their residuals are summed before they are squared,
    each sum divided by the root of the share of its group that is not its own (Bell and McCaffrey,
    2002). A group of one cluster takes the pooled variance of the others. Where no group has items
    of two pictures, nothing is known of their spread, and all components are NaN.

    Args:
        values: `(S, n)`, one row a seed.
        strata, clusters: `(n,)` numbers of the group to average each item in, and of its picture.
        weights: `(G,)` weight of each group's mean.
    """
    _, clusters = np.unique(clusters, return_inverse=True)
    n_groups, n_clusters, n_seeds = len(weights), int(clusters.max()) + 1, len(values)
    flat, shape = strata * n_clusters + clusters, (n_groups, n_clusters)
    sizes = np.bincount(flat, minlength=n_groups * n_clusters).reshape(shape)
    sums = np.stack(
        [np.bincount(flat, row, n_groups * n_clusters).reshape(shape) for row in values]
    )
    totals = sizes.sum(axis=1)
    means = sums.sum(axis=2) / totals
    by_seed = means @ weights
    freedom = n_clusters - connected_components(sizes @ sizes.T)[0]
    if not freedom:
        return by_seed, Components(np.nan, np.nan, np.nan, n_seeds, np.nan)
    share = sizes / totals[:, None]
    scale = np.divide(1, np.sqrt(1 - share), out=np.zeros_like(share), where=share < 1)
    moves = (sums - sizes * means[:, :, None]) / totals[None, :, None] * scale
    own = np.stack([squares(moves[:, group]) for group in range(n_groups)])
    counts = (sizes > 0).sum(axis=1)
    lone = (counts * (counts - 1)) @ own / (counts - 1).sum()
    total = squares(np.einsum("g,sgc->sc", weights, moves))
    by_item, rest = total + (weights[counts == 1] ** 2).sum() * lone
    spread = float(by_seed.var(ddof=1)) if n_seeds > 1 else 0.0
    return by_seed, Components(spread, float(by_item), float(rest), n_seeds, int(freedom))


def squares(moves: np.ndarray) -> np.ndarray:
    """Sums over clusters `(S, C)` of squares: of means over seeds, of what these leave by S - 1."""
    means = moves.mean(axis=0)
    return np.array([(means**2).sum(), ((moves - means) ** 2).sum() / max(1, len(moves) - 1)])


def detectable(components: Components) -> float:
    """The smallest true difference that the two-sided test of confidence `LEVEL` finds with a
    probability of `POWER`."""
    error, freedom = components.variance() ** 0.5, components.freedom(expected=True)
    if np.isnan(error):
        return np.nan
    critical = t.isf((1 - LEVEL) / 2, freedom)
    highest = critical + 10.0 * (1 + critical / freedom)
    return error * brentq(lambda shift: nct.sf(critical, freedom, shift) - POWER, 0, highest)


def summary(by_seed: np.ndarray, components: Components) -> dict[str, object]:
    """Estimate, interval, p-value of zero, and what could have been found, of one mean."""
    estimate, error = float(by_seed.mean()), components.variance() ** 0.5
    freedom = components.freedom()
    reach = t.isf((1 - LEVEL) / 2, freedom) * error
    p = float(2 * t.sf(abs(estimate) / error, freedom)) if error else float(not estimate)
    return {
        "estimate": estimate,
        "low": estimate - reach,
        "high": estimate + reach,
        "p": p,
        "error": error,
        "freedom": freedom,
        "smallest": detectable(components),
    }
