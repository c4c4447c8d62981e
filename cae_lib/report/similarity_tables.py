"""Tables of the similarity of sentences: correlations, differences, and the paper's numbers."""

from __future__ import annotations

from collections.abc import Sequence

from cae_lib.evaluation.correlation import Correlation
from cae_lib.evaluation.statistics import Interval
from cae_lib.report.benchmark_tables import agreement
from cae_lib.report.markup import Table, count, emphasised, number, percent
from cae_lib.report.paper import SETTING, TABLE4
from cae_lib.report.runs import TUNED, cae_runs, label, setting
from cae_lib.report.similarity import (
    KINDS,
    MEAN,
    correlation_differences,
    correlations,
    mean_draws,
)
from cae_lib.report.stored import if_measured


@if_measured
def similarity_table(runs: Sequence[str], profile: str, seeds: int, kind: Correlation) -> Table:
    """One measure of every run on every set, with intervals; the last row is the mean."""
    found = {run: correlations(run, profile, seeds, kind) for run in runs}
    first = found[runs[0]]
    rows = [
        [_name(name), str(part.n_items),
         *(percent(found[run][name].interval(), lines=True) for run in runs)]
        for name, part in first.items()
    ]  # fmt: skip
    return Table(
        name=f"tab-similarity-{kind}",
        caption=f"{KINDS[kind]} correlation, times 100, of the cosine of two sentences with the "
        f"gold score; all pairs of a set together; {count(seeds, 'seed')} of each trained model "
        "averaged, one CLIP; 95 % bootstrap intervals over seeds and pairs, of which there are n. "
        "Mean: unweighted over the sets.",
        header=["set", "n", *(label(run) for run in runs)],
        rows=rows,
        collapsed="" if kind == "spearman" else f"The same by {KINDS[kind]}'s correlation",
    )


@if_measured
def similarity_difference_table(
    profile: str, seeds: int, runs: Sequence[str], against: str = TUNED,
    kind: Correlation = "spearman",
) -> Table:  # fmt: skip
    """Correlations of the runs minus those of `against`; bold where it is not zero."""
    found = {
        run: correlation_differences(run, against, profile, seeds, kind)
        for run in runs
        if run != against
    }
    rows = [
        [_name(name), *(_marked(row[name]) for row in found.values())]
        for name in next(iter(found.values()), {})
    ]
    return Table(
        name=f"tab-similarity-{kind}-minus-{against}",
        caption=f"{KINDS[kind]} correlation, times 100, minus that of {label(against)} on the same "
        f"pairs and seeds; {count(seeds, 'seed')}; 95 % bootstrap intervals over seeds and pairs. "
        "Bold: the interval excludes zero.",
        header=["set", *(label(run) for run in found)],
        rows=rows,
    )


@if_measured
def similarity_paper_table(profile: str, seeds: int) -> Table:
    """The paper's numbers beside the mean over our CAE runs."""
    rows = []
    for (name, kind), (clip, tuned, cae) in TABLE4.items():
        found = [correlations(run, profile, seeds, kind) for run in cae_runs(profile)]
        reference = correlations(TUNED, profile, seeds, kind)
        if not found or name not in reference:
            continue
        gain = round(cae - tuned, 1)
        own = mean_draws([part[name] for part in found]).minus(reference[name]).interval()
        rows.append([f"{name}, {KINDS[kind]}", *(number(v, 1) for v in (clip, tuned, cae)),
                     number(gain, 1, sign=True), percent(own, sign=True, lines=True),
                     agreement(gain, own)])  # fmt: skip
    return Table(
        name="tab-similarity-paper",
        caption=f"The paper's correlations times 100 ({SETTING}) beside our difference "
        f"({setting(profile)}; mean of {count(len(cae_runs(profile)), 'method')}, "
        f"{count(seeds, 'seed')}, 95 % interval). Levels cannot be compared between the two; "
        "directions can.",
        header=["set and measure", "paper: CLIP", "paper: CLIP-FT", "paper: CLIP-CAE",
                "paper: CAE − FT", "ours: CAE − FT", "direction"],
        rows=rows,
    )  # fmt: skip


def _name(name: str) -> str:
    return "**mean**" if name == MEAN else name


def _marked(found: Interval) -> str:
    return emphasised(percent(found, sign=True, lines=True), found.excludes_zero)
