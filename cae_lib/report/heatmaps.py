"""Where relevance falls, read from records: by region of the picture, by word, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from cae_lib.attribution import METHODS
from cae_lib.errors import DataError
from cae_lib.evaluation.heatmaps import PARTS, START_LAYERS
from cae_lib.evaluation.regions import REGIONS
from cae_lib.evaluation.statistics import Interval, mean_interval, paired_difference
from cae_lib.experiments import results
from cae_lib.report.markup import Table, count, emphasised, interval, number, percent
from cae_lib.report.relation_shares import SUITE
from cae_lib.report.runs import TUNED, label, method_label, method_of
from cae_lib.report.stored import NotMeasured, if_measured, require


@dataclass(frozen=True)
class Relevance:
    """What the records say of one run.

    Attributes:
        regions: By start layer and region, shares `(S, n)` of a picture's relevance.
        words: By method and part of the caption, shares `(S, n)` of the words' scores.
        scores: By method, the score `(S, n)` of the relation's words, in the method's unit.
        area: Mean share of the picture, by region.
        relations: The relation of each scene.
        n_expected: Scenes that there should be.
        examples: Maps and words of the drawn scenes, of seed 0.
    """

    regions: Mapping[str, Mapping[str, np.ndarray]]
    words: Mapping[str, Mapping[str, np.ndarray]]
    scores: Mapping[str, np.ndarray]
    area: Mapping[str, float]
    relations: Sequence[str]
    n_expected: int
    examples: Sequence[Mapping[str, Any]]

    @property
    def n_used(self) -> int:
        """Scenes scored."""
        return len(self.relations)


@lru_cache(maxsize=32)
def relevance(run: str, profile: str, seeds: int) -> Relevance:
    """The measurement of a run over its first `seeds` seeds.

    Raises:
        NotMeasured: A record is missing, or the profile has no scenes with known regions.
        DataError: A record holds something else, or the seeds scored different scenes.
    """
    require([run], profile, SUITE, seeds)
    records = results(run, profile, SUITE, seeds)
    contents = [record.results for record in records]
    for content in contents:
        if not content.get("n_used"):
            raise NotMeasured(content.get("reason", "no scene was scored"))
    try:
        if any(content["relations"] != contents[0]["relations"] for content in contents):
            raise DataError(f"{run}: its seeds scored different scenes; compute them anew")
        return _read(contents)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"record {records[0].name} is no measurement of relevance ({error!r}); compute it "
            "anew with `cae evaluate`"
        ) from error


def _read(contents: Sequence[Mapping[str, Any]]) -> Relevance:
    first = contents[0]
    regions = {}
    for layer in START_LAYERS:
        known = {name: np.array([c["regions"][layer][name] for c in contents])
                 for name in REGIONS if name != "rest"}  # fmt: skip
        regions[layer] = known | {"rest": np.clip(1 - sum(known.values()), 0, 1).round(4)}
    return Relevance(
        regions=regions,
        words={method: {part: np.array([c["words"][method][part] for c in contents])
                        for part in PARTS} for method in METHODS},
        scores={method: np.array([c["scores"][method] for c in contents]) for method in METHODS},
        area=first["area"],
        relations=first["relations"],
        n_expected=first["n_expected"],
        examples=first["examples"],
    )  # fmt: skip


def mean(values: np.ndarray) -> Interval:
    """Mean over scenes and seeds with its interval over both."""
    return mean_interval(values, resample_seeds=True)


@if_measured
def region_table(runs: Sequence[str], profile: str, seeds: int) -> Table:
    """Share of the relevance in each region for every run, by both start layers."""
    found = {run: relevance(run, profile, seeds) for run in runs}
    first = found[runs[0]]
    rows = [
        [layer, region, number(100 * first.area[region], 1),
         *(percent(mean(part.regions[layer][region]), lines=True) for part in found.values())]
        for layer in START_LAYERS
        for region in REGIONS
    ]  # fmt: skip
    return Table(
        name="tab-regions",
        caption="Share of a picture's relevance that falls on each region, in percent, mean over "
        f"{_scenes(first)} of the COCO test split; {count(seeds, 'seed')} of each trained model, "
        "one CLIP; 95 % bootstrap intervals over scenes and seeds. Area: the region's share of the "
        "picture, what a uniform map would give.",
        header=["start layer", "region", "area", *(label(run) for run in runs)],
        rows=rows,
        left=2,
    )


def _scenes(found: Relevance) -> str:
    if found.n_used == found.n_expected:
        return f"{found.n_used} scenes"
    return f"{found.n_used} of {found.n_expected} scenes"


@if_measured
def region_difference_table(
    runs: Sequence[str], profile: str, seeds: int, against: str = TUNED
) -> Table:
    """Every region's share minus that of another run, in points."""
    other = relevance(against, profile, seeds)
    rows = []
    for layer in START_LAYERS:
        for region in REGIONS:
            cells = []
            for run in runs:
                own = relevance(run, profile, seeds).regions[layer][region]
                difference = paired_difference([own], [other.regions[layer][region]],
                                               resample_seeds=True)  # fmt: skip
                text = percent(difference, sign=True, lines=True)
                cells.append(emphasised(text, difference.excludes_zero))
            rows.append([layer, region, *cells])
    return Table(
        name="tab-region-differences",
        caption=f"Share of the relevance minus that of {label(against)}, in percentage points, on "
        f"the same {_scenes(other)}; {count(seeds, 'seed')}; 95 % bootstrap intervals. Bold: the "
        "interval excludes zero.",
        header=["start layer", "region", *(label(run) for run in runs)],
        rows=rows,
        left=2,
    )


@if_measured
def word_table(runs: Sequence[str], profile: str, seeds: int) -> Table:
    """Share of the word scores that falls on the relation's words, by every method."""
    found = {run: relevance(run, profile, seeds) for run in runs}
    rows = []
    for method in METHODS:
        for part in PARTS:
            cells = []
            for run, values in found.items():
                text = number(mean(values.words[method][part]).estimate, 2)
                if part == "relation":
                    text = interval(mean(values.words[method][part]), 2, lines=True)
                cells.append(emphasised(text, method_of(run) == method))
            rows.append([method_label(method), part, *cells])
    first = next(iter(found.values()))
    return Table(
        name="tab-word-shares",
        caption="Share of the words' scores that falls on subject, relation and object of “the "
        f"SUBJECT is RELATION the OBJECT”, mean over {_scenes(first)} and "
        f"{count(seeds, 'seed')}; negative scores count as 0. Relation: with its 95 % bootstrap "
        "interval. Bold: by the method that the run was trained on.",
        header=["method", "words", *(label(run) for run in runs)],
        rows=rows,
        left=2,
    )


@if_measured
def example_table(runs: Sequence[str], profile: str, seeds: int) -> Table:
    """The relation's word in the drawn scenes, by every method: what Fig. 6 prints one of."""
    found = {run: relevance(run, profile, seeds) for run in runs}
    rows = []
    for place, example in enumerate(found[runs[0]].examples):
        word = int(np.flatnonzero(np.array(example["words"]) == "is")[0]) + 1
        for method in METHODS:
            values = [part.examples[place]["shares"][method][word] for part in found.values()]
            rows.append([example["caption"], method_label(method), *(number(v, 2) for v in values)])
    return Table(
        name="tab-example-words",
        caption="The share of the relation's word in the drawn scenes (seed 0 of each trained "
        "model), by every method. The paper prints “touching” 0.16 → 0.31 for one picture. These "
        "are anecdotes; the verdict rests on the means over scenes.",
        header=["caption", "method", *(label(run) for run in runs)],
        rows=rows,
        left=2,
        collapsed="The relation's word in the drawn scenes, by every method",
    )
