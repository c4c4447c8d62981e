"""Table 2: NegCLIP, and NegCLIP with CAE, beside CLIP-FT and CLIP-CAE."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import ParamSpec, TypeVar

from cae_lib.evaluation.results import ChoiceResult
from cae_lib.evaluation.statistics import Interval
from cae_lib.report import benchmark_tables as tables
from cae_lib.report.benchmark_figures import forest
from cae_lib.report.benchmarks import COLUMNS, answers, column_score
from cae_lib.report.families import family_differences, overall_difference, overall_score
from cae_lib.report.figure import Figure
from cae_lib.report.markup import NONE, Table, Text, count, emphasised, number, percent
from cae_lib.report.paper import HARD_CAE_NOTE, NEGCLIP, SETTING, TABLE1
from cae_lib.report.runs import (
    BASE,
    HARD,
    TUNED,
    all_runs,
    cae_runs,
    hard_cae_runs,
    hard_runs,
    method_label,
    setting,
)
from cae_lib.report.spans import certain, span
from cae_lib.report.stored import NotMeasured, require

SUITE = "benchmarks"
Answers = Mapping[str, Mapping[str, Sequence[ChoiceResult]]]
Arguments = ParamSpec("Arguments")
Shown = TypeVar("Shown")


def _or_pointer(make: Callable[Arguments, Shown]) -> Callable[Arguments, Shown | Text]:
    """Where records are missing, point to the verdict, which says which ones, and say it once."""

    @wraps(make)
    def shown(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Shown | Text:
        try:
            return make(*args, **kwargs)
        except NotMeasured:
            subject = (make.__doc__ or "").partition(".")[0]
            return Text(f"*Not measured yet, see the verdict:* {subject[:1].lower()}{subject[1:]}.")

    return shown


def hard_answers(profile: str, seeds: int, runs: Sequence[str] | None = None) -> Answers:
    """Results by run; by default those of CLIP, CLIP-FT, CLIP-CAE, NegCLIP, and NegCLIP with CAE.

    Raises:
        NotMeasured: The profile has no runs with hard negatives, or a record is missing.
    """
    hard = hard_runs(profile)
    if HARD not in hard or len(hard) == 1:
        raise NotMeasured(
            f"The profile {profile} has no runs with hard negatives: rows named `{HARD}` and "
            "`negclip-cae-METHOD` in its configuration would be trained and shown here."
        )
    chosen = [*all_runs(profile), *hard] if runs is None else runs
    require(chosen, profile, SUITE, seeds)
    return {run: answers(run, profile, seeds) for run in chosen}


def hard_differences(profile: str, seeds: int) -> dict[str, dict[str, Interval]]:
    """NegCLIP with CAE minus NegCLIP on each family, by attribution method.

    Raises:
        NotMeasured: The profile has no such runs, or a record is missing.
    """
    found = hard_answers(profile, seeds, hard_runs(profile))
    return {
        method: family_differences(found[run], found[HARD])
        for run, method in hard_cae_runs(profile).items()
    }


def overall_hard_differences(profile: str, seeds: int) -> dict[str, Interval]:
    """NegCLIP with CAE minus NegCLIP in the mean over families, by attribution method.

    Raises:
        NotMeasured: The profile has no such runs, or a record is missing.
    """
    found = hard_answers(profile, seeds, hard_runs(profile))
    values = {method: overall_difference(found[run], found[HARD])
              for run, method in hard_cae_runs(profile).items()}  # fmt: skip
    return {method: value for method, value in values.items() if value is not None}


def finding(profile: str, seeds: int) -> str | None:
    """What CAE adds to NegCLIP in the mean over families; None where it is not measured."""
    try:
        found = overall_hard_differences(profile, seeds)
    except NotMeasured:
        return None
    return (
        "Added to hard negatives (NegCLIP), CAE changes the mean accuracy over seven families by "
        f"{span(found)} points; it is {certain(found, 'up for certain', 'down')}."
    )


@_or_pointer
def overview_table(profile: str, seeds: int) -> Table:
    """The mean over families with and without hard negatives, with and without CAE."""
    found = hard_answers(profile, seeds)
    plain, hard = ({method: run for run, method in runs(profile).items()}
                   for runs in (cae_runs, hard_cae_runs))  # fmt: skip
    pairs = {"none": (TUNED, HARD)} | {m: (plain[m], hard[m]) for m in plain if m in hard}
    rows = []
    for method, (first, second) in pairs.items():
        levels = [overall_score(found[run]) for run in (first, second)]
        gains = [overall_difference(found[second], found[first])]
        gains += [overall_difference(found[run], found[reference]) if run != reference else None
                  for run, reference in ((first, TUNED), (second, HARD))]  # fmt: skip
        rows.append([
            method_label(method),
            *(percent(score.interval(), lines=True) if score else NONE for score in levels),
            *(emphasised(percent(v, sign=True, lines=True), v is not None and v.excludes_zero)
              for v in gains),
        ])  # fmt: skip
    some = overall_score(found[HARD])
    return Table(
        name="tab-hard-overview",
        caption="Mean accuracy over the seven families in percent, and differences in points "
        f"(bold: the interval excludes zero), {count(seeds, 'seed')} of each model, "
        f"{some.n_used if some else 0} items; 95 % bootstrap intervals over seeds and items. Row "
        "“none”: CLIP-FT and NegCLIP; the others add CAE by that method.",
        header=["CAE by", "without negatives", "with negatives", "negatives add",
                "CAE adds without", "CAE adds with"],
        rows=rows,
    )  # fmt: skip


@_or_pointer
def hard_score_table(profile: str, seeds: int) -> Table:
    """Scores of CLIP, CLIP-FT, NegCLIP, and NegCLIP with CAE."""
    found = hard_answers(profile, seeds)
    table = tables.score_table({run: found[run] for run in (BASE, TUNED, *hard_runs(profile))})
    rows = [[f"{name}<br>n {n}, chance {chance}", *cells] for name, n, chance, *cells in table.rows]
    header = [table.header[0], *table.header[3:]]
    return replace(table, name="tab-hard-benchmarks", header=header, rows=rows)


@_or_pointer
def hard_difference_table(profile: str, seeds: int) -> Table:
    """Differences between NegCLIP with CAE and NegCLIP, by family."""
    table = tables.difference_table(hard_answers(profile, seeds, hard_runs(profile)), HARD)
    return replace(table, name="tab-hard-differences")


@_or_pointer
def negatives_alone_table(profile: str, seeds: int) -> Table:
    """NegCLIP minus CLIP-FT beside CLIP-CAE minus CLIP-FT."""
    found = hard_answers(profile, seeds)
    plain = tables.differences(found)
    hard = tables.differences({TUNED: found[TUNED], HARD: found[HARD]}, TUNED, [HARD])
    table = tables.differences_as_table(hard | plain, TUNED, seeds)
    return replace(table, name="tab-hard-alone")


@_or_pointer
def hard_figure(profile: str, seeds: int) -> Figure:
    """The differences to NegCLIP as a figure."""
    found = hard_answers(profile, seeds, hard_runs(profile))
    return forest(tables.differences(found, HARD), HARD)


@_or_pointer
def hard_paper_table(profile: str, seeds: int) -> Table:
    """The paper's NegCLIP beside its CLIP-FT, and our difference."""
    found = hard_answers(profile, seeds, [TUNED, *hard_runs(profile)])
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
                     number(gain, 1, sign=True), percent(own, sign=True, lines=True),
                     tables.agreement(gain, own)])  # fmt: skip
    return Table(
        name="tab-hard-paper",
        caption=f"What hard negatives alone do: the numbers of the paper's authors ({SETTING}) "
        f"beside ours ({setting(profile)}; NegCLIP minus CLIP-FT, 95 % interval over "
        f"{count(seeds, 'seed')} and items). Levels cannot be compared between the two; "
        "directions can.",
        header=["benchmark", "paper: CLIP-FT", "paper: NegCLIP", "paper: difference",
                "ours: difference", "direction"],
        rows=rows or [[NONE] * 6],
        notes=[HARD_CAE_NOTE],
    )  # fmt: skip
