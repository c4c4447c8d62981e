"""Means, rank correlations and differences of them, with intervals over items and seeds.

Every estimate is a table with a row for each run, seed and item. Its variance has two sources of
chance, as every seed answers the same items. Correlations are no means: the bootstrap gives their
variance by items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.sparse.csgraph import connected_components
from scipy.stats import nct, t

from cae_lib.errors import DataError
from cae_lib.store import ITEM_KEY, WITHOUT_SEEDS

POWER = 0.8
CONFIDENCE = 0.95


@dataclass(frozen=True)
class VarianceComponents:
    """Where the variance of a mean comes from.

    Every seed answers the same items, so the value of an answer is the true one, plus what is
    particular to the seed, to the item, and to both; variances add up accordingly (crossed random
    effects; Clark, 1973; Cameron, Gelbach and Miller, 2011). With a single seed the test is about
    the items alone.

    Attributes:
        by_seed: Variance over seeds of a seed's mean; contains `rest`.
        by_item: Variance, due to the items, of the mean over seeds; contains `rest / n_seeds`.
        rest: Variance of one seed's mean that is particular to seed and item.
        n_seeds: Number of seeds.
        item_freedom: Degrees of freedom of `by_item`.
    """

    by_seed: float
    by_item: float
    rest: float
    n_seeds: int
    item_freedom: float

    def variance(self) -> float:
        """Return the variance of the mean."""
        n, seeds = self.n_seeds, np.maximum(0.0, self.by_seed - self.rest)  # `max` would drop a NaN
        return seeds / n + np.maximum(0.0, self.by_item - self.rest / n) + self.rest / n

    def freedom(self, expected: bool = False) -> float:
        """Return the degrees of freedom of `variance`.

        Satterthwaite's squared shares would give the few seeds too little weight: their variance
        enters as it is, with half of `rest` in it. By simulation (`speed/coverage.py`) that keeps
        the coverage of intervals of three seeds nearest to 95 %.

        Args:
            expected: Take the variances to be the true ones, not observed ones.
        """
        n, total, by_seed, by_item = self.n_seeds, self.variance(), self.by_seed, self.by_item
        if expected:
            by_seed = np.maximum(by_seed, self.rest)
            by_item = np.maximum(0.0, by_item - self.rest / n) + self.rest / n
        seeds = np.maximum(0.0, by_seed - self.rest / 2) / n
        spread = by_item**2 / self.item_freedom + (seeds * total / (n - 1) if n > 1 else 0.0)
        return total**2 / spread if spread else self.item_freedom


def crossed_mean(
    values: np.ndarray, strata: np.ndarray, weights: np.ndarray, clusters: np.ndarray
) -> tuple[np.ndarray, VarianceComponents]:
    """Return the weighted mean of each seed `(S,)`, and the components of its variance.

    Items that share an image count as one: their residuals are summed before they are squared, each
    sum divided by the root of the share of its group that is not its own (Bell and McCaffrey,
    2002). A group of one cluster takes the pooled variance of the others. Where no group has items
    of two images, nothing is known of their spread, and all components are NaN.

    Args:
        values: Value of each seed and item `(S, n)`.
        strata: Number of the group to average each item in `(n,)`.
        weights: Weight of each group's mean `(G,)`.
        clusters: Number of each item's image `(n,)`.
    """
    _, clusters = np.unique(clusters, return_inverse=True)
    n_groups, n_clusters, n_seeds = len(weights), int(clusters.max()) + 1, len(values)

    # The number of items of each group and cluster (G, C), and each seed's sum over them (S, G, C).
    cells, shape = strata * n_clusters + clusters, (n_groups, n_clusters)
    sizes = np.bincount(cells, minlength=n_groups * n_clusters).reshape(shape)
    sums = np.stack(
        [np.bincount(cells, row, n_groups * n_clusters).reshape(shape) for row in values]
    )
    totals = sizes.sum(axis=1)
    means = sums.sum(axis=2) / totals
    by_seed = means @ weights

    # Groups that share images have one common set of clusters: it loses one degree of freedom.
    freedom = n_clusters - connected_components(sizes @ sizes.T)[0]
    if not freedom:
        return by_seed, VarianceComponents(np.nan, np.nan, np.nan, n_seeds, np.nan)

    # What each cluster adds to its group's mean, corrected for having pulled that mean to itself.
    share = sizes / totals[:, None]
    scale = np.divide(1, np.sqrt(1 - share), out=np.zeros_like(share), where=share < 1)
    residuals = (sums - sizes * means[:, :, None]) / totals[None, :, None] * scale

    # A group of one cluster has a residual of 0: it gets the others' variance of one cluster.
    by_group = np.stack([_sums_of_squares(residuals[:, group]) for group in range(n_groups)])
    counts = (sizes > 0).sum(axis=1)
    pooled = (counts * (counts - 1)) @ by_group / (counts - 1).sum()

    total = _sums_of_squares(np.einsum("g,sgc->sc", weights, residuals))
    by_item, rest = total + (weights[counts == 1] ** 2).sum() * pooled
    spread = float(by_seed.var(ddof=1)) if n_seeds > 1 else 0.0
    return by_seed, VarianceComponents(spread, float(by_item), float(rest), n_seeds, int(freedom))


def _sums_of_squares(residuals: np.ndarray) -> np.ndarray:
    """Sum squares over clusters `(S, C)`: of the means over seeds, and of the rest, over S - 1."""
    means = residuals.mean(axis=0)
    rest = ((residuals - means) ** 2).sum() / max(1, len(residuals) - 1)
    return np.array([(means**2).sum(), rest])


def minimal_detectable_effect(components: VarianceComponents) -> float:
    """Return the smallest true difference that the test finds with probability `POWER`."""
    error, freedom = components.variance() ** 0.5, components.freedom(expected=True)
    if np.isnan(error):
        return np.nan
    critical = t.isf((1 - CONFIDENCE) / 2, freedom)
    highest = critical + 10.0 * (1 + critical / freedom)
    return error * brentq(lambda shift: nct.sf(critical, freedom, shift) - POWER, 0, highest)


def summarize(by_seed: np.ndarray, components: VarianceComponents) -> dict[str, object]:
    """Return estimate, interval, p-value of zero, and minimal detectable effect of one mean."""
    estimate, error = float(by_seed.mean()), components.variance() ** 0.5
    freedom = components.freedom()
    half_width = t.isf((1 - CONFIDENCE) / 2, freedom) * error
    p = 0.0 if estimate else 1.0  # where nothing varies
    if error:
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
    """Average a value, with its 95 % interval, in each group of `by`.

    Args:
        frame: One row for each seed and item of a group; needs `seed`, `items`, `cluster`, `value`.
        value: Column to average.
        items: Columns that together name an item.
        by: Columns whose combinations are averaged apart.
        weights: Weighted means to take, as `cae_lib.evaluation.averages.weights` gives them:
            columns `score`, `items`, `weight`, and `stratum`, the group that an item is averaged
            in. By default one mean over all items.
        cluster: Column that is equal where items share an image.

    Returns:
        The columns of `by`, `score` if there are weights, and `estimate`, `low`, `high`, `p` (of
        zero), `error`, `freedom`, `minimal_detectable_effect`, `n` items, `pictures`, `nonzero`
        (the number of images with another value than 0 with some seed; see `MIN_NONZERO`), `seeds`.
        Over a single image there is an estimate, and the interval is NaN.

    Raises:
        DataError: A column is missing or has missing values, an item has two images, or a seed or a
            score lacks items that the others have.
    """
    frame = frame.reset_index(drop=True)
    matrix = _ItemMatrix(frame, value, items, cluster, weights)
    rows = []
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
) -> pd.DataFrame:
    """Compute paired differences: each value of `key` minus another, on the same seeds and items.

    Args:
        frame: As for `mean_ci`.
        against: What is subtracted, such as "clip-ft"; or a mapping from each value of `key` to its
            own, where what it does not name is left out. Seeds are paired by their values. A single
            seed stands for each of several seeds, and so does a run without seeds of its own, such
            as "base".
        value: As for `mean_ci`.
        items: As for `mean_ci`.
        by: Columns whose combinations are compared apart.
        key: Column that tells the two sides apart.
        weights: As for `mean_ci`.
        cluster: As for `mean_ci`.

    Returns:
        As `mean_ci`, with the columns `key` and `against`; `estimate` is the difference.

    Raises:
        DataError: As `mean_ci`, or one side is not there, or the two sides do not have the same
            seeds and items (with `weights`: the same items of each score).
    """
    frame = frame.reset_index(drop=True)
    matrix = _ItemMatrix(frame, value, items, cluster, weights)
    rows = []
    groups = frame.groupby(list(by), sort=False, observed=True) if by else [((), frame)]
    for names, group in groups:
        sides = {
            name: matrix.side(rows_of_side, _label((*by, key), (*names, name)), str(name))
            for (name,), rows_of_side in group.groupby([key], sort=False, observed=True)
        }
        pairs = against if isinstance(against, Mapping) else dict.fromkeys(sides, against)
        for first, second in pairs.items():
            if first == second:
                continue
            if first not in sides or second not in sides:
                missing = second if first in sides else first
                raise DataError(
                    f"{_label(by, names)} {key}: no {missing!r} among {', '.join(map(str, sides))}"
                )
            matrix.require_same_items(sides[first], sides[second])
            differences = _subtract(sides[first], sides[second])
            columns = dict(zip(by, names, strict=True)) | {key: first, "against": second}
            rows += [columns | row for row in matrix.tests(differences)]
    return pd.DataFrame(rows)


def ratios(frame: pd.DataFrame, top: str, bottom: str, by: Sequence[str] = ("run",)) -> pd.Series:
    """Return values whose mean in each group of `by` is a ratio of two means.

    `mean_ci` and `contrasts` average them. Their spread is that of the ratio to first order (the
    delta method), which asks for a mean of `bottom` that is well away from zero.

    Args:
        frame: The values.
        top: Column such as what is left of a gap.
        bottom: Column such as the gap before.
        by: Columns whose combinations have a ratio each.
    """
    means = frame.groupby(list(by), observed=True)[[top, bottom]].transform("mean")
    ratio = means[top] / means[bottom]
    return ratio + (frame[top] - ratio * frame[bottom]) / means[bottom]


class _Side(NamedTuple):
    """Values of one run (or another value of `key`), one row for each of its seeds.

    Attributes:
        label: Its name in messages.
        run: Name of the run.
        seeds: Its seeds, ascending.
        values: `(S, N)`.
    """

    label: str
    run: str
    seeds: tuple[int, ...]
    values: np.ndarray


def _subtract(first: _Side, second: _Side) -> np.ndarray:
    """Return the differences on the same seeds; `contrasts` explains sides with a single seed."""
    counts = [len(side.seeds) for side in (first, second)]
    stands_for_all = max(counts) > 1 or any(
        side.run.startswith(WITHOUT_SEEDS) for side in (first, second)
    )
    if first.seeds != second.seeds and not (min(counts) == 1 and stands_for_all):
        sides = " against ".join(
            f"{side.label} with seeds {', '.join(map(str, side.seeds))}" for side in (first, second)
        )
        raise DataError(
            f"{sides}: differences are taken on the same seeds; measure those that one "
            "side lacks, or leave them out"
        )
    return first.values - second.values


def _label(columns: Iterable[str], values: Iterable[object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip(columns, values, strict=True))


class _Score(NamedTuple):
    """Items of a weighted mean: their numbers, the number of each one's stratum, and weights."""

    numbers: np.ndarray
    strata: np.ndarray
    weights: np.ndarray


class _ItemMatrix:
    """Items of a frame, numbered by first appearance, and tests of matrices of seeds by items."""

    def __init__(
        self,
        frame: pd.DataFrame,
        value: str,
        items: Sequence[str],
        cluster: str,
        weights: pd.DataFrame | None,
    ) -> None:
        missing = {"seed", value, cluster, *items} - set(frame.columns)
        if missing:
            raise DataError(f"no column {', '.join(sorted(missing))} among {list(frame.columns)}")
        if frame.empty:
            raise DataError("there are no rows to average")
        unknown = frame[["seed", cluster, *items]].isna()
        if unknown.any(axis=None):
            columns = dict.fromkeys(unknown.columns[unknown.any()])
            raise DataError(
                f"{int(unknown.any(axis=1).sum())} of {len(frame)} rows have no "
                f"{', '.join(columns)}: give every row one"
            )
        self.value, self.items = value, list(items)
        self.number = frame.groupby(self.items, sort=False, observed=True).ngroup()
        first = ~self.number.duplicated()
        self.names = frame.loc[first, self.items].assign(number=self.number[first].to_numpy())
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
        numbered = weights.merge(self.names, on=self.items, how="left", validate="many_to_one")
        unanswered = numbered[numbered["number"].isna()]
        if len(unanswered):
            row = unanswered.iloc[0]
            raise DataError(
                f"{row['score']}: no answer to item {[row[name] for name in self.items]}; "
                "measure the run again, or leave the score out"
            )
        return {
            name: _Score(
                rows["number"].to_numpy(int),
                pd.factorize(rows["stratum"])[0],
                rows.groupby("stratum", sort=False)["weight"].sum().to_numpy(),
            )
            for name, rows in numbered.groupby("score", sort=False)
        }

    def describe(self, numbers: np.ndarray) -> str:
        """Return the number of the given items and the names of the first few, as text."""
        names = self.names.set_index("number").loc[numbers].sort_values(self.items)
        few = [" ".join(map(str, row)) for row in names.head(3).itertuples(index=False)]
        more = ", ..." if len(names) > len(few) else ""
        return f"{len(names)} item{'s' * (len(names) > 1)} ({', '.join(few)}{more})"

    def side(self, group: pd.DataFrame, label: str, run: str = "") -> _Side:
        """Return the values of one group `(S, N)`; items that it does not have are NaN."""
        seeds, row = np.unique(group["seed"], return_inverse=True)
        number = self.number.loc[group.index].to_numpy()
        unknown = np.unique(number[group[self.value].isna()])
        if len(unknown):
            raise DataError(
                f"{label}: no value of {self.value} at {self.describe(unknown)}; measure the "
                "run again, or leave these items out on both sides"
            )
        if np.bincount(row * len(self.names) + number).max() > 1:
            raise DataError(f"{label}: an item occurs twice; name more columns in `by` or `items`")
        matrix = np.full((len(seeds), len(self.names)), np.nan)
        matrix[row, number] = group[self.value].to_numpy(np.float64)
        partial = np.isnan(matrix).any(axis=0) & ~np.isnan(matrix).all(axis=0)
        if partial.any():
            items = self.describe(np.flatnonzero(partial))
            raise DataError(f"{label}: not answered by every seed: {items}")
        return _Side(label, run, tuple(seeds.tolist()), matrix)

    def require_same_items(self, first: _Side, second: _Side) -> None:
        """Raise a DataError if one side has items that the other lacks.

        Where items belong to weighted scores, nothing is checked here: `tests` checks each score.
        """
        if self.scores is not None:
            return
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
        """Test each score, and return one row for each."""
        if self.scores is None:
            answered = np.flatnonzero(~np.isnan(matrix[0]))
            score = _Score(answered, np.zeros(len(answered), int), np.ones(1))
            return [self._test(matrix, score)]
        return [{"score": name} | self._test(matrix, score) for name, score in self.scores.items()]

    def _test(self, matrix: np.ndarray, score: _Score) -> dict[str, object]:
        values, clusters = matrix[:, score.numbers], self.clusters[score.numbers]
        if np.isnan(values).any():
            raise DataError("a score has items that were not answered: measure the run again")
        nonzero = np.unique(clusters[(values != 0).any(axis=0)])
        return summarize(*crossed_mean(values, score.strata, score.weights, clusters)) | {
            "n": len(score.numbers),
            "pictures": len(np.unique(clusters)),
            "nonzero": len(nonzero),
            "seeds": len(matrix),
        }


def correlations(
    frame: pd.DataFrame, against: str | None = None, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Compute Spearman's correlation of `score` with `gold` on each set, or its differences.

    Args:
        frame: Table `similarity`: run, seed, set, pair, gold, score.
        against: The run that is subtracted from each other one; seeds are paired as in `contrasts`.
        resamples: Number of bootstrap samples of the pairs, shared by all runs. They give the
            variance by pairs; that by seeds adds up as in `VarianceComponents`.
        seed: Seed that draws the samples.

    Returns:
        `set`, `run`, the columns of `summarize`, `n` pairs, `nonzero`, `seeds`; and for each run
        the mean over the sets, with the set named "mean" if there are several. `nonzero` counts
        pairs that can move the value: those that the two runs rank differently with some seed, and
        without `against` those whose score is not the commonest one.

    Raises:
        DataError: Runs do not share pairs, a pair has two values of `gold`, sets do not have the
            same runs and seeds, the seeds of two runs are no pairs, or `against` is not there.
    """
    generator = np.random.default_rng(seed)
    sides: dict[str, dict[str, _Side]] = {}
    sizes: dict[str, int] = {}
    ranks: dict[str, pd.DataFrame] = {}
    for name, rows in frame.groupby("set", sort=False, observed=True):
        scores, gold = _scores_by_pair(str(name), rows)
        n = sizes[name] = len(gold)
        counts = generator.multinomial(n, np.full(n, 1 / n), size=resamples)
        counts = np.concatenate([np.ones((1, n), dtype=counts.dtype), counts])
        ranks[name] = scores.rank()
        sides[name] = {}
        for run in scores.columns.unique("run"):
            columns = scores[run].to_numpy().T
            values = np.stack([weighted_spearman(column, gold, counts) for column in columns])
            sides[name][run] = _Side(f"run {run}", str(run), tuple(scores[run]), values)
    runs = list(next(iter(sides.values())))
    seeds = [{run: side.seeds for run, side in by_run.items()} for by_run in sides.values()]
    if any(seeds_of_set != seeds[0] for seeds_of_set in seeds):
        raise DataError(
            "the sets do not have the same runs and seeds: measure those that are not "
            "there, or leave them out"
        )
    if len(sides) > 1:
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
            side = by_run[run]
            values = _subtract(side, by_run[against]) if against else side.values
            columns = {
                "n": sizes[name],
                "nonzero": _count_movable_pairs(ranks, name, run, against),
                "seeds": len(values),
            }
            summary = _summarize_resamples(values, sizes[name] - 1)
            table.append({"set": name, "run": run} | summary | columns)
    return pd.DataFrame(table)


def _scores_by_pair(name: str, rows: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the scores of a set by pair, run and seed, and the human ones `(n,)`."""
    scores = rows.pivot(index="pair", columns=["run", "seed"], values="score")
    if scores.isna().any().any():
        raise DataError(f"set {name}: the runs do not share their pairs, or scores are missing")
    if (rows.groupby("pair", observed=True)["gold"].nunique(dropna=False) > 1).any():
        raise DataError(f"set {name}: a pair has more than one value of gold")
    gold = rows.drop_duplicates("pair").set_index("pair")["gold"]
    return scores, gold.reindex(scores.index).to_numpy()


def _count_movable_pairs(
    ranks: Mapping[str, pd.DataFrame], name: str, run: str, against: str | None
) -> int:
    """Count `nonzero` of `correlations`, from ranks by run and seed; "mean" adds up the sets."""
    if name not in ranks:
        return sum(_count_movable_pairs(ranks, subset, run, against) for subset in ranks)
    by_seed = ranks[name][run].to_numpy()
    if against is None:
        commonest = (int(np.unique(seed, return_counts=True)[1].max()) for seed in by_seed.T)
        return len(by_seed) - min(commonest)
    return int((by_seed != ranks[name][against].to_numpy()).any(axis=1).sum())


def _summarize_resamples(values: np.ndarray, freedom: int) -> dict[str, object]:
    """Return `summarize` of values by seed `(S, 1 + R)`: one as it is, and R bootstrap samples."""
    moves = values[:, 1:] - np.nanmean(values[:, 1:], axis=1, keepdims=True)
    by_item, rest = _sums_of_squares(np.nan_to_num(moves)) / (moves.shape[1] - 1)
    spread = float(values[:, 0].var(ddof=1)) if len(values) > 1 else 0.0
    components = VarianceComponents(spread, by_item, rest, len(values), freedom)
    return summarize(values[:, 0], components)


def weighted_spearman(first: np.ndarray, second: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Compute Spearman's correlation `(R,)` of two columns `(n,)` in bootstrap samples.

    Ties share their mean rank; NaN stands where nothing varies.

    Args:
        first: Column `(n,)`.
        second: Column `(n,)`.
        counts: How often each pair occurs in each sample `(R, n)`.
    """
    total = counts.sum(axis=1, keepdims=True)
    ranks = (_ranks(first, counts), _ranks(second, counts))
    a, b = (rank - (counts * rank).sum(axis=1, keepdims=True) / total for rank in ranks)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (counts * a * b).sum(axis=1) / np.sqrt(
            (counts * a * a).sum(axis=1) * (counts * b * b).sum(axis=1)
        )


def _ranks(column: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return mean ranks `(R, n)`, from sums of counts in the order of the column, sorted once."""
    order = np.argsort(column, kind="stable")
    ordered = column[order]
    starts = np.flatnonzero(np.append(True, np.diff(ordered) != 0))
    groups = np.add.reduceat(counts[:, order], starts, axis=1)
    middle = np.cumsum(groups, axis=1) - groups / 2
    group_of = np.empty(len(column), dtype=int)
    group_of[order] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(column))))
    return middle[:, group_of]
