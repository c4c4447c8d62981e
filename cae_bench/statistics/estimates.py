"""Means, rank correlations, and their differences, with intervals over items and seeds.

Estimates are computed from tables with a row for each run, seed and item. Their variance has two
sources, the items and the seeds, and every seed answers the same items. Correlations are not means,
so the bootstrap gives their variance over items.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.sparse.csgraph import connected_components
from scipy.stats import nct, t

from cae_bench.benchmarks.base import ITEM_KEY
from cae_lib.errors import DataError

POWER = 0.8
"""Probability with which a test finds a difference of the minimal detectable effect."""

CONFIDENCE = 0.95
"""Confidence level of all intervals; tests have the significance level `1 - CONFIDENCE`."""


@dataclass(frozen=True)
class VarianceComponents:
    """Variance components of a mean over items and seeds.

    Every seed answers the same items, so the value of an answer is the true mean plus an effect of
    the seed, one of the item, and one of their combination; the variances of the three add up
    (crossed random effects; Clark, 1973; Cameron, Gelbach and Miller, 2011). With a single seed,
    the variance is due to the items alone, and intervals and tests are about this seed. Two seeds
    have a variance but neither interval nor test: see `degrees_of_freedom`.

    Attributes:
        by_seed: Variance between the means of single seeds; contains `rest`. 0 for a single seed.
        by_item: Variance of the mean over all seeds that is due to the choice of items; contains
            `rest / n_seeds`.
        rest: Variance of the mean of a single seed that is due to combinations of seed and item. 0
            for a single seed.
        n_seeds: Number of seeds.
        item_freedom: Degrees of freedom of `by_item`.
    """

    by_seed: float
    by_item: float
    rest: float
    n_seeds: int
    item_freedom: float

    def variance(self) -> float:
        """Return the variance of the mean over all seeds and items."""
        # The difference of two estimates may come out below 0, which no variance is. `max` in place
        # of `np.maximum` would also turn NaN into 0.
        n, seeds = self.n_seeds, np.maximum(0.0, self.by_seed - self.rest)
        return seeds / n + np.maximum(0.0, self.by_item - self.rest / n) + self.rest / n

    def degrees_of_freedom(self, assume_true_variances: bool = False) -> float:
        """Return the degrees of freedom of `variance`.

        Satterthwaite's formula squares the share of each component, which would give the few seeds
        too little weight. Here the share of the seeds is not squared, and it contains half of
        `rest`. In simulations (`speed/coverage.py`) this brings the coverage of intervals from
        three seeds closest to 95 %: it lies between 92 %, where seeds vary three times as much as
        items, and 98 %. For two seeds the result is NaN, because by this formula up to 13 % of the
        intervals would miss the truth.

        Args:
            assume_true_variances: Whether the components are true variances instead of estimates.
                If so, `by_seed` counts as at least `rest`, and `by_item` as at least
                `rest / n_seeds`.
        """
        n, total, by_seed, by_item = self.n_seeds, self.variance(), self.by_seed, self.by_item
        if n == 2:
            return np.nan
        # By definition, true components are at least as large as what they contain.
        if assume_true_variances:
            by_seed = np.maximum(by_seed, self.rest)
            by_item = np.maximum(0.0, by_item - self.rest / n) + self.rest / n
        # `seeds * total` in place of Satterthwaite's `seeds**2` gives the few seeds more weight.
        seeds = np.maximum(0.0, by_seed - self.rest / 2) / n
        spread = by_item**2 / self.item_freedom + (seeds * total / (n - 1) if n > 1 else 0.0)
        # The spread is 0 where nothing varies.
        return total**2 / spread if spread else self.item_freedom


def seed_means_and_components(
    values: np.ndarray, strata: np.ndarray, weights: np.ndarray, clusters: np.ndarray
) -> tuple[np.ndarray, VarianceComponents]:
    """Compute the weighted mean of each seed, and the variance components of the mean over seeds.

    There are S seeds, n items and G groups of items (strata). The mean of a seed is the weighted
    sum of its means within the groups.

    Items that share an image form a cluster, which may extend over several groups. The residuals
    of a cluster are summed within each group. Each sum is divided by the number of the group's
    items and by `sqrt(1 - h)`, where h is the cluster's share of these items (Bell and McCaffrey,
    2002). The results are added over the groups with the groups' weights, and only then squared.

    In a group with a single cluster the residual is 0. Its variance is instead the variance of one
    cluster, pooled over the other groups. If no group has two clusters, all variances and
    `item_freedom` are NaN.

    Args:
        values: Value of each seed on each item `(S, n)`.
        strata: Index of the group of each item `(n,)`, from 0 to G - 1. Each group has an item.
        weights: Weight of each group's mean `(G,)`.
        clusters: Integer that identifies the image of each item `(n,)`.

    Returns:
        The mean of each seed `(S,)`, and the variance components.
    """
    # Clusters numbered from 0 to C - 1.
    _, clusters = np.unique(clusters, return_inverse=True)
    n_groups, n_clusters, n_seeds = len(weights), int(clusters.max()) + 1, len(values)

    # The number of items of each group and cluster (G, C), and each seed's sum over them (S, G, C).
    cells, shape = strata * n_clusters + clusters, (n_groups, n_clusters)
    sizes = np.bincount(cells, minlength=n_groups * n_clusters).reshape(shape)
    sums = np.stack(
        [np.bincount(cells, row, n_groups * n_clusters).reshape(shape) for row in values]
    )
    totals = sizes.sum(axis=1)
    # Means of seeds within groups (S, G), and their weighted sums (S,).
    means = sums.sum(axis=2) / totals
    by_seed = means @ weights

    # Groups that share images have one common set of clusters: it loses one degree of freedom. An
    # entry of (G, G) is above 0 where two groups have an image in common.
    freedom = n_clusters - connected_components(sizes @ sizes.T)[0]
    if not freedom:
        return by_seed, VarianceComponents(np.nan, np.nan, np.nan, n_seeds, np.nan)

    # What each cluster adds to its group's mean (S, G, C), corrected for having pulled that mean to
    # itself. A cluster that is all of its group has no correction: its residual is 0.
    share = sizes / totals[:, None]
    scale = np.divide(1, np.sqrt(1 - share), out=np.zeros_like(share), where=share < 1)
    residuals = (sums - sizes * means[:, :, None]) / totals[None, :, None] * scale

    # A group of one cluster has a residual of 0: it gets the others' variance of one cluster. This
    # is a group's sum of squares times its number of clusters, weighted by degrees of freedom.
    by_group = np.stack([_sums_of_squares(residuals[:, group]) for group in range(n_groups)])
    counts = (sizes > 0).sum(axis=1)
    pooled = (counts * (counts - 1)) @ by_group / (counts - 1).sum()

    # A cluster may lie in several groups, so it is added over groups (S, C) before it is squared.
    total = _sums_of_squares(np.einsum("g,sgc->sc", weights, residuals))
    by_item, rest = total + (weights[counts == 1] ** 2).sum() * pooled
    spread = float(by_seed.var(ddof=1)) if n_seeds > 1 else 0.0
    return by_seed, VarianceComponents(spread, float(by_item), float(rest), n_seeds, int(freedom))


def _sums_of_squares(residuals: np.ndarray) -> np.ndarray:
    """Return sums of squares of residuals `(S, C)`: means over seeds, and the rest by S - 1."""
    means = residuals.mean(axis=0)
    # A single seed has no deviations: its sum is 0, whatever divides it.
    rest = ((residuals - means) ** 2).sum() / max(1, len(residuals) - 1)
    return np.array([(means**2).sum(), rest])


def minimal_detectable_effect(components: VarianceComponents) -> float:
    """Return the smallest true difference from 0 that a test finds with probability `POWER`.

    The test is the two-sided t-test at the level `1 - CONFIDENCE`. The result has the unit of the
    mean. It is NaN if the variance is NaN or there are two seeds.
    """
    # The question is about studies to come, for which these components are taken to be true.
    error, freedom = (
        components.variance() ** 0.5,
        components.degrees_of_freedom(assume_true_variances=True),
    )
    if np.isnan(freedom):
        return np.nan
    critical = t.isf((1 - CONFIDENCE) / 2, freedom)
    # An upper bound for the root finder: few degrees of freedom require a large shift.
    highest = critical + 10.0 * (1 + critical / freedom)
    # The noncentral t distribution; significance with the wrong sign does not count as finding.
    return error * brentq(lambda shift: nct.sf(critical, freedom, shift) - POWER, 0, highest)


def summarize(seed_means: np.ndarray, components: VarianceComponents) -> dict[str, object]:
    """Return the estimate, interval and test of one mean, as a row of a table.

    Args:
        seed_means: Mean of each of S seeds `(S,)`.
        components: Variance components of the mean over seeds.

    Returns:
        `estimate`, the mean over seeds; `low` and `high`, its 95 % interval; `p`, the two-sided
        p-value of the hypothesis that the mean is 0; `error`, the standard error; `freedom`, the
        degrees of freedom; and `minimal_detectable_effect`. If the variance is 0, `p` is 1 for an
        estimate of 0, otherwise 0. If the variance is NaN, all values but `estimate` are NaN. From
        two seeds, all values but `estimate` and `error` are NaN: there is no interval.
    """
    estimate, error = float(seed_means.mean()), components.variance() ** 0.5
    freedom = components.degrees_of_freedom()
    half_width = t.isf((1 - CONFIDENCE) / 2, freedom) * error
    # Where nothing varies, a mean of 0 is no difference, and any other is one for certain.
    p = float(estimate == 0)
    if np.isnan([estimate, freedom]).any():
        p = np.nan
    elif error:
        p = float(2 * t.sf(abs(estimate) / error, freedom))
    return {
        "estimate": estimate,
        "low": estimate - half_width,
        "high": estimate + half_width,
        "p": p,
        "error": error,
        "freedom": freedom,
        "minimal_detectable_effect": minimal_detectable_effect(components),
    }


def mean_ci(
    frame: pd.DataFrame,
    value: str = "correct",
    items: Sequence[str] = ITEM_KEY,
    by: Sequence[str] = ("run",),
    weights: pd.DataFrame | None = None,
    cluster: str = "picture",
) -> pd.DataFrame:
    """Average a column over items and seeds, with its 95 % interval, in each group of `by`.

    Args:
        frame: Table with one row for each seed and item of a group. It needs the column "seed" and
            the columns that the other arguments name.
        value: Column to average.
        items: Columns that together identify an item.
        by: Columns to group by, at least one. The average is computed separately for each
            combination of values of these columns.
        weights: Weighted means (scores) to compute, as a table like that of
            `cae_bench.averages.score_weights`, with a row for each item of each score. Its
            columns are those of `items`; `score`, the name of the score; `weight`, the weight of
            the item in the score; and `stratum`, which is the same for items that are averaged
            together first. An item has one row in each of its scores. Items of a stratum must have
            equal weights. The weights of a score have to sum to 1, which is not checked. None
            computes one unweighted mean over all items.
        cluster: Column with the image of an item. Items of the same image are not independent.

    Returns:
        A row for each group or, with `weights`, for each score of each group. The columns are those
        of `by`, with `weights` also `score`, those of `summarize`, and four counts: `n`, the number
        of items; `pictures`, the number of images; `nonzero`, the number of images with a value
        other than 0 for some seed (see `MIN_NONZERO_CLUSTERS`); and `seeds`, the number of seeds.
        With one seed, the interval covers the variation of items alone and is about this seed. With
        two seeds it is NaN (see `VarianceComponents.degrees_of_freedom`). It is also NaN if there
        is only one image, or with `weights` only one in each stratum.

    Raises:
        DataError: If the table is empty, a column is missing or has missing values, items of a
            stratum have different weights, an item has two weights in a score, an item has two
            images, an item occurs twice for a seed of a group, a seed lacks items that other seeds
            of its group have, or a group lacks items of a score.
    """
    # The item matrix finds rows by their label, which therefore has to be unique.
    frame = frame.reset_index(drop=True)
    matrix = _ItemMatrix(frame, value, items, cluster, weights, by)
    rows = []
    # `observed=True`: no group for a category of a categorical column that does not occur.
    for names, group in frame.groupby(list(by), sort=False, observed=True):
        values = matrix.side(group, _label(by, names)).values
        rows += [dict(zip(by, names, strict=True)) | row for row in matrix.tests(values)]
    return pd.DataFrame(rows)


def contrasts(
    frame: pd.DataFrame,
    against: str | Mapping[str, str],
    value: str = "correct",
    items: Sequence[str] = ITEM_KEY,
    by: Sequence[str] = (),
    key: str = "run",
    weights: pd.DataFrame | None = None,
    cluster: str = "picture",
    fixed: str | Collection[object] = (),
) -> pd.DataFrame:
    """Compute mean paired differences between runs on the same seeds and items, with intervals.

    The two sides of a difference are two runs. If `key` names a column other than "run", they are
    two values of this column. Each seed of one side is paired with the same seed of the other side;
    a seed that only one side has does not count. The column "seeds" of the result holds the number
    of pairs. A model that has no seeds has to be named in `fixed`.

    Args:
        frame: As for `mean_ci`.
        against: The run (or value of `key`) to subtract from every one of the remaining runs (or
            values), such as "clip-ft". Or a mapping from runs to the runs that are subtracted from
            them.
        value: As for `mean_ci`.
        items: As for `mean_ci`.
        by: Columns to group by. The two sides are compared separately within each combination of
            values of these columns.
        key: Column whose values are compared.
        weights: As for `mean_ci`.
        cluster: As for `mean_ci`.
        fixed: The run or runs (or values of `key`) that are one given model and not a training with
            several seeds, such as "base" or a released model. Their rows state one seed, which is
            ignored: they are compared with every seed of the other side.

    Returns:
        A table as from `mean_ci`, with two more columns. The column whose name is the argument
        `key` (by default, the column "run") holds the first side of a difference. The column
        "against" holds the side that is subtracted. The column "estimate" holds the difference.

    Raises:
        DataError: As for `mean_ci`. Also if a side is missing, if two sides have no seed in common,
            if a side that `fixed` names has several seeds, or if two sides do not have the same
            items (this last case only without `weights`).
    """
    frame = frame.reset_index(drop=True)
    # With a single string, `in` would also match parts of names.
    fixed = (fixed,) if isinstance(fixed, str) else fixed
    # One matrix for all groups and sides, so that an item has the same number everywhere.
    matrix = _ItemMatrix(frame, value, items, cluster, weights, (*by, key))
    rows = []
    groups = frame.groupby(list(by), sort=False, observed=True) if by else [((), frame)]
    for names, group in groups:
        sides = {
            name: matrix.side(rows_of_side, _label((*by, key), (*names, name)), name in fixed)
            for (name,), rows_of_side in group.groupby([key], sort=False, observed=True)
        }
        pairs = against if isinstance(against, Mapping) else dict.fromkeys(sides, against)
        for first, second in pairs.items():
            # A single `against` is itself one of the sides.
            if first == second:
                continue
            if first not in sides or second not in sides:
                missing = second if first in sides else first
                raise DataError(
                    f"{_label(by, names)} {key}: no {missing!r} among {', '.join(map(str, sides))}"
                )
            matrix.require_same_items(sides[first], sides[second])
            rows_of_pairs = _pair_seeds(sides[first], sides[second])
            # (pairs of seeds, N): what makes an item easy or hard for both sides cancels.
            differences = (
                sides[first].values[rows_of_pairs[0]] - sides[second].values[rows_of_pairs[1]]
            )
            columns = dict(zip(by, names, strict=True)) | {key: first, "against": second}
            rows += [columns | row for row in matrix.tests(differences)]
    return pd.DataFrame(rows)


def linearized_ratios(
    frame: pd.DataFrame, numerator: str, denominator: str, by: Sequence[str] = ("run",)
) -> pd.Series:
    """Return one value for each row; their mean in each group of `by` is the ratio of two means.

    Let r be the ratio of a group, x and y the values of a row in the columns `numerator` and
    `denominator`, and m the group's mean of y. Then the value of the row is `r + (x - r * y) / m`.
    `mean_ci` and `contrasts` can average these values like any others. To first order, the standard
    error of their mean is that of the ratio (the delta method). This holds only if m is large
    compared with its own standard error.

    Args:
        frame: Table with the columns that the other arguments name.
        numerator: Column whose mean is the numerator, such as the gap that is left after training.
        denominator: Column whose mean is the denominator, such as the gap before training.
        by: Columns, at least one, whose combinations of values have a ratio each.

    Returns:
        The values, with the index of `frame`.
    """
    means = frame.groupby(list(by), observed=True)[[numerator, denominator]].transform("mean")
    ratio = means[numerator] / means[denominator]
    return ratio + (frame[numerator] - ratio * frame[denominator]) / means[denominator]


class _Side(NamedTuple):
    """Values `(S, N)` of one run (or another value of `key`); NaN for items that no seed has.

    In `correlations`, the values are the estimate of each seed and its R resamples `(S, 1 + R)`.
    """

    label: str
    is_fixed: bool
    seeds: tuple[int, ...]
    values: np.ndarray


def _pair_seeds(first: _Side, second: _Side) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of each pair of seeds in the values of two sides, as `contrasts` says."""
    sides = (first, second)
    texts = [f"{side.label} with seeds {', '.join(map(str, side.seeds))}" for side in sides]
    for side, text in zip(sides, texts, strict=True):
        if side.is_fixed and len(side.seeds) > 1:
            raise DataError(
                f"{text}: a model that `fixed` names has no seeds; keep the rows of one seed, or "
                "leave it out of `fixed`"
            )
    if first.is_fixed or second.is_fixed:
        # The one row of a fixed side pairs with every seed: all numbers modulo 1 are 0.
        pairs = np.arange(max(len(side.seeds) for side in sides))
        return pairs % len(first.seeds), pairs % len(second.seeds)
    _, *rows = np.intersect1d(first.seeds, second.seeds, return_indices=True)
    if not len(rows[0]):
        raise DataError(
            f"{' against '.join(texts)}: no seed in common. Measure both on the same seeds, or "
            "name the model that has no seeds (such as a base or released model) in `fixed`"
        )
    return rows[0], rows[1]


def _label(columns: Iterable[str], values: Iterable[object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip(columns, values, strict=True))


class _Score(NamedTuple):
    """Items of a weighted mean: their numbers, the stratum of each item, and weights of strata."""

    numbers: np.ndarray
    strata: np.ndarray
    weights: np.ndarray


class _ItemMatrix:
    """Items of a table, numbered by first appearance; computes means over them and their tests."""

    def __init__(
        self,
        frame: pd.DataFrame,
        value: str,
        items: Sequence[str],
        cluster: str,
        weights: pd.DataFrame | None,
        by: Sequence[str],
    ) -> None:
        missing = {"seed", value, cluster, *items, *by} - set(frame.columns)
        if missing:
            raise DataError(f"no column {', '.join(sorted(missing))} among {list(frame.columns)}")
        if frame.empty:
            raise DataError("there are no rows to average")
        unknown = frame[[*dict.fromkeys(["seed", cluster, *items, *by])]].isna()
        if unknown.any(axis=None):
            columns = dict.fromkeys(unknown.columns[unknown.any()])
            raise DataError(
                f"{int(unknown.any(axis=1).sum())} of {len(frame)} rows have no "
                f"{', '.join(columns)}: give every row one"
            )
        # A number for each item, in the order of first appearance.
        self.value, self.items = value, list(items)
        self.number = frame.groupby(self.items, sort=False, observed=True).ngroup()
        first = ~self.number.duplicated()
        self.names = frame.loc[first, self.items].assign(number=self.number[first].to_numpy())
        # The cluster of each item, by its number, from the row in which it appears first.
        clusters = pd.factorize(frame[cluster])[0]
        self.clusters = clusters[first]
        ambiguous = np.unique(self.number[self.clusters[self.number] != clusters])
        if len(ambiguous):
            raise DataError(
                f"{self.describe(ambiguous)} with more than one {cluster}: name more columns in "
                "`items`, so that each row of a name is of the same item"
            )
        self.scores = None if weights is None else self._scores(weights)

    def _scores(self, weights: pd.DataFrame) -> dict[str, _Score]:
        # A left join keeps items without an answer, so that they can be named in an error.
        numbered = weights.merge(self.names, on=self.items, how="left", validate="many_to_one")
        unanswered = numbered[numbered["number"].isna()]
        if len(unanswered):
            row = unanswered.iloc[0]
            raise DataError(
                f"{row['score']}: no answer to item {[row[name] for name in self.items]}; "
                "measure the run again, or leave the score out"
            )
        for name, rows in numbered[numbered.duplicated(["score", "number"])].groupby("score"):
            repeated = self.describe(rows["number"].unique())
            raise DataError(
                f"{name}: the weights list {repeated} more than once; give each item of a score "
                "one row"
            )
        # Items of a stratum are averaged equally, so different weights would be lost. Weights are
        # quotients, and are compared up to rounding.
        spread = weights.groupby(["score", "stratum"], sort=False)["weight"].agg(["min", "max"])
        unequal = spread.index[~np.isclose(spread["min"], spread["max"])]
        if len(unequal):
            score, stratum = unequal[0]
            raise DataError(
                f"{score}: items of stratum {stratum!r} have different weights; give the items of "
                "a stratum one weight, or put them into several strata"
            )
        # `factorize` and `groupby` with `sort=False` both take strata in order of appearance, so
        # the numbers of strata fit their weights.
        return {
            name: _Score(
                rows["number"].to_numpy(int),
                pd.factorize(rows["stratum"])[0],
                rows.groupby("stratum", sort=False)["weight"].sum().to_numpy(),
            )
            for name, rows in numbered.groupby("score", sort=False)
        }

    def describe(self, numbers: np.ndarray) -> str:
        """Return a text that says how many items are given, and names the first three."""
        names = self.names.set_index("number").loc[numbers].sort_values(self.items)
        few = [" ".join(map(str, row)) for row in names.head(3).itertuples(index=False)]
        more = ", ..." if len(names) > len(few) else ""
        return f"{len(names)} item{'s' * (len(names) > 1)} ({', '.join(few)}{more})"

    def side(self, group: pd.DataFrame, label: str, is_fixed: bool = False) -> _Side:
        """Return the values of some rows of the table by seed and item; NaN for items they lack."""
        seeds, row = np.unique(group["seed"], return_inverse=True)
        number = self.number.loc[group.index].to_numpy()
        # A missing value is refused and not dropped, so NaN below only marks items without a row.
        unknown = np.unique(number[group[self.value].isna()])
        if len(unknown):
            raise DataError(
                f"{label}: no value of {self.value} at {self.describe(unknown)}; measure the "
                "run again, or leave these items out on both sides"
            )
        # One number for each pair of seed and item.
        if np.bincount(row * len(self.names) + number).max() > 1:
            raise DataError(f"{label}: an item occurs twice; name more columns in `by` or `items`")
        matrix = np.full((len(seeds), len(self.names)), np.nan)
        matrix[row, number] = group[self.value].to_numpy(np.float64)
        # The components of variance assume that every seed answers the same items.
        partial = np.isnan(matrix).any(axis=0) & ~np.isnan(matrix).all(axis=0)
        if partial.any():
            items = self.describe(np.flatnonzero(partial))
            raise DataError(f"{label}: not answered by every seed: {items}")
        return _Side(label, is_fixed, tuple(seeds.tolist()), matrix)

    def require_same_items(self, first: _Side, second: _Side) -> None:
        """Raise a DataError if one side has items that the other lacks."""
        # With weights, `tests` checks the items of each score.
        if self.scores is not None:
            return
        # The first row stands for all, since all seeds of a side have the same items.
        in_first, in_second = (~np.isnan(side.values[0]) for side in (first, second))
        lacking = [
            f"{self.describe(np.flatnonzero(only))} of {side.label} alone"
            for side, only in ((first, in_first & ~in_second), (second, in_second & ~in_first))
            if only.any()
        ]
        if lacking:
            raise DataError(
                f"{'; '.join(lacking)}: leave out the items that one side lacks, or measure them"
            )

    def tests(self, matrix: np.ndarray) -> list[dict[str, object]]:
        """Return the test of the mean of values `(S, N)` in each score, without scores of all."""
        if self.scores is None:
            answered = np.flatnonzero(~np.isnan(matrix[0]))
            score = _Score(answered, np.zeros(len(answered), int), np.ones(1))
            return [self._test(matrix, score)]
        return [{"score": name} | self._test(matrix, score) for name, score in self.scores.items()]

    def _test(self, matrix: np.ndarray, score: _Score) -> dict[str, object]:
        values, clusters = matrix[:, score.numbers], self.clusters[score.numbers]
        if np.isnan(values).any():
            raise DataError("a score has items that were not answered: measure the run again")
        # Images, not items, because items of one image are not independent; see
        # `MIN_NONZERO_CLUSTERS`.
        nonzero = np.unique(clusters[(values != 0).any(axis=0)])
        return summarize(
            *seed_means_and_components(values, score.strata, score.weights, clusters)
        ) | {
            "n": len(score.numbers),
            "pictures": len(np.unique(clusters)),
            "nonzero": len(nonzero),
            "seeds": len(matrix),
        }


def correlations(
    frame: pd.DataFrame,
    against: str | None = None,
    resamples: int = 1000,
    bootstrap_seed: int = 0,
    fixed: str | Collection[str] = (),
) -> pd.DataFrame:
    """Compute Spearman correlations of similarities with human ratings, or their differences.

    Args:
        frame: Table `similarity`, with one row for each run, seed and pair of a set. Its columns
            are run, seed, set, pair, gold (the human rating of the pair) and score (the similarity
            by the model).
        against: The run whose correlation is subtracted from that of each other run; seeds are
            paired as in `contrasts`. None for the correlations themselves.
        resamples: Number of bootstrap samples of the pairs, shared by all runs. They give the
            variance over pairs, which is combined with the variance over seeds as in
            `VarianceComponents`.
        bootstrap_seed: Seed of the random numbers that draw the bootstrap samples.
        fixed: As for `contrasts`.

    Returns:
        A row for each set and run. If there are several sets, each run also has a row for the mean
        over the sets, with the set "mean". The columns are `set`, `run`, those of `summarize`, and
        three counts: `n`, the number of pairs; `nonzero`, the number of pairs that can change the
        estimate; and `seeds`, the number of seeds. With `against`, `nonzero` counts the pairs that
        the two runs rank differently for some seed. Without it, these are the pairs whose score is
        not the most frequent one, for the seed with the most such pairs. The estimate is NaN if the
        scores or the ratings of a set do not vary.

    Raises:
        DataError: If the table is empty, runs do not have the same pairs, scores or ratings are
            missing, a pair has two ratings, sets do not have the same runs and seeds, two runs have
            no seed in common, a run that `fixed` names has several seeds, or `against` is missing.
    """
    if frame.empty:
        raise DataError("there are no pairs to correlate")
    fixed = (fixed,) if isinstance(fixed, str) else fixed
    generator = np.random.default_rng(bootstrap_seed)
    sides: dict[str, dict[str, _Side]] = {}
    sizes: dict[str, int] = {}
    ranks: dict[str, pd.DataFrame] = {}
    for name, rows in frame.groupby("set", sort=False, observed=True):
        scores, gold = _scores_by_pair(str(name), rows)
        n = sizes[name] = len(gold)
        # How often each pair is drawn, in n draws with replacement (R, n). The same resamples for
        # all runs, so that their differences are paired. In row 0 each pair occurs once: with these
        # counts, the correlation is the estimate itself.
        counts = generator.multinomial(n, np.full(n, 1 / n), size=resamples)
        counts = np.concatenate([np.ones((1, n), dtype=counts.dtype), counts])
        ranks[name] = scores.rank()
        sides[name] = {}
        for run in scores.columns.unique("run"):
            # (S, n) -> (S, 1 + R)
            columns = scores[run].to_numpy().T
            values = np.stack([weighted_spearman(column, gold, counts) for column in columns])
            sides[name][run] = _Side(f"run {run}", run in fixed, tuple(scores[run]), values)
    runs = list(next(iter(sides.values())))
    seeds = [{run: side.seeds for run, side in by_run.items()} for by_run in sides.values()]
    if any(seeds_of_set != seeds[0] for seeds_of_set in seeds):
        raise DataError(
            "the sets do not have the same runs and seeds: measure those that are not "
            "there, or leave them out"
        )
    # Sets are resampled independently, so resample r of the mean is the mean of their resamples r.
    if len(sides) > 1:
        if "mean" in sides:
            raise DataError(
                "a set is called 'mean', which is the name of the mean over the sets: rename it"
            )
        sides["mean"] = {
            run: side._replace(values=np.mean([by_run[run].values for by_run in sides.values()], 0))
            for run, side in next(iter(sides.values())).items()
        }
        sizes["mean"] = sum(sizes.values())
    if against is not None and against not in runs:
        raise DataError(f"no run {against!r} among {', '.join(runs)}")
    table = []
    for name, by_run in sides.items():
        for run in (run for run in runs if run != against):
            values, rows_of_pairs = by_run[run].values, None
            if against is not None:
                rows_of_pairs = _pair_seeds(by_run[run], by_run[against])
                values = values[rows_of_pairs[0]] - by_run[against].values[rows_of_pairs[1]]
            columns = {
                "n": sizes[name],
                "nonzero": _count_movable_pairs(ranks, name, run, against, rows_of_pairs),
                "seeds": len(values),
            }
            summary = _summarize_resamples(values, sizes[name] - 1)
            table.append({"set": name, "run": run} | summary | columns)
    return pd.DataFrame(table)


def _scores_by_pair(name: str, rows: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the scores of n pairs, a column for each run and seed, and their ratings `(n,)`."""
    if rows.duplicated(["pair", "run", "seed"]).any():
        raise DataError(f"set {name}: a pair occurs twice for a seed of a run")
    scores = rows.pivot(index="pair", columns=["run", "seed"], values="score")
    if scores.isna().any().any():
        raise DataError(f"set {name}: the runs do not share their pairs, or scores are missing")
    if rows["gold"].isna().any():
        raise DataError(f"set {name}: {int(rows['gold'].isna().sum())} rows have no value of gold")
    if (rows.groupby("pair", observed=True)["gold"].nunique(dropna=False) > 1).any():
        raise DataError(f"set {name}: a pair has more than one value of gold")
    # Pivoting sorts the pairs, so the ratings are brought into the order of the scores.
    gold = rows.drop_duplicates("pair").set_index("pair")["gold"]
    return scores, gold.reindex(scores.index).to_numpy()


def _count_movable_pairs(
    ranks: Mapping[str, pd.DataFrame],
    name: str,
    run: str,
    against: str | None,
    rows_of_pairs: tuple[np.ndarray, np.ndarray] | None,
) -> int:
    """Count the pairs in the column `nonzero` of `correlations`, from the ranks in each set."""
    # "mean" is no set of its own, but sums up the sets.
    if name not in ranks:
        return sum(
            _count_movable_pairs(ranks, subset, run, against, rows_of_pairs) for subset in ranks
        )
    by_seed = ranks[name][run].to_numpy()
    if against is None or rows_of_pairs is None:
        commonest = (int(np.unique(seed, return_counts=True)[1].max()) for seed in by_seed.T)
        return len(by_seed) - min(commonest)
    # Ranks, since Spearman's correlation does not see changes of scores that keep their order.
    columns, others = rows_of_pairs
    moved = by_seed[:, columns] != ranks[name][against].to_numpy()[:, others]
    return int(moved.any(axis=1).sum())


def _summarize_resamples(values: np.ndarray, freedom: int) -> dict[str, object]:
    """Return `summarize` of the estimate and R resamples of each seed `(S, 1 + R)`."""
    # (S, R). A resample in which nothing varies is NaN: it counts as the mean of the seed's others.
    moves = values[:, 1:] - np.nanmean(values[:, 1:], axis=1, keepdims=True)
    # Resamples take the place of clusters; the variance over them is that over items.
    by_item, rest = _sums_of_squares(np.nan_to_num(moves)) / (moves.shape[1] - 1)
    spread = float(values[:, 0].var(ddof=1)) if len(values) > 1 else 0.0
    components = VarianceComponents(spread, by_item, rest, len(values), freedom)
    return summarize(values[:, 0], components)


def weighted_spearman(first: np.ndarray, second: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation `(R,)` of two columns `(n,)` in each of R bootstrap samples.

    `counts` `(R, n)` says how often each row is in each sample.
    """
    # (R, n): ranks in each sample, less their mean there.
    total = counts.sum(axis=1, keepdims=True)
    ranks = (_ranks(first, counts), _ranks(second, counts))
    a, b = (rank - (counts * rank).sum(axis=1, keepdims=True) / total for rank in ranks)
    # A sample in which a column does not vary gives 0 / 0, and so NaN.
    with np.errstate(divide="ignore", invalid="ignore"):
        return (counts * a * b).sum(axis=1) / np.sqrt(
            (counts * a * a).sum(axis=1) * (counts * b * b).sum(axis=1)
        )


def _ranks(column: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the rank of each row in each bootstrap sample `(R, n)`, up to a constant."""
    # The column is sorted only once: sums of `counts` in this order give the ranks of all samples.
    order = np.argsort(column, kind="stable")
    ordered = column[order]
    starts = np.flatnonzero(np.append(True, np.diff(ordered) != 0))
    groups = np.add.reduceat(counts[:, order], starts, axis=1)
    # (R, ties): equal values share the middle of the places that they take up in the sample.
    middle = np.cumsum(groups, axis=1) - groups / 2
    group_of = np.empty(len(column), dtype=int)
    group_of[order] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(column))))
    return middle[:, group_of]
