"""Captions against the phrases in them, read from records: cosines, differences, effect sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from cae_lib.errors import DataError
from cae_lib.evaluation.effects import effect_size
from cae_lib.evaluation.statistics import Interval, mean_interval, paired_difference
from cae_lib.measurements import results
from cae_lib.report.markup import Table, Text, count, emphasised, interval, show
from cae_lib.report.runs import BASE, HARD, TUNED, all_runs, hard_cae_runs, hard_runs, label
from cae_lib.report.stored import NotMeasured, if_measured, missing_records, require
from cae_lib.words.phrases import KINDS

SUITE = "phrases"
CLAIMED = ("relation", "attribute")
DECIMALS = 3


@dataclass(frozen=True)
class Cosines:
    """One run's cosines between captions and phrases of one kind.

    Attributes:
        own: `(S, n)` mean cosine of each caption that has such a phrase to those in it.
        other: `(S, n)` mean cosine of the same captions to phrases of other captions.
        n_phrases: Phrases in the captions.
        source: Where the phrases come from.
    """

    own: np.ndarray
    other: np.ndarray
    n_phrases: int
    source: str

    @property
    def margin(self) -> np.ndarray:
        """`(S, n)`: how much closer the caption's own phrases are than those of others."""
        return self.own - self.other


@lru_cache(maxsize=64)
def cosines(run: str, profile: str, kind: str, seeds: int) -> Cosines:
    """Cosines of a run over its first `seeds` seeds, for captions with a phrase of the kind.

    Raises:
        NotMeasured: A record is missing.
        DataError: Seeds differ in their captions, or no caption has such a phrase.
    """
    require([run], profile, SUITE, seeds)
    records = results(run, profile, SUITE, seeds)
    parts = [record.results["kinds"][kind] for record in records]
    own, other = (
        np.array([[np.nan if v is None else v for v in part[key]] for part in parts])
        for key in ("own", "other")
    )
    present = np.isfinite(own) & np.isfinite(other)
    if not present.any() or (present != present[0]).any():
        raise DataError(
            f"{run}: no {kind} phrase, or not the same ones for every seed; compute its records "
            f"`{SUITE}` anew"
        )
    keep = present[0]
    source = records[0].results["source"]
    return Cosines(own[:, keep], other[:, keep], parts[0]["n_phrases"], source)


def phrase_differences(run: str, against: str, profile: str, seeds: int) -> dict[str, Interval]:
    """Cosine to the caption's relation and attribute phrases, minus that of another run."""
    return {kind: _difference(run, against, profile, kind, seeds, "own") for kind in CLAIMED}


def _difference(
    run: str, against: str, profile: str, kind: str, seeds: int, field: str
) -> Interval:
    first, second = (getattr(cosines(each, profile, kind, seeds), field) for each in (run, against))
    return paired_difference([first], [second], resample_seeds=True)


def shown_runs(profile: str, seeds: int) -> list[str]:
    """CLIP, CLIP-FT and CLIP-CAE, then the runs with hard negatives if all are measured."""
    hard = hard_runs(profile)
    return all_runs(profile) + ([] if missing_records(hard, profile, SUITE, seeds) else hard)


@if_measured
def cosine_table(runs: Sequence[str], profile: str, seeds: int) -> Table:
    """Mean cosine to own phrases and to those of other captions, by kind and run."""
    rows = []
    for kind in reversed(KINDS):
        for run in runs:
            found = cosines(run, profile, kind, seeds)
            cells = [interval(mean_interval(values, resample_seeds=True), DECIMALS, lines=True)
                     for values in (found.own, found.other, found.margin)]  # fmt: skip
            n_phrases, n = found.n_phrases, found.own.shape[1]
            rows.append([kind, label(run), *cells, f"{n} ({n_phrases})"])
    source = cosines(runs[0], profile, KINDS[0], seeds).source
    return Table(
        name="tab-phrases",
        caption="Cosine between a caption and the phrases in it, and phrases of other captions of "
        f"the same kind (phrases by the {source}); mean over captions of the mean over a caption's "
        f"phrases; {count(seeds, 'seed')} of each trained model averaged, one CLIP; 95 % bootstrap "
        "intervals over seeds and captions. n: captions with such a phrase (phrases in them).",
        header=["phrases", "model", "own", "others'", "own − others'", "n"],
        rows=rows,
        left=2,
        collapsed="The means of every model",
    )


@if_measured
def phrase_difference_table(
    runs: Sequence[str], profile: str, seeds: int, against: str = TUNED
) -> Table:
    """Differences to a run with effect sizes: own phrases, and own minus others'."""
    if not runs:
        raise NotMeasured(f"The profile {profile} has no runs to compare with {label(against)}.")
    rows = []
    for kind in reversed(KINDS):
        for run in runs:
            cells = []
            for field in ("own", "margin"):
                found = _difference(run, against, profile, kind, seeds, field)
                text = interval(found, DECIMALS, sign=True, lines=True)
                cells.append(emphasised(text, found.excludes_zero))
            first, second = (cosines(each, profile, kind, seeds).own for each in (run, against))
            size = interval(effect_size(first, second), 2, sign=True, lines=True)
            rows.append([kind, label(run), cells[0], size, cells[1]])
    return Table(
        name=f"tab-phrases-minus-{against}",
        caption=f"Cosine to a caption's phrases minus that in {label(against)}, on the same "
        f"captions{'' if against == BASE else ' and seeds'}; {count(seeds, 'seed')}; 95 % "
        "bootstrap intervals over seeds and captions; bold: the interval excludes zero. Effect "
        "size: the mean of the paired differences over their standard deviation (Cohen's d for "
        "pairs). Last column: the same difference after taking off the cosine to phrases of other "
        "captions.",
        header=["phrases", "model", "difference", "effect size", "difference, own − others'"],
        rows=rows,
        left=2,
    )


@if_measured
def hard_phrase_tables(profile: str, seeds: int) -> Text:
    """NegCLIP with CAE against NegCLIP, and NegCLIP against CLIP-FT."""
    hard = hard_runs(profile)
    if HARD not in hard:
        raise NotMeasured(f"The profile {profile} has no runs with hard negatives.")
    require([TUNED, *hard], profile, SUITE, seeds)
    alone = phrase_difference_table([HARD], profile, seeds)
    return show(
        phrase_difference_table(list(hard_cae_runs(profile)), profile, seeds, HARD),
        replace(alone, name="tab-phrases-negatives") if isinstance(alone, Table) else alone,
    )


def by_run(runs: Sequence[str], profile: str, seeds: int) -> Mapping[str, Mapping[str, Cosines]]:
    """For each kind of phrase, the cosines of every run by label."""
    return {
        kind: {label(run): cosines(run, profile, kind, seeds) for run in runs}
        for kind in reversed(KINDS)
    }
