"""A test of a paired difference that has two sources of chance: the items and the training seeds.

Every seed answers the same items, so answers form a table of seeds by items, and the difference of
two methods in one cell of it is the true difference, plus what is particular to the seed, to the
item, and to both together. The variance of the mean adds up accordingly (crossed random effects;
Clark, 1973; Cameron, Gelbach and Miller, 2011). The degrees of freedom follow Satterthwaite (1946):
they fall to those of the seeds, S - 1, where the seeds disagree, and are those of the items where
the seeds agree. Unlike a bootstrap over three seeds, this does not understate their spread.

Items that share a picture count as one: their residuals are summed before they are squared. A sum
is divided by the root of the share of its group that is not its own (Bell and McCaffrey, 2002), so
that the variance is unbiased where items are independent after all, and the usual one, with n - 1,
where each has its own picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.sparse.csgraph import connected_components
from scipy.stats import nct, t

from cae_lib.errors import DataError
from cae_lib.evaluation.resampling import Clusters, Strata, numbered, plain_means, residual_sums


@dataclass(frozen=True)
class Components:
    """Where the variance of a difference comes from, on the scale of means over all items.

    Attributes:
        by_seed: Variance over seeds of a seed's difference; contains `rest`.
        by_item: Variance of the difference, averaged over seeds, due to the choice of items;
            contains `rest / n_seeds`.
        rest: Variance of one seed's difference that is particular to seed and item.
        n_seeds: Seeds.
        item_freedom: Degrees of freedom of `by_item`.
    """

    by_seed: float
    by_item: float
    rest: float
    n_seeds: int
    item_freedom: int

    @property
    def seeds(self) -> float:
        """Variance of the true difference between one seed and the next; never negative."""
        return max(0.0, self.by_seed - self.rest)

    @property
    def items(self) -> float:
        """Variance due to which items there are, however many seeds answer them."""
        return max(0.0, self.by_item - self.rest / self.n_seeds)

    def parts(self, n_seeds: int | None = None, more_items: float = 1.0) -> tuple[float, float]:
        """Variances of the mean due to seeds and due to items; what is due to both is in both.

        Args:
            n_seeds: Of a plan; by default those that there are.
            more_items: Items of the plan, as a multiple of those that there are.
        """
        n = self.n_seeds if n_seeds is None else n_seeds
        both = self.rest / more_items / n
        return self.seeds / n + both, self.items / more_items + both

    def variance(self, n_seeds: int | None = None, more_items: float = 1.0) -> float:
        """Variance of the difference; arguments as in `parts`."""
        n = self.n_seeds if n_seeds is None else n_seeds
        return sum(self.parts(n_seeds, more_items)) - self.rest / more_items / n

    @property
    def freedom(self) -> float:
        """Satterthwaite's degrees of freedom of `variance`, from the variances as observed."""
        return self._satterthwaite(self.variance(), self.by_seed / self.n_seeds, self.by_item,
                                   self.n_seeds, self.item_freedom)  # fmt: skip

    def planned_freedom(self, n_seeds: int | None = None, more_items: float = 1.0) -> float:
        """Those to expect if the variances are the true ones; arguments as in `parts`."""
        n = self.n_seeds if n_seeds is None else n_seeds
        return self._satterthwaite(self.variance(n_seeds, more_items),
                                   *self.parts(n_seeds, more_items),
                                   n, self.item_freedom * more_items)  # fmt: skip

    @staticmethod
    def _satterthwaite(
        variance: float, by_seed: float, by_item: float, n_seeds: int, item_freedom: float
    ) -> float:
        spread = by_item**2 / item_freedom + (by_seed**2 / (n_seeds - 1) if n_seeds > 1 else 0.0)
        return variance**2 / spread if spread else item_freedom


@dataclass(frozen=True)
class TwoWay:
    """Outcome of the two-way t test.

    Attributes:
        estimate: Difference of the weighted means, averaged over seeds.
        by_seed: The difference of each seed.
        error: Its standard error.
        freedom: Degrees of freedom.
        p_value: Two-sided.
        components: Of the variance.
    """

    estimate: float
    by_seed: tuple[float, ...]
    error: float
    freedom: float
    p_value: float
    components: Components


def two_way_test(
    first: Strata, second: Strata, weights: Sequence[float], clusters: Clusters | None = None
) -> TwoWay:
    """Test whether two methods differ, given that other seeds and other items could have been had.

    With one seed it is a paired test on the items alone, which says nothing of training.

    Args:
        first: Scores of one method, `(S, n)` a group.
        second: Of the other method, on the same items and seeds; a single row stands for every
            seed, as a model without seeds does.
        weights: Weight of each group's mean.
        clusters: As in `statistics.weighted_interval`.

    Raises:
        DataError: The two sides have different items or numbers of seeds, or there are fewer than
            two items in every group.
    """
    groups = [_difference(a, b) for a, b in zip(first, second, strict=True)]
    by_seed = plain_means(groups, weights)
    components = _components(groups, np.asarray(weights), clusters, by_seed)
    estimate, error = float(by_seed.mean()), components.variance() ** 0.5
    freedom = components.freedom
    if error:
        p_value = float(2 * t.sf(abs(estimate) / error, freedom))
    else:
        p_value = 0.0 if estimate else 1.0
    return TwoWay(estimate, tuple(map(float, by_seed)), error, freedom, p_value, components)


def _difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    a, b = (np.atleast_2d(np.asarray(part, dtype=np.float64)) for part in (first, second))
    if a.shape[1] != b.shape[1] or (len(a) != len(b) and 1 not in (len(a), len(b))):
        raise DataError(f"two-way test: scores {a.shape} against {b.shape}; pair the same items.")
    return a - b


def _components(
    groups: list[np.ndarray], weights: np.ndarray, clusters: Clusters | None, by_seed: np.ndarray
) -> Components:
    """Squared sums of clusters; a group of one cluster takes the pooled variance of the others."""
    numbers, n_clusters = numbered(clusters, [values.shape[1] for values in groups])
    sizes = np.array([np.bincount(number, minlength=n_clusters) for number in numbers])
    freedom = n_clusters - connected_components(sizes @ sizes.T)[0]
    if not freedom:
        raise DataError("two-way test: no group has two items. Take larger groups.")
    share = sizes / sizes.sum(axis=1, keepdims=True)
    scale = np.divide(1, np.sqrt(1 - share), out=np.zeros_like(share), where=share < 1)
    moves = [
        residual_sums(values, number, n_clusters) * row
        for values, number, row in zip(groups, numbers, scale, strict=True)
    ]
    counts = (sizes > 0).sum(axis=1)
    squares = np.array([_squares(part) for part in moves])
    lone = (counts * (counts - 1)) @ squares / (counts - 1).sum()
    total = _squares(np.tensordot(weights, moves, axes=1))
    by_item, rest = (total + (weights[counts == 1] ** 2).sum() * lone).tolist()
    n_seeds = len(by_seed)
    spread = float(by_seed.var(ddof=1)) if n_seeds > 1 else 0.0
    return Components(spread, by_item, rest, n_seeds, int(freedom))


def _squares(moves: np.ndarray) -> np.ndarray:
    """Sums over clusters `(S, C)` of squares: of means over seeds, of what these leave by S - 1."""
    means = moves.mean(axis=0)
    return np.array([(means**2).sum(), ((moves - means) ** 2).sum() / max(1, len(moves) - 1)])


def pooled(components: Sequence[Components]) -> Components:
    """The mean of several comparisons' components, for planning.

    Raises:
        DataError: There are none, or they have different numbers of seeds.
    """
    if len({part.n_seeds for part in components}) != 1:
        raise DataError("pooled components: pass some, all with the same number of seeds.")
    means = (float(np.mean([getattr(part, name) for part in components]))
             for name in ("by_seed", "by_item", "rest"))  # fmt: skip
    return Components(*means, components[0].n_seeds, components[0].item_freedom)


def detectable(
    components: Components,
    power: float = 0.8,
    level: float = 0.05,
    n_seeds: int | None = None,
    more_items: float = 1.0,
) -> float:
    """The smallest true difference that the two-way test finds with the given probability.

    Args:
        components: What the variance is taken to be.
        power: Probability of finding it.
        level: Of the two-sided test.
        n_seeds: As in `Components.parts`.
        more_items: As in `Components.parts`.
    """
    error = components.variance(n_seeds, more_items) ** 0.5
    freedom = components.planned_freedom(n_seeds, more_items)
    critical = t.isf(level / 2, freedom)
    highest = critical + 10.0 * (1 + critical / freedom)
    return error * brentq(lambda shift: nct.sf(critical, freedom, shift) - power, 0, highest)
