"""Table 2: NegCLIP, and NegCLIP with CAE, beside CLIP-FT and CLIP-CAE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cae_lib.evaluation.results import ChoiceResult
from cae_lib.evaluation.statistics import Interval
from cae_lib.report import benchmark_tables as tables
from cae_lib.report.benchmark_figures import forest
from cae_lib.report.benchmarks import COLUMNS, FAMILIES, answers, column_score
from cae_lib.report.figure import Figure
from cae_lib.report.markup import NONE, Table, Text, number, percent
from cae_lib.report.paper import HARD_CAE_NOTE, NEGCLIP, SETTING, TABLE1
from cae_lib.report.runs import BASE, HARD, TUNED, all_runs, hard_cae_runs, hard_runs, setting
from cae_lib.report.stored import NotMeasured, if_measured, require

SUITE = "benchmarks"
Answers = Mapping[str, Mapping[str, Sequence[ChoiceResult]]]


def hard_answers(profile: str, seeds: int) -> Answers:
    """Results of CLIP, CLIP-FT, CLIP-CAE, NegCLIP, and NegCLIP with CAE.

    Raises:
        NotMeasured: The profile has no such runs, or a record is missing.
    """
    hard = hard_runs(profile)
    if HARD not in hard or len(hard) == 1:
        raise NotMeasured(
            f"The profile {profile} has no runs with hard negatives: rows named `{HARD}` and "
            "`negclip-cae-METHOD` in its configuration would be trained and shown here."
        )
    runs = [*all_runs(profile), *hard]
    require(runs, profile, SUITE, seeds)
    return {run: answers(run, profile, seeds) for run in runs}


def hard_differences(profile: str, seeds: int) -> dict[str, dict[str, Interval]]:
    """NegCLIP with CAE minus NegCLIP on each family, by attribution method.

    Raises:
        NotMeasured: The profile has no such runs, or a record is missing.
    """
    found = tables.differences(hard_answers(profile, seeds), HARD)
    return {
        method: {name: value for name, value in found[run].items() if name in FAMILIES}
        for run, method in hard_cae_runs(profile).items()
    }


@if_measured
def hard_score_table(profile: str, seeds: int) -> Table:
    """Scores of CLIP-FT, NegCLIP and NegCLIP with CAE; those of CLIP-CAE are on Table 1's page."""
    found = hard_answers(profile, seeds)
    shown = {run: found[run] for run in (BASE, TUNED, *hard_runs(profile))}
    return replace(tables.score_table(shown), name="tab-hard-benchmarks")


@if_measured
def hard_difference_table(profile: str, seeds: int) -> Table:
    """NegCLIP with CAE minus NegCLIP, by family."""
    table = tables.difference_table(hard_answers(profile, seeds), HARD)
    return replace(table, name="tab-hard-differences")


@if_measured
def negatives_alone_table(profile: str, seeds: int) -> Table:
    """NegCLIP minus CLIP-FT beside CLIP-CAE minus CLIP-FT: which one does more alone?"""
    found = hard_answers(profile, seeds)
    plain = tables.differences(found)
    hard = tables.differences({TUNED: found[TUNED], HARD: found[HARD]}, TUNED, [HARD])
    table = tables.differences_as_table(hard | plain, TUNED, seeds)
    return replace(table, name="tab-hard-alone")


@if_measured
def hard_figure(profile: str, seeds: int) -> Figure:
    """NegCLIP with CAE minus NegCLIP, with intervals."""
    return forest(tables.differences(hard_answers(profile, seeds), HARD), HARD)


@if_measured
def hard_paper_table(profile: str, seeds: int) -> Table | Text:
    """The paper's NegCLIP beside its CLIP-FT, and our two differences."""
    found = hard_answers(profile, seeds)
    rows = []
    for column in COLUMNS:
        if column.key not in NEGCLIP:
            continue
        scores = {run: column_score(column, part) for run, part in found.items()}
        if any(scores[run] is None for run in (TUNED, HARD)):
            continue
        printed = TABLE1[column.key].tuned
        gain = round(NEGCLIP[column.key] - printed, 1) if printed is not None else None
        own = scores[HARD].minus(scores[TUNED])
        rows.append([column.label, number(printed, 1), number(NEGCLIP[column.key], 1),
                     number(gain, 1, sign=True), percent(own, sign=True),
                     tables.agreement(gain, own)])  # fmt: skip
    return Table(
        name="tab-hard-paper",
        caption=f"What hard negatives alone do: the numbers of the paper's authors ({SETTING}) "
        f"beside ours ({setting(profile)}; NegCLIP minus CLIP-FT, 95 % interval over {seeds} "
        "seeds and items). Levels cannot be compared between the two; directions can.",
        header=["benchmark", "paper: CLIP-FT", "paper: NegCLIP", "paper: difference",
                "ours: difference", "direction"],
        rows=rows or [[NONE] * 6],
        notes=[HARD_CAE_NOTE],
    )  # fmt: skip
