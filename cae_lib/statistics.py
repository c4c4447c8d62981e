"""One test for every mean and every difference, with two sources of chance: items and seeds, see
`Components` and `crossed`; of correlations, which are no means, the bootstrap gives the variance by
items. `words` and `verdict` say what the intervals mean for a claim."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.sparse.csgraph import connected_components
from scipy.stats import nct, t
from statsmodels.stats.multitest import multipletests

from cae_lib.errors import DataError

POWER = 0.8
LEVEL = 0.95
ANSWERS = ("family", "subset", "item")
"""What names an item of the choice benchmarks."""

WORDS = ("contradicted", "undecided", "negligible", "supported")
"""What a method says of a claim; of one with several parts, such as two roles, the first of these
words that a part says."""

UNTESTED, UNDECIDABLE = "not tested", "not decidable here"
ENOUGH = 0.75
"""Share of the methods that have to say a word."""


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

    def variance(self, n_seeds: int | None = None) -> float:
        """Variance of the mean, for another number of seeds if one is given."""
        n = n_seeds or self.n_seeds
        seeds = np.maximum(0.0, self.by_seed - self.rest)
        items = np.maximum(0.0, self.by_item - self.rest / self.n_seeds)
        return seeds / n + items + self.rest / n

    def freedom(self, n_seeds: int | None = None) -> float:
        """Degrees of freedom of `variance`: from the variances as observed, or with `n_seeds` those
        to expect if they are the true ones. Satterthwaite's squared shares would give the few seeds
        too little weight: theirs enters as it is, with half of `rest` in it. By simulation
        (`benchmarks/coverage.py`) that holds the intervals of three seeds nearest to 95 %."""
        n = n_seeds or self.n_seeds
        total, by_seed, by_item = self.variance(n_seeds), self.by_seed, self.by_item
        if n_seeds is not None:
            by_seed = np.maximum(by_seed, self.rest)
            by_item = np.maximum(0.0, by_item - self.rest / self.n_seeds) + self.rest / n
        seeds = np.maximum(0.0, by_seed - self.rest / 2) / n
        spread = by_item**2 / self.item_freedom + (seeds * total / (n - 1) if n > 1 else 0.0)
        return total**2 / spread if spread else self.item_freedom


def crossed(values: np.ndarray, strata: np.ndarray, weights: np.ndarray,
            clusters: np.ndarray) -> tuple[np.ndarray, Components]:
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
    sums = np.stack([np.bincount(flat, row, n_groups * n_clusters).reshape(shape)
                     for row in values])
    totals = sizes.sum(axis=1)
    means = sums.sum(axis=2) / totals
    by_seed = means @ weights
    freedom = n_clusters - connected_components(sizes @ sizes.T)[0]
    if not freedom:
        return by_seed, Components(np.nan, np.nan, np.nan, n_seeds, np.nan)
    share = sizes / totals[:, None]
    scale = np.divide(1, np.sqrt(1 - share), out=np.zeros_like(share), where=share < 1)
    moves = (sums - sizes * means[:, :, None]) / totals[None, :, None] * scale
    squares = np.stack([_squares(moves[:, group]) for group in range(n_groups)])
    counts = (sizes > 0).sum(axis=1)
    lone = (counts * (counts - 1)) @ squares / (counts - 1).sum()
    total = _squares(np.einsum("g,sgc->sc", weights, moves))
    by_item, rest = total + (weights[counts == 1] ** 2).sum() * lone
    spread = float(by_seed.var(ddof=1)) if n_seeds > 1 else 0.0
    return by_seed, Components(spread, float(by_item), float(rest), n_seeds, int(freedom))


def _squares(moves: np.ndarray) -> np.ndarray:
    """Sums over clusters `(S, C)` of squares: of means over seeds, of what these leave by S - 1."""
    means = moves.mean(axis=0)
    return np.array([(means**2).sum(), ((moves - means) ** 2).sum() / max(1, len(moves) - 1)])


def detectable(components: Components, n_seeds: int | None = None, level: float = LEVEL) -> float:
    """The smallest true difference that the two-sided test of confidence `level` finds with a
    probability of `POWER`, with `n_seeds` of a plan, by default those that there are."""
    error = components.variance(n_seeds) ** 0.5
    freedom = components.freedom(n_seeds or components.n_seeds)
    if np.isnan(error):
        return np.nan
    critical = t.isf((1 - level) / 2, freedom)
    highest = critical + 10.0 * (1 + critical / freedom)
    return error * brentq(lambda shift: nct.sf(critical, freedom, shift) - POWER, 0, highest)


def levels(
    frame: pd.DataFrame, value: str = "correct", items: Sequence[str] = ANSWERS,
    by: Sequence[str] = ("run",), weights: pd.DataFrame | None = None, cluster: str = "picture",
) -> pd.DataFrame:
    """The mean of a value with its 95 % interval, for each group of `by`.

    Args:
        frame: One row for each seed and item of a group; needs `seed`, `items`, `cluster`, `value`.
        value: Column to average.
        items: Columns that together name an item.
        by: Columns whose combinations are averaged apart.
        weights: Weighted means to take, as `cae_lib.evaluation.scores.weights` gives them: columns
            `score`, `items`, `weight`, and `stratum`, the group that an item is averaged in. By
            default one mean over all items.
        cluster: Column that is equal where items share a picture.

    The columns of `by`, `score` if there are weights, and `estimate`, `low`, `high`, `p` (of zero),
    `error`, `freedom`, `smallest` (see `detectable`), `n` items, `pictures`, `seeds`. Over a single
    picture there is an estimate and nothing else: the rest is NaN. DataError if a column is
    missing, or a seed or a score lacks items that the others have.
    """
    frame = frame.reset_index(drop=True)
    table = _Table(frame, value, items, cluster, weights)
    rows = []
    for names, part in frame.groupby(list(by), sort=False, observed=True):
        matrix = table.matrix(part, _told(by, names))
        rows += [dict(zip(by, names, strict=True)) | row for row in table.tests(matrix)]
    return pd.DataFrame(rows)


def contrasts(
    frame: pd.DataFrame, against: str | Mapping[str, str], value: str = "correct",
    items: Sequence[str] = ANSWERS, by: Sequence[str] = (), key: str = "run",
    weights: pd.DataFrame | None = None, cluster: str = "picture",
) -> pd.DataFrame:
    """Paired differences: each value of `key` minus another one, on the same seeds and items.

    Args:
        frame, value, items, weights, cluster: As for `levels`. Items of one side do not count.
        against: What is subtracted, such as "clip-ft"; or for each value of `key` its own, and what
            is not named there is left out. One with a single seed stands for every seed.
        by: Columns whose combinations are compared apart.
        key: Column that tells the two sides.

    As `levels`, with the columns `key` and `against`; `estimate` is the difference. DataError as
    `levels`, or if one side is not there, or the numbers of seeds differ.
    """
    frame = frame.reset_index(drop=True)
    table = _Table(frame, value, items, cluster, weights)
    rows = []
    groups = frame.groupby(list(by), sort=False, observed=True) if by else [((), frame)]
    for names, part in groups:
        sides = {side: table.matrix(rest, _told((*by, key), (*names, side)))
                 for (side,), rest in part.groupby([key], sort=False, observed=True)}
        pairs = against if isinstance(against, Mapping) else dict.fromkeys(sides, against)
        for side, other in pairs.items():
            if side == other:
                continue
            if side not in sides or other not in sides:
                absent = other if side in sides else side
                raise DataError(f"{_told(by, names)} {key}: no {absent!r} among "
                                f"{', '.join(map(str, sides))}")
            known = dict(zip(by, names, strict=True)) | {key: side, "against": other}
            rows += [known | row for row in table.tests(_minus(sides[side], sides[other]))]
    return pd.DataFrame(rows)


def _minus(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    if len(first) != len(second) and 1 not in (len(first), len(second)):
        raise DataError(f"{len(first)} seeds against {len(second)}: take the same number of each")
    return first - second


def _told(columns: Iterable[str], values: Iterable[object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip(columns, values, strict=True))


class _Table:
    """Numbers the items of a frame, and tests matrices of seeds by items."""

    def __init__(self, frame: pd.DataFrame, value: str, items: Sequence[str], cluster: str,
                 weights: pd.DataFrame | None) -> None:
        absent = {"seed", value, cluster, *items} - set(frame.columns)
        if absent or frame.empty:
            raise DataError(f"no column {', '.join(sorted(absent))} among {list(frame.columns)}"
                            if absent else "there are no rows to average")
        self.value, self.items = value, list(items)
        self.number = frame.groupby(self.items, sort=False, observed=True).ngroup()
        first = ~self.number.duplicated()
        self.known = frame.loc[first, self.items].assign(number=self.number[first].to_numpy())
        self.clusters = np.empty(len(self.known), dtype=np.int64)
        self.clusters[self.known["number"]] = pd.factorize(frame.loc[first, cluster])[0]
        self.scores = None if weights is None else self._scores(weights)

    def _scores(self, weights: pd.DataFrame) -> dict[str, tuple[np.ndarray, ...]]:
        found = weights.merge(self.known, on=self.items, how="left", validate="many_to_one")
        if found["number"].isna().any():
            lost = found[found["number"].isna()].iloc[0]
            raise DataError(f"{lost['score']}: no answer to item {[lost[n] for n in self.items]}; "
                            "measure the run again, or leave the score out")
        return {
            name: (part["number"].to_numpy(int), pd.factorize(part["stratum"])[0],
                   part.groupby("stratum", sort=False)["weight"].sum().to_numpy())
            for name, part in found.groupby("score", sort=False)
        }

    def matrix(self, part: pd.DataFrame, told: str) -> np.ndarray:
        """Values `(S, N)` of one group, NaN where it has no such item."""
        seeds, row = np.unique(part["seed"], return_inverse=True)
        number = self.number.loc[part.index].to_numpy()
        count = np.bincount(row * len(self.known) + number)
        if count.max() > 1:
            raise DataError(f"{told}: an item occurs twice; name more columns in `by` or `items`")
        matrix = np.full((len(seeds), len(self.known)), np.nan)
        matrix[row, number] = part[self.value].to_numpy(np.float64)
        partial = np.isnan(matrix).any(axis=0) & ~np.isnan(matrix).all(axis=0)
        if partial.any():
            raise DataError(f"{told}: {partial.sum()} items are not answered by every seed")
        return matrix

    def tests(self, matrix: np.ndarray) -> list[dict[str, object]]:
        """One row for each score."""
        if self.scores is None:
            there = np.flatnonzero(~np.isnan(matrix[0]))
            if not len(there):
                raise DataError("the two sides have no item in common")
            return [self._test(matrix, there, np.zeros(len(there), int), np.ones(1))]
        return [{"score": name} | self._test(matrix, *score) for name, score in self.scores.items()]

    def _test(self, matrix: np.ndarray, rows: np.ndarray, strata: np.ndarray,
              weights: np.ndarray) -> dict[str, object]:
        values, clusters = matrix[:, rows], self.clusters[rows]
        if np.isnan(values).any():
            raise DataError("a score has items that were not answered: measure the run again")
        return summary(*crossed(values, strata, weights, clusters)) | {
            "n": len(rows), "pictures": len(np.unique(clusters)), "seeds": len(matrix)}


def summary(by_seed: np.ndarray, components: Components) -> dict[str, object]:
    """Estimate, interval, p-value of zero, and what could have been found, of one mean."""
    estimate, error = float(by_seed.mean()), components.variance() ** 0.5
    freedom = components.freedom()
    reach = t.isf((1 - LEVEL) / 2, freedom) * error
    p = float(2 * t.sf(abs(estimate) / error, freedom)) if error else float(not estimate)
    return {"estimate": estimate, "low": estimate - reach, "high": estimate + reach, "p": p,
            "error": error, "freedom": freedom, "smallest": detectable(components)}


def ratios(frame: pd.DataFrame, top: str, bottom: str, by: Sequence[str] = ("run",)) -> pd.Series:
    """Values whose mean in each group of `by` is a ratio of two means, for `levels`, `contrasts`:
    of the columns `top`, such as what is left of a gap, and `bottom`, the gap before. Their spread
    is that of the ratio to first order (the delta method), which asks for a mean of `bottom` that
    is well away from zero."""
    means = frame.groupby(list(by), observed=True)[[top, bottom]].transform("mean")
    share = means[top] / means[bottom]
    return share + (frame[top] - share * frame[bottom]) / means[bottom]


def holm(tests: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Add `p_holm`, adjusted for all tests of the frame (or of each group of `by`), and `sure`, the
    sign of a difference whose adjusted p-value is below .05, else 0; a test without a p-value
    counts as none."""
    groups = [part for _, part in tests.groupby(list(by), sort=False)] if by else [tests]
    adjusted = pd.Series(np.nan, tests.index)
    for part in groups:
        p = part["p"].dropna()
        if len(p):
            adjusted[p.index] = multipletests(p, method="holm")[1]
    sure = np.sign(tests["estimate"]).where(adjusted < 1 - LEVEL, 0).astype(int)
    return tests.assign(p_holm=adjusted, sure=sure)


def words(tests: pd.DataFrame, delta: float, claim: str = "gain") -> pd.Series:
    """One of `WORDS` for each row of `levels`, `contrasts` or `correlations`, by its 95 % interval.

    Args:
        tests: All tests of one claim, for Holm's correction; one row a method and part.
        delta: The smallest size that matters, in the unit of `estimate`.
        claim: "gain": *supported* above 0 and reaching delta, *contradicted* below 0 and reaching
            -delta, both asking for Holm's `sure`; *negligible* inside (-delta, delta).
            "level", a quantity is 0: *supported* inside, *contradicted* outside. "kept", it does
            not fall: *supported* above -delta, *contradicted* below. *Undecided* is the rest.
    """
    low, high, sure = tests["low"], tests["high"], holm(tests)["sure"]
    inside = (low > -delta) & (high < delta)
    known = {
        "gain": {"negligible": inside, "supported": (sure > 0) & (low > 0) & (high >= delta),
                 "contradicted": (sure < 0) & (high < 0) & (low <= -delta)},
        "level": {"supported": inside, "contradicted": (low >= delta) | (high <= -delta)},
        "kept": {"supported": low > -delta, "contradicted": high <= -delta},
    }
    if claim not in known:
        raise DataError(f"unknown claim {claim!r}: expected one of {', '.join(known)}")
    cases = known[claim]
    return pd.Series(np.select(list(cases.values()), list(cases), "undecided"), tests.index)


def verdict(tests: pd.DataFrame | None, delta: float, claim: str = "gain", by: str = "run",
            decidable: bool = True) -> str:
    """What the methods, the values of `by`, say together: the word of `ENOUGH` of them, with their
    number unless all say it; else "mixed (2 of 4 negligible)", with the commonest words. For
    `tests`, `delta` and `claim` see `words`; no tests are `UNTESTED`. `decidable` is whether the
    positive control does what the claim asks: else the word is `UNDECIDABLE`."""
    if tests is None or tests.empty:
        return UNTESTED
    if not decidable:
        return UNDECIDABLE
    ranks = words(tests, delta, claim).map(WORDS.index)
    said = ranks.groupby(tests[by]).min().map(dict(enumerate(WORDS))).value_counts()
    n, most = said.sum(), said[said == said.max()].sort_index()
    counts = ", ".join(f"{count} of {n} {word}" for word, count in most.items())
    if said.max() < ENOUGH * n:
        return f"mixed ({counts})"
    return most.index[0] if said.max() == n else f"{most.index[0]} ({said.max()} of {n})"


def correlations(
    frame: pd.DataFrame, against: str | None = None, by: Sequence[str] = ("set",),
    resamples: int = 1000, seed: int = 0,
) -> pd.DataFrame:
    """Spearman's correlation of `score` with `gold`, or its difference to the run `against`.

    Args:
        frame: Table `similarity`: run, seed, set, pair, gold, score.
        by: Columns of sets that are correlated apart.
        resamples, seed: Bootstrap samples of the pairs, shared by all runs, and the seed that draws
            them. They give the variance by pairs; that by seeds adds up as in `Components`.

    Columns of `by`, `run`, those of `summary`, `n` pairs, `seeds`; and for each run the mean over
    the sets, with the set named "mean" if there are several. DataError if runs do not share pairs,
    the numbers of seeds differ, or `against` is not there.
    """
    draws: dict[tuple[object, ...], dict[str, np.ndarray]] = {}
    sizes: dict[tuple[object, ...], int] = {}
    generator = np.random.default_rng(seed)
    for names, part in frame.groupby(list(by), sort=False, observed=True):
        wide = part.pivot(index="pair", columns=["run", "seed"], values="score")
        gold = part.drop_duplicates("pair").set_index("pair")["gold"].reindex(wide.index)
        if wide.isna().any().any():
            raise DataError(f"{_told(by, names)}: the runs do not share their pairs")
        n = len(gold)
        counts = generator.multinomial(n, np.full(n, 1 / n), size=resamples)
        counts = np.concatenate([np.ones((1, n), dtype=counts.dtype), counts])
        found: dict[str, list[np.ndarray]] = {}
        for run, number in wide.columns:
            column = wide[run, number].to_numpy()
            found.setdefault(run, []).append(weighted_spearman(column, gold.to_numpy(), counts))
        draws[names] = {run: np.stack(parts) for run, parts in found.items()}
        sizes[names] = n
    runs = next(iter(draws.values())).keys()
    if len(draws) > 1:
        mean = ("mean",) * len(by)
        draws[mean] = {run: np.mean([part[run] for part in draws.values()], axis=0) for run in runs}
        sizes[mean] = sum(sizes.values())
    if against is not None and against not in runs:
        raise DataError(f"no run {against!r} among {', '.join(runs)}")
    rows = []
    for names, part in draws.items():
        for run in runs:
            if run != against:
                values = _minus(part[run], part[against]) if against else part[run]
                known = dict(zip(by, names, strict=True)) | {"run": run}
                rows.append(known | _resampled(values, sizes[names] - 1)
                            | {"n": sizes[names], "seeds": len(values)})
    return pd.DataFrame(rows)


def _resampled(values: np.ndarray, freedom: int) -> dict[str, object]:
    """`summary` of a number of each seed `(S, 1 + R)`: as it is, and in R bootstrap samples."""
    moves = values[:, 1:] - np.nanmean(values[:, 1:], axis=1, keepdims=True)
    by_item, rest = _squares(np.nan_to_num(moves)) / (moves.shape[1] - 1)
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
            (counts * a * a).sum(axis=1) * (counts * b * b).sum(axis=1))


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
