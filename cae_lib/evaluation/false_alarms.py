"""How often a test calls two equal methods different, by simulation.

Differences of equal methods are drawn from normal distributions with given variances of seeds, of
items, and of both together; that is what means over hundreds of items are close to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from cae_lib.evaluation.crossed import Components

COMPARISONS = 3_000
DRAWS = 1_000
MANY = 2_000


@dataclass(frozen=True)
class FalseAlarms:
    """Share of equal pairs that are called different at 5 %.

    Attributes:
        one_seed: By a paired test of one seed on its items, as McNemar's is.
        bootstrap: By a percentile bootstrap over seeds and items.
        two_way: By `crossed.two_way_test`.
        n: Simulated comparisons.
    """

    one_seed: float
    bootstrap: float
    two_way: float
    n: int


def false_alarms(
    seeds: float, items: float, rest: float, n_seeds: int = 3, n: int = COMPARISONS, seed: int = 0
) -> FalseAlarms:
    """Simulate comparisons of equal methods.

    Args:
        seeds: Variance between seeds, as `Components.seeds`.
        items: Variance due to the items, as `Components.items`; this or `rest` is above 0.
        rest: Variance of one seed due to both, as `Components.rest`.
        n_seeds: Seeds, at least 2.
        n: Comparisons.
        seed: Of the simulation.
    """
    generator = np.random.default_rng(seed)
    found = generator.normal(size=(n, n_seeds)) * (seeds + rest) ** 0.5
    found += generator.normal(size=(n, 1)) * items**0.5
    one_seed = np.abs(found[:, 0]) / (items + rest) ** 0.5 > norm.isf(0.025)
    bootstrap = _bootstrap_excludes_zero(found, items, rest, generator)
    two_way = _two_way(found, items, rest) < 0.05
    return FalseAlarms(float(one_seed.mean()), float(bootstrap.mean()), float(two_way.mean()), n)


def _bootstrap_excludes_zero(
    found: np.ndarray, items: float, rest: float, generator: np.random.Generator
) -> np.ndarray:
    """Whether the interval of each row of differences `(n, S)` excludes zero; draws are shared."""
    n_seeds = found.shape[1]
    drawn = generator.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=DRAWS) / n_seeds
    noise = generator.normal(size=(DRAWS, n_seeds)) * rest**0.5
    noise += generator.normal(size=(DRAWS, 1)) * items**0.5
    means = found @ drawn.T + (drawn * noise).sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975], axis=1)
    return (low > 0) | (high < 0)


def _two_way(found: np.ndarray, items: float, rest: float) -> np.ndarray:
    """P-values of the two-way test, its variance of items known as it is with many of them."""
    n_seeds = found.shape[1]
    by_item = items + rest / n_seeds
    parts = [Components(v, by_item, rest, n_seeds, MANY) for v in found.var(axis=1, ddof=1)]
    errors = np.array([part.variance() for part in parts]) ** 0.5
    freedom = np.array([part.freedom for part in parts])
    return 2 * t.sf(np.abs(found.mean(axis=1)) / errors, freedom)
