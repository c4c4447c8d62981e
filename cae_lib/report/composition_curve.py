"""Accuracy by what the caption states: slopes and adjusted levels, with the benchmark held fixed.

Only differences between items of one subset count (`evaluation.slopes`). Pictures and seeds are
resampled together for all runs, so differences between runs are paired.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any
from zlib import crc32

import numpy as np

from cae_lib.errors import DataError
from cae_lib.evaluation.caption_load import RECORD, RETRIEVAL
from cae_lib.evaluation.results import ChoiceResult
from cae_lib.evaluation.slopes import RESAMPLES, Moments, moments, total
from cae_lib.evaluation.statistics import Interval
from cae_lib.report.attribution import Draws
from cae_lib.report.benchmarks import FAMILIES, answers
from cae_lib.report.composition_items import (
    BOTH,
    TOPS,
    WORLD,
    chosen_subsets,
    load_content,
    named_loads,
    properties,
    property_columns,
    subset_loads,
)
from cae_lib.report.retrieval import hits
from cae_lib.report.runs import BASE, HARD, TUNED, all_runs, hard_runs
from cae_lib.report.stored import NotMeasured, missing_records, require

SUITE, RECALL = "benchmarks", "COCO R@1"


@dataclass(frozen=True)
class Curve:
    """What the answers of all runs say.

    Attributes:
        groups: Sums by family, of the object questions, and of retrieval.
        columns: Place of each property in them.
        runs: For each run, its columns of scores, one a seed.
        sizes: For each count of `TOPS` that there is, the items in each class, of the seven
            families.
        varying: For each property, the items of the seven families whose count is not the most
            frequent one of their subset.
        differing: The same for relations and attributes together, by group.
        n_expected: Items that the seven families should have.
        n_subsets: Subsets of the seven families.
        agreement: For each role, the share of items on which parser and world agree; {} without.
    """

    groups: Mapping[str, Moments]
    columns: Mapping[str, int]
    runs: Mapping[str, slice]
    sizes: Mapping[str, Sequence[int]]
    varying: Mapping[str, int]
    differing: Mapping[str, int]
    n_expected: int
    n_subsets: int
    agreement: Mapping[str, float]

    @cached_property
    def pooled(self) -> Moments:
        """The seven families together."""
        return total([self.groups[name] for name in FAMILIES if name in self.groups])

    def slopes(self, run: str, *properties: str, group: str | None = None) -> list[Draws | None]:
        """Slope of a run's score on each of the properties, entered together; None if undefined."""
        sums = self.pooled if group is None else self.groups[group]
        found = sums.slopes([self.columns[name] for name in properties])[:, :, self.runs[run]]
        return [self._draws(found[:, place], sums.n) for place in range(len(properties))]

    def slope_gap(self, run: str, against: str, *properties: str,
                  group: str | None = None) -> list[Interval | None]:  # fmt: skip
        """Slopes of a run minus those of another one."""
        pairs = zip(self.slopes(run, *properties, group=group),
                    self.slopes(against, *properties, group=group), strict=True)  # fmt: skip
        return [a.minus(b).interval() if a and b else None for a, b in pairs]

    def levels(self, run: str, count: str) -> list[Draws | None]:
        """Accuracy in each class of a count of `TOPS`, with the subset held fixed."""
        places = [self.columns[f"{count} {k}"] for k in range(1, TOPS[count] + 1)]
        sums = self.pooled
        found = sums.levels(places)[:, :, self.runs[run]]
        return [self._draws(found[:, place], sums.n) for place in range(found.shape[1])]

    def gains(self, run: str, against: str, count: str) -> list[Interval | None]:
        """Levels of a run minus those of another one."""
        pairs = zip(self.levels(run, count), self.levels(against, count), strict=True)
        return [a.minus(b).interval() if a and b else None for a, b in pairs]

    def _draws(self, values: np.ndarray, n: int) -> Draws | None:
        """A statistic `(R + 1, S)`, averaged over seeds, which are redrawn alike for every run."""
        if np.isnan(values[0]).any():
            return None
        seeds = values.shape[1]
        generator = np.random.default_rng(seeds)
        drawn = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=len(values) - 1)
        samples = (drawn * values[1:]).sum(axis=1) / seeds
        return Draws(float(values[0].mean()), samples, n, seeds)


def shown_runs(profile: str, seeds: int) -> list[str]:
    """The runs of Table 1, and those with hard negatives that are measured."""
    measured = [r for r in hard_runs(profile) if not missing_records([r], profile, SUITE, seeds)]
    return [*all_runs(profile), *measured]


def opponent(run: str) -> str:
    """The run without CAE that a CAE run is compared with."""
    return HARD if run.startswith(f"{HARD}-") else TUNED


@lru_cache(maxsize=2)
def composition(profile: str, seeds: int) -> Curve:
    """Pair the counts of every caption with the answers of every run, and sum them up.

    Raises:
        NotMeasured: A record is missing.
        DataError: Counts and answers are of different items.
    """
    runs = shown_runs(profile, seeds)
    require(runs, profile, SUITE, seeds)
    content = load_content(profile)
    found = {run: answers(run, profile, seeds) for run in runs}
    first = {key: parts[0] for key, parts in found[BASE].items()}
    groups, columns = chosen_subsets(list(first.values())), property_columns(content)
    sums, loads = {}, {}
    for name, keys in groups.items():
        loads |= {key: subset_loads(content, first[key]) for key in keys}
        sums[name] = total([_sums(loads[key], columns, [found[r][key] for r in runs], key)
                            for key in keys])  # fmt: skip
    recall = _recall_sums(content, columns, runs, profile, seeds)
    chosen = {key: loads[key] for name in FAMILIES if name in groups for key in groups[name]}
    counts = [1 if run == BASE else seeds for run in runs]
    ends = np.cumsum(counts)
    return Curve(
        groups=sums | ({RECALL: recall} if recall else {}),
        columns={name: place for place, name in enumerate(columns)},
        runs={r: slice(end - n, end) for r, end, n in zip(runs, ends, counts, strict=True)},
        sizes=_class_sizes(list(chosen.values())),
        varying={name: _differing(chosen.values(), name) for name in next(iter(chosen.values()))},
        differing={name: _differing([loads[key] for key in keys], BOTH)
                   for name, keys in groups.items()},
        n_expected=sum(first[key].n_expected for key in chosen),
        n_subsets=len(chosen),
        agreement=_agreement(list(chosen.values())),
    )  # fmt: skip


def _sums(loads: Mapping[str, np.ndarray], columns: Sequence[str],
          parts: Sequence[Sequence[ChoiceResult]], key: str) -> Moments:  # fmt: skip
    results = [result for run in parts for result in run]
    if len({result.items for result in results}) > 1:
        raise DataError(f"{key}: the runs answered different items; compute their records anew")
    scores = np.stack([result.correct for result in results], axis=1)
    x = properties(loads, columns)
    return moments(x, scores, crc32(key.encode()), RESAMPLES, results[0].pictures)


def _recall_sums(content: Mapping[str, Any], columns: Sequence[str], runs: Sequence[str],
                 profile: str, seeds: int) -> Moments | None:  # fmt: skip
    """Sums of text-to-image hits at 1 on COCO; None where they are not measured."""
    if missing_records(runs, profile, "retrieval", seeds):
        return None
    try:
        found = [hits(run, profile, RETRIEVAL, "image", 1, seeds) for run in runs]
    except NotMeasured:
        return None
    part, scores = content["retrieval"], np.concatenate([rows for rows, _ in found]).T
    if len(scores) != part["n_used"]:
        raise DataError(f"record {RECORD}: {part['n_used']} captions of COCO, but {len(scores)} "
                        "are retrieved by. Run `cae reproduce` again")  # fmt: skip
    x, pictures = properties(named_loads(content, part), columns), found[0][1]
    return moments(x, scores, len(scores), RESAMPLES, pictures)


def _class_sizes(loads: Sequence[Mapping[str, np.ndarray]]) -> dict[str, list[int]]:
    return {
        name: sum(np.bincount(np.minimum(part[name], top), minlength=top + 1) for part in loads)
        .tolist() for name, top in TOPS.items() if name in loads[0]
    }  # fmt: skip


def _agreement(loads: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
    if WORLD not in loads[0]:
        return {}
    return {
        role: float(np.concatenate([part[role] == part[f"world {role}"] for part in loads]).mean())
        for role in ("objects", "attributes", "relations")
    }


def _differing(loads: Iterable[Mapping[str, np.ndarray]], name: str) -> int:
    """Items whose count is not the most frequent one of their subset."""
    return sum(len(part[name]) - int(np.bincount(part[name]).max()) for part in loads)
