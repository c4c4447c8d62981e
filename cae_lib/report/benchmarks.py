"""The columns of Table 1: which subsets each one averages, and a run's scores on them, by seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from cae_lib.errors import DataError
from cae_lib.evaluation.aggregates import AGGREGATES, Tree, aggregate
from cae_lib.evaluation.results import ChoiceResult
from cae_lib.evaluation.statistics import Interval, paired_difference, weighted_interval
from cae_lib.measurements import results, run_label
from cae_lib.report.runs import all_runs


@dataclass(frozen=True)
class Column:
    """One score of Table 1.

    Attributes:
        key: Short name.
        label: Name in full.
        family: Benchmark family that it belongs to; None for scores beside the seven families.
        tree: Result keys that are averaged: unweighted means, nested as the lists are.
        rule: The averaging rule in words.
    """

    key: str
    label: str
    family: str | None
    tree: Tree
    rule: str


COLUMNS: tuple[Column, ...] = (
    Column("ARO-R", "ARO, relation", "ARO", "aro/relation",
           "mean over relations, symmetric ones left out"),
    Column("ARO-A", "ARO, attribution", "ARO", "aro/attribution",
           "mean over pairs of attributes with at least 25 items"),
    Column("Winoground", "Winoground, group score", "Winoground", "winoground/group",
           "mean over items"),
    Column("SC-Rel", "SugarCrepe, relation", "SugarCrepe", AGGREGATES["sugarcrepe/relation"],
           "mean over items"),
    Column("SC-Att", "SugarCrepe, attribute", "SugarCrepe", AGGREGATES["sugarcrepe/attribute"],
           "mean of add, replace, swap"),
    Column("VLC-Rel", "VL-CheckList, relation", "VL-CheckList",
           AGGREGATES["vl_checklist/relation"], "mean of actions and spatial relations"),
    Column("VLC-Att", "VL-CheckList, attribute", "VL-CheckList",
           AGGREGATES["vl_checklist/attribute"], "mean over kinds of the mean over sources"),
    Column("VALSE-Rel", "VALSE, relation", "VALSE", AGGREGATES["valse/relation"],
           "mean of actions and spatial relations"),
    Column("SVO", "SVO-Probes", "SVO-Probes", "svo_probes/all", "mean over items"),
    Column("CREPE", "CREPE, productivity R@1", "CREPE",
           ["crepe/atom", "crepe/negate", "crepe/swap"],
           "mean of atom, negate, swap, each the mean over complexities"),
    Column("Order", "ARO, COCO-Order", None, "order/coco", "mean over items"),
)  # fmt: skip

FAMILIES: tuple[str, ...] = tuple(dict.fromkeys(c.family for c in COLUMNS if c.family))


@dataclass(frozen=True)
class Score:
    """One run's answers behind one number.

    Attributes:
        strata: Right or wrong, `(S, n)` a group, one row a seed.
        weights: Weight of each group's mean; they sum to 1.
        pictures: Number of each item's picture, `(n,)` a group; pictures are resampled, not items.
        n_used: Items scored.
        n_expected: Items that there should be.
        chance: Accuracy of guessing.
        absent: Subsets that the average names and the records lack.
    """

    strata: list[np.ndarray]
    weights: list[float]
    pictures: list[np.ndarray]
    n_used: int
    n_expected: int
    chance: float
    absent: tuple[str, ...] = ()

    @property
    def n_seeds(self) -> int:
        """Number of seeds."""
        return len(self.strata[0])

    @cached_property
    def digest(self) -> str:
        """Hash of all that the intervals depend on."""
        digest = hashlib.sha256(repr(self.weights).encode())
        for part in (*self.strata, *self.pictures):
            digest.update(f"{part.dtype} {part.shape}".encode() + part.tobytes())
        return digest.hexdigest()

    def interval(self) -> Interval:
        """Weighted mean with its bootstrap interval over seeds and pictures."""
        return _once(
            (self.digest,),
            lambda: weighted_interval(
                self.strata, self.weights, clusters=self.pictures, resample_seeds=True
            ),
        )

    def minus(self, other: Score) -> Interval:
        """Difference to another run on the same items, seeds drawn together."""
        return _once(
            (self.digest, other.digest),
            lambda: paired_difference(
                self.strata, other.strata, self.weights, clusters=self.pictures, resample_seeds=True
            ),
        )


_intervals: dict[tuple[str, ...], Interval] = {}


def _once(key: tuple[str, ...], compute: Callable[[], Interval]) -> Interval:
    """An interval that a page shows in several places, drawn once in this process."""
    if key not in _intervals:
        _intervals[key] = compute()
    return _intervals[key]


@lru_cache(maxsize=64)
def answers(
    run: str, profile: str, seeds: int, **settings: Hashable
) -> Mapping[str, tuple[ChoiceResult, ...]]:
    """The results of a run, or of its variant with other settings, by `family/subset`, one a seed.

    Raises:
        DataError: A record is missing, or the seeds did not answer the same items.
    """
    records = results(run, profile, "benchmarks", seeds, **settings)
    keys = list(records[0].results)
    found = {
        key: tuple(ChoiceResult.from_record(_part(record.results, key, record.name))
                   for record in records)
        for key in keys
    }  # fmt: skip
    for key, parts in found.items():
        if len({part.items for part in parts}) > 1:
            raise DataError(
                f"{run}, {key}: its seeds answered different items; delete its records in "
                f"data/records/{profile}/{run_label(run, profile, **settings)} and run "
                "`make reproduce` again"
            )
    return found


def all_answers(profile: str, seeds: int) -> dict[str, Mapping[str, tuple[ChoiceResult, ...]]]:
    """The results of every run of a profile, in the order of the tables."""
    return {run: answers(run, profile, seeds) for run in all_runs(profile)}


def _part(content: Mapping[str, dict], key: str, name: str) -> dict:
    if key not in content:
        raise DataError(f"record {name} lacks {key}, which the other seeds have: compute it anew")
    return content[key]


def subset_score(parts: Sequence[ChoiceResult]) -> Score:
    """The headline of one subset."""
    first = parts[0]
    by_seed = [part.strata()[0] for part in parts]
    strata = [np.stack(rows) for rows in zip(*by_seed, strict=True)]
    return Score(strata, *first.strata()[1:], first.n_used, first.n_expected, first.chance)


def column_score(column: Column, found: Mapping[str, Sequence[ChoiceResult]]) -> Score | None:
    """A run's score in a column; None if the records have no part of it."""
    first = [parts[0] for parts in found.values()]
    try:
        average = aggregate(first, column.key, column.tree)
    except DataError:
        return None
    parts = {key: subset_score(found[key]) for key in average.weights}
    return combined(parts, average.weights, average.absent)


def family_score(family: str, found: Mapping[str, Sequence[ChoiceResult]]) -> Score | None:
    """A run's score on a family: the unweighted mean of its columns."""
    columns = [column for column in COLUMNS if column.family == family]
    scores = {column.key: column_score(column, found) for column in columns}
    present = {key: score for key, score in scores.items() if score is not None}
    if not present:
        return None
    absent = tuple(key for key, score in scores.items() if score is None)
    return combined(present, dict.fromkeys(present, 1 / len(present)), absent)


def combined(parts: Mapping[str, Score], weights: Mapping[str, float],
             absent: tuple[str, ...]) -> Score:  # fmt: skip
    """A weighted mean of scores as one score."""
    return Score(
        strata=[stratum for part in parts.values() for stratum in part.strata],
        weights=[weights[key] * w for key, part in parts.items() for w in part.weights],
        pictures=[pictures for part in parts.values() for pictures in part.pictures],
        n_used=sum(part.n_used for part in parts.values()),
        n_expected=sum(part.n_expected for part in parts.values()),
        chance=sum(weights[key] * part.chance for key, part in parts.items()),
        absent=(*absent, *(name for part in parts.values() for name in part.absent)),
    )


def mean_score(scores: Sequence[Score]) -> Score:
    """Several runs as one, item by item: the mean over attribution methods."""
    strata = [np.mean(parts, axis=0) for parts in zip(*(s.strata for s in scores), strict=True)]
    return replace(scores[0], strata=strata)
