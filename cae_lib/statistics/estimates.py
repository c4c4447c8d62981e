"""Means, rank correlations, and differences of them, from tables with a row for each run, seed and
item. Of correlations, which are no means, the bootstrap gives the variance by items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from cae_lib.errors import DataError
from cae_lib.statistics.crossed import Components, crossed, squares, summary
from cae_lib.store import ANSWERS, WITHOUT_SEEDS


def levels(
    frame: pd.DataFrame,
    value: str = "correct",
    items: Sequence[str] = ANSWERS,
    by: Sequence[str] = ("run",),
    weights: pd.DataFrame | None = None,
    cluster: str = "picture",
) -> pd.DataFrame:
    """The mean of a value with its 95 % interval, for each group of `by`.

    Args:
        frame: One row for each seed and item of a group; needs `seed`, `items`, `cluster`, `value`.
        value: Column to average.
        items: Columns that together name an item.
        by: Columns whose combinations are averaged apart.
        weights: Weighted means to take, as `cae_lib.evaluation.averages.weights` gives them:
            columns `score`, `items`, `weight`, and `stratum`, the group that an item is averaged
            in. By default one mean over all items.
        cluster: Column that is equal where items share a picture.

    The columns of `by`, `score` if there are weights, and `estimate`, `low`, `high`, `p` (of zero),
    `error`, `freedom`, `smallest` (see `detectable`), `n` items, `pictures`, `nonzero` (how many of
    them have another value than 0 with some seed; see `FEWEST`), `seeds`. Over a single picture
    there is an estimate, and the interval is NaN. DataError if a column is missing or has missing
    values, an item has two pictures, or a seed or a score lacks items that the others have.
    """
    frame = frame.reset_index(drop=True)
    table = _Table(frame, value, items, cluster, weights)
    rows = []
    for names, group in frame.groupby(list(by), sort=False, observed=True):
        values = table.side(group, _named(by, names)).values
        rows += [dict(zip(by, names, strict=True)) | row for row in table.tests(values)]
    return pd.DataFrame(rows)


def contrasts(
    frame: pd.DataFrame,
    against: str | Mapping[str, str],
    value: str = "correct",
    items: Sequence[str] = ANSWERS,
    by: Sequence[str] = (),
    key: str = "run",
    weights: pd.DataFrame | None = None,
    cluster: str = "picture",
) -> pd.DataFrame:
    """Paired differences: each value of `key` minus another one, on the same seeds and items.

    Args:
        frame, value, items, weights, cluster: As for `levels`.
        against: What is subtracted, such as "clip-ft"; or for each value of `key` its own, and what
            is not named there is left out. Seeds are paired by their values. A single seed stands
            for each of several seeds, and so does a run without seeds of its own, such as "base".
        by: Columns whose combinations are compared apart.
        key: Column that tells the two sides.

    As `levels`, with the columns `key` and `against`; `estimate` is the difference. DataError as
    `levels`, or if one side is not there, or the two sides do not have the same seeds and items
    (with `weights`: the same items of each score).
    """
    frame = frame.reset_index(drop=True)
    table = _Table(frame, value, items, cluster, weights)
    rows = []
    groups = frame.groupby(list(by), sort=False, observed=True) if by else [((), frame)]
    for names, group in groups:
        sides = {
            side: table.side(rows_of, _named((*by, key), (*names, side)), str(side))
            for (side,), rows_of in group.groupby([key], sort=False, observed=True)
        }
        pairs = against if isinstance(against, Mapping) else dict.fromkeys(sides, against)
        for side, other in pairs.items():
            if side == other:
                continue
            if side not in sides or other not in sides:
                absent = other if side in sides else side
                raise DataError(
                    f"{_named(by, names)} {key}: no {absent!r} among {', '.join(map(str, sides))}"
                )
            sides_of = dict(zip(by, names, strict=True)) | {key: side, "against": other}
            table.check_items(sides[side], sides[other])
            rows += [sides_of | row for row in table.tests(_minus(sides[side], sides[other]))]
    return pd.DataFrame(rows)


class _Side(NamedTuple):
    """Values of one run (or another value of `key`), one row for each of its seeds."""

    label: str  # names it in messages
    run: str
    seeds: tuple[int, ...]  # ascending
    values: np.ndarray  # (S, N)


def _minus(first: _Side, second: _Side) -> np.ndarray:
    """The difference on the same seeds; see `contrasts` for what has a single seed."""
    counts = [len(side.seeds) for side in (first, second)]
    stands_for_all = max(counts) > 1 or any(
        side.run.startswith(WITHOUT_SEEDS) for side in (first, second)
    )
    if first.seeds != second.seeds and not (min(counts) == 1 and stands_for_all):
        told = " against ".join(
            f"{side.label} with seeds {', '.join(map(str, side.seeds))}" for side in (first, second)
        )
        raise DataError(
            f"{told}: differences are taken on the same seeds; measure those that one "
            "side lacks, or leave them out"
        )
    return first.values - second.values


def _named(columns: Iterable[str], values: Iterable[object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip(columns, values, strict=True))


class _Table:
    """Numbers the items of a frame, and tests matrices of seeds by items."""

    def __init__(
        self,
        frame: pd.DataFrame,
        value: str,
        items: Sequence[str],
        cluster: str,
        weights: pd.DataFrame | None,
    ) -> None:
        absent = {"seed", value, cluster, *items} - set(frame.columns)
        if absent or frame.empty:
            raise DataError(
                f"no column {', '.join(sorted(absent))} among {list(frame.columns)}"
                if absent
                else "there are no rows to average"
            )
        self.value, self.items = value, list(items)
        names = ["seed", cluster, *items]
        lost = frame[names].isna()
        if lost.any(axis=None):
            absent = dict.fromkeys(lost.columns[lost.any()])
            raise DataError(
                f"{int(lost.any(axis=1).sum())} of {len(frame)} rows have no "
                f"{', '.join(absent)}: give every row one"
            )
        # the number of an item is its place in order of first appearance, here and in `answered`
        self.number = frame.groupby(self.items, sort=False, observed=True).ngroup()
        first = ~self.number.duplicated()
        self.answered = frame.loc[first, self.items].assign(number=self.number[first].to_numpy())
        pictures = pd.factorize(frame[cluster])[0]
        self.clusters = pictures[first]
        two = np.unique(self.number[self.clusters[self.number] != pictures])
        if len(two):
            raise DataError(
                f"{self.told(two)} with more than one {cluster}: name more columns in "
                "`items`, so that each row of a name is of the same item"
            )
        self.scores = None if weights is None else self._scores(weights)

    def _scores(self, weights: pd.DataFrame) -> dict[str, tuple[np.ndarray, ...]]:
        numbered = weights.merge(self.answered, on=self.items, how="left", validate="many_to_one")
        if numbered["number"].isna().any():
            lost = numbered[numbered["number"].isna()].iloc[0]
            raise DataError(
                f"{lost['score']}: no answer to item {[lost[n] for n in self.items]}; "
                "measure the run again, or leave the score out"
            )
        return {
            name: (
                own["number"].to_numpy(int),
                pd.factorize(own["stratum"])[0],
                own.groupby("stratum", sort=False)["weight"].sum().to_numpy(),
            )
            for name, own in numbered.groupby("score", sort=False)
        }

    def told(self, numbers: np.ndarray) -> str:
        """Some items in words: how many they are, and the names of the first few."""
        names = self.answered.set_index("number").loc[numbers].sort_values(self.items)
        few = [" ".join(map(str, row)) for row in names.head(3).itertuples(index=False)]
        more = ", ..." if len(names) > len(few) else ""
        return f"{len(names)} item{'s' * (len(names) > 1)} ({', '.join(few)}{more})"

    def side(self, group: pd.DataFrame, told: str, run: str = "") -> _Side:
        """Values `(S, N)` of one group, NaN where it has no such item."""
        seeds, row = np.unique(group["seed"], return_inverse=True)
        number = self.number.loc[group.index].to_numpy()
        lost = np.unique(number[group[self.value].isna()])
        if len(lost):
            raise DataError(
                f"{told}: no value of {self.value} at {self.told(lost)}; measure the "
                "run again, or leave these items out on both sides"
            )
        if np.bincount(row * len(self.answered) + number).max() > 1:
            raise DataError(f"{told}: an item occurs twice; name more columns in `by` or `items`")
        matrix = np.full((len(seeds), len(self.answered)), np.nan)
        matrix[row, number] = group[self.value].to_numpy(np.float64)
        partial = np.isnan(matrix).any(axis=0) & ~np.isnan(matrix).all(axis=0)
        if partial.any():
            raise DataError(
                f"{told}: not answered by every seed: {self.told(np.flatnonzero(partial))}"
            )
        return _Side(told, run, tuple(seeds.tolist()), matrix)

    def check_items(self, first: _Side, second: _Side) -> None:
        """Refuse items that one side lacks. Of scores, `_test` looks at the items of each."""
        there = [~np.isnan(side.values[0]) for side in (first, second)]
        if self.scores is None and (there[0] != there[1]).any():
            lost = [
                f"{self.told(np.flatnonzero(own & ~other))} of {side.label} alone"
                for side, own, other in ((first, *there), (second, *there[::-1]))
                if (own & ~other).any()
            ]
            raise DataError(
                f"{'; '.join(lost)}: leave out the items that one side lacks, or measure them"
            )

    def tests(self, matrix: np.ndarray) -> list[dict[str, object]]:
        """One row for each score."""
        if self.scores is None:
            there = np.flatnonzero(~np.isnan(matrix[0]))
            return [self._test(matrix, there, np.zeros(len(there), int), np.ones(1))]
        return [{"score": name} | self._test(matrix, *score) for name, score in self.scores.items()]

    def _test(
        self, matrix: np.ndarray, rows: np.ndarray, strata: np.ndarray, weights: np.ndarray
    ) -> dict[str, object]:
        values, clusters = matrix[:, rows], self.clusters[rows]
        if np.isnan(values).any():
            raise DataError("a score has items that were not answered: measure the run again")
        nonzero = np.unique(clusters[(values != 0).any(axis=0)])
        return summary(*crossed(values, strata, weights, clusters)) | {
            "n": len(rows),
            "pictures": len(np.unique(clusters)),
            "nonzero": len(nonzero),
            "seeds": len(matrix),
        }


def ratios(frame: pd.DataFrame, top: str, bottom: str, by: Sequence[str] = ("run",)) -> pd.Series:
    """Values whose mean in each group of `by` is a ratio of two means, for `levels`, `contrasts`:
    of the columns `top`, such as what is left of a gap, and `bottom`, the gap before. Their spread
    is that of the ratio to first order (the delta method), which asks for a mean of `bottom` that
    is well away from zero."""
    means = frame.groupby(list(by), observed=True)[[top, bottom]].transform("mean")
    share = means[top] / means[bottom]
    return share + (frame[top] - share * frame[bottom]) / means[bottom]


def correlations(
    frame: pd.DataFrame, against: str | None = None, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Spearman's correlation of `score` with `gold` on each set, or its difference to `against`.

    Args:
        frame: Table `similarity`: run, seed, set, pair, gold, score.
        against: The run that is subtracted from each other one.
        resamples, seed: Bootstrap samples of the pairs, shared by all runs, and the seed that draws
            them. They give the variance by pairs; that by seeds adds up as in `Components`.

    `set`, `run`, what `summary` gives, `n` pairs, `seeds`; and for each run the mean over the sets,
    with the set named "mean" if there are several. `nonzero` counts pairs that can move the value:
    those that the two runs rank differently with some seed, and without `against` those whose
    score is not the commonest one. Seeds are paired as in `contrasts`. DataError if
    runs do not share pairs, a pair has two values of `gold`, sets do not have the same runs and
    seeds, the seeds of two runs are no pairs, or `against` is not there.
    """
    generator = np.random.default_rng(seed)
    draws: dict[str, dict[str, _Side]] = {}
    sizes: dict[str, int] = {}
    ranks: dict[str, pd.DataFrame] = {}
    for name, part in frame.groupby("set", sort=False, observed=True):
        wide = part.pivot(index="pair", columns=["run", "seed"], values="score")
        if wide.isna().any().any():
            raise DataError(f"set {name}: the runs do not share their pairs, or scores are missing")
        if (part.groupby("pair", observed=True)["gold"].nunique(dropna=False) > 1).any():
            raise DataError(f"set {name}: a pair has more than one value of gold")
        gold = part.drop_duplicates("pair").set_index("pair")["gold"].reindex(wide.index).to_numpy()
        n = sizes[name] = len(gold)
        counts = generator.multinomial(n, np.full(n, 1 / n), size=resamples)
        counts = np.concatenate([np.ones((1, n), dtype=counts.dtype), counts])
        ranks[name] = wide.rank()
        draws[name] = {
            run: _Side(
                f"run {run}",
                str(run),
                tuple(wide[run]),
                np.stack(
                    [weighted_spearman(column, gold, counts) for column in wide[run].to_numpy().T]
                ),
            )
            for run in wide.columns.unique("run")
        }
    runs = list(next(iter(draws.values())))
    seeds = [{run: side.seeds for run, side in own.items()} for own in draws.values()]
    if any(own != seeds[0] for own in seeds):
        raise DataError(
            "the sets do not have the same runs and seeds: measure those that are not "
            "there, or leave them out"
        )
    if len(draws) > 1:
        draws["mean"] = {
            run: side._replace(values=np.mean([own[run].values for own in draws.values()], axis=0))
            for run, side in next(iter(draws.values())).items()
        }
        sizes["mean"] = sum(sizes.values())
    if against is not None and against not in runs:
        raise DataError(f"no run {against!r} among {', '.join(runs)}")
    rows = []
    for name, own in draws.items():
        for run in (run for run in runs if run != against):
            values = _minus(own[run], own[against]) if against else own[run].values
            rows.append(
                {"set": name, "run": run}
                | _resampled(values, sizes[name] - 1)
                | {
                    "n": sizes[name],
                    "nonzero": _moving(ranks, name, run, against),
                    "seeds": len(values),
                }
            )
    return pd.DataFrame(rows)


def _moving(ranks: Mapping[str, pd.DataFrame], name: str, run: str, against: str | None) -> int:
    """`nonzero` of `correlations`, from ranks of pairs by run and seed; "mean" adds up the sets."""
    if name not in ranks:
        return sum(_moving(ranks, part, run, against) for part in ranks)
    own = ranks[name][run].to_numpy()
    if against is None:
        return max(len(own) - int(np.unique(seed, return_counts=True)[1].max()) for seed in own.T)
    return int((own != ranks[name][against].to_numpy()).any(axis=1).sum())


def _resampled(values: np.ndarray, freedom: int) -> dict[str, object]:
    """`summary` of a number of each seed `(S, 1 + R)`: as it is, and in R bootstrap samples."""
    moves = values[:, 1:] - np.nanmean(values[:, 1:], axis=1, keepdims=True)
    by_item, rest = squares(np.nan_to_num(moves)) / (moves.shape[1] - 1)
    spread = float(values[:, 0].var(ddof=1)) if len(values) > 1 else 0.0
    return summary(values[:, 0], Components(spread, by_item, rest, len(values), freedom))


def weighted_spearman(first: np.ndarray, second: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Spearman's correlation `(R,)` of two columns `(n,)`, with pair i occurring `counts[:, i]`
    times `(R, n)`; ties share their mean rank, and NaN stands where nothing varies."""
    total = counts.sum(axis=1, keepdims=True)
    ranks = (_ranks(first, counts), _ranks(second, counts))
    a, b = (rank - (counts * rank).sum(axis=1, keepdims=True) / total for rank in ranks)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (counts * a * b).sum(axis=1) / np.sqrt(
            (counts * a * a).sum(axis=1) * (counts * b * b).sum(axis=1)
        )


def _ranks(column: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean ranks `(R, n)`, from sums of counts in the order of the column, without sorting anew."""
    order = np.argsort(column, kind="stable")
    ordered = column[order]
    starts = np.flatnonzero(np.append(True, np.diff(ordered) != 0))
    groups = np.add.reduceat(counts[:, order], starts, axis=1)
    middle = np.cumsum(groups, axis=1) - groups / 2
    place = np.empty(len(column), dtype=int)
    place[order] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(column))))
    return middle[:, place]
