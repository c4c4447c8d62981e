"""Where relevance falls, as tables: by region of the picture, by word."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cae_lib.attribution import METHODS
from cae_lib.evaluation.heatmaps import PARTS, START_LAYERS
from cae_lib.evaluation.regions import REGIONS
from cae_lib.evaluation.statistics import paired_difference
from cae_lib.report.markup import Table, count, emphasised, interval, number, percent
from cae_lib.report.relevance import Relevance, mean, relevance
from cae_lib.report.runs import TUNED, label, method_label, method_of
from cae_lib.report.stored import if_measured


@if_measured
def region_table(runs: Sequence[str], profile: str, seeds: int) -> Table:
    """Share of the relevance in each region for every run, by both start layers."""
    found = {run: relevance(run, profile, seeds) for run in runs}
    first = found[runs[0]]

    def cells(layer: str, region: str) -> list[str]:
        shares = [mean(part.regions[layer][region]) for part in found.values()]
        area = number(100 * first.area[region], 1)
        return [area, *(percent(share, lines=True) for share in shares)]

    return Table(
        name="tab-regions",
        caption="Share of a picture's relevance that falls on each region, in percent, mean over "
        f"{_scenes(first)} of the COCO test split; {count(seeds, 'seed')} of each trained model, "
        "one CLIP; 95 % bootstrap intervals over scenes and seeds. Area: the region's share of the "
        "picture, what a uniform map would give.",
        header=["start layer", "region", "area", *(label(run) for run in runs)],
        rows=_rows(cells),
        left=2,
    )


def _rows(cells: Callable[[str, str], list[str]]) -> list[list[str]]:
    """A row for every region by each start layer, with the cells that they give."""
    return [[layer, region, *cells(layer, region)] for layer in START_LAYERS for region in REGIONS]


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
    found = {run: relevance(run, profile, seeds) for run in runs}

    def cells(layer: str, region: str) -> list[str]:
        theirs = [other.regions[layer][region]]
        differences = [
            paired_difference([own.regions[layer][region]], theirs, resample_seeds=True)
            for own in found.values()
        ]
        return [
            emphasised(percent(difference, sign=True, lines=True), difference.excludes_zero)
            for difference in differences
        ]

    return Table(
        name="tab-region-differences",
        caption=f"Share of the relevance minus that of {label(against)}, in percentage points, on "
        f"the same {_scenes(other)}; {count(seeds, 'seed')}; 95 % bootstrap intervals. Bold: the "
        "interval excludes zero.",
        header=["start layer", "region", *(label(run) for run in runs)],
        rows=_rows(cells),
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
