"""The activation control as tables: what reading weights with GELU does, and what training does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cae_lib.activation_control import BASE_OTHER, TUNED_OTHER, TUNED_UNDER_OTHER
from cae_lib.evaluation.results import ChoiceResult
from cae_lib.evaluation.statistics import Interval
from cae_lib.report.benchmarks import COLUMNS, FAMILIES, answers, column_score, family_score
from cae_lib.report.families import overall_score
from cae_lib.report.markup import Table, Text, count, emphasised, percent
from cae_lib.report.retrieval import CELLS, cell_label, recall
from cae_lib.report.runs import BASE, TUNED
from cae_lib.report.stored import NotMeasured, if_measured, missing_records, require

OVERALL = "mean of the families"
LABELS: Mapping[str, str] = {
    BASE: "CLIP (QuickGELU)",
    BASE_OTHER: "CLIP (GELU)",
    TUNED: "CLIP-FT (QuickGELU)",
    TUNED_OTHER: "CLIP-FT (QuickGELU, read with GELU)",
    TUNED_UNDER_OTHER: "CLIP-FT (GELU)",
}
ONCE = (BASE, BASE_OTHER)
"""Rows without seeds."""


@dataclass(frozen=True)
class Step:
    """A difference of two rows.

    Attributes:
        name: What it stands for.
        of, minus: The two rows.
    """

    name: str
    of: str
    minus: str


PRINTED = Step("as the papers' scripts give it", TUNED_OTHER, BASE)
RELOAD = Step("of that: the activation alone", BASE_OTHER, BASE)
REST = Step("of that: fine-tuning, read with GELU", TUNED_OTHER, BASE_OTHER)
TRAINING = Step("fine-tuning, one activation", TUNED, BASE)
STEPS = (PRINTED, RELOAD, REST, TRAINING)

Found = Mapping[str, Mapping[str, Sequence[ChoiceResult]]]


def control_answers(profile: str, seeds: int) -> Found:
    """Results of every row on the benchmarks; CLIP-FT (GELU) only where it was trained.

    Raises:
        NotMeasured: A record is missing.
    """
    require([BASE, TUNED], profile, "benchmarks", seeds)
    missing = missing_records([BASE_OTHER], profile, "benchmarks", 1)
    missing += missing_records([TUNED_OTHER], profile, "benchmarks", seeds)
    if missing:
        raise NotMeasured(
            f"Not measured yet in the profile {profile}: `{missing[0]}` and others; they come "
            f"from `cae evaluate {BASE_OTHER} --profile {profile}`."
        )
    rows = [BASE, BASE_OTHER, TUNED, TUNED_OTHER]
    if not missing_records([TUNED_UNDER_OTHER], profile, "benchmarks", seeds):
        rows.append(TUNED_UNDER_OTHER)
    return {row: answers(row, profile, 1 if row in ONCE else seeds) for row in rows}


def steps(found: Found) -> dict[str, dict[str, Interval]]:
    """For each step, its difference by family and overall."""
    scores = {row: {name: family_score(name, part) for name in FAMILIES}
              | {OVERALL: overall_score(part)} for row, part in found.items()}  # fmt: skip
    return {
        step.name: {
            name: score.minus(scores[step.minus][name])
            for name, score in scores[step.of].items()
            if score is not None and scores[step.minus][name] is not None
        }
        for step in STEPS
    }


@if_measured
def finding(profile: str, seeds: int) -> Text:
    """What the control says, in three sentences."""
    found = {name: row[OVERALL] for name, row in steps(control_answers(profile, seeds)).items()}
    printed, reload, training = (found[s.name] for s in (PRINTED, RELOAD, TRAINING))
    lines = [
        f"Reading the same CLIP with GELU in place of QuickGELU moves the mean of the seven "
        f"families by {percent(reload, sign=True)} points. Fine-tuning, with QuickGELU throughout, "
        f"moves it by {percent(training, sign=True)} points. Trained with one and read with the "
        f"other, as the papers' scripts do, CLIP-FT would be printed as {_change(printed)}.",
        "", _share(printed, reload),
    ]  # fmt: skip
    return Text("\n".join(lines))


def _change(found: Interval) -> str:
    word = "better than" if found.low > 0 else "worse than" if found.high < 0 else ""
    return f"{word or 'not certainly different from'} CLIP ({percent(found, sign=True)})"


def _share(printed: Interval, reload: Interval) -> str:
    """How much of the printed difference is the activation."""
    if not printed.excludes_zero:
        return "That difference is not told apart from zero, so no share of it can be named."
    if not reload.excludes_zero:
        return "The activation alone makes no difference here that could be told from zero."
    share = reload.estimate / printed.estimate
    if not 0 <= share <= 1:
        return ("The activation alone moves it against that difference, or by more than all of it, "
                "so no share of it can be named.")  # fmt: skip
    return f"Of that difference, {100 * share:.0f} % is the activation, without any training."


@if_measured
def control_score_table(profile: str, seeds: int) -> Table:
    """Every row's score on each benchmark."""
    found = control_answers(profile, seeds)
    rows = []
    for column in COLUMNS:
        scores = {row: column_score(column, part) for row, part in found.items()}
        first = scores[BASE]
        if first is None or any(score is None for score in scores.values()):
            continue
        amount = f"{first.n_used}"
        if first.n_used != first.n_expected:
            amount = f"**{first.n_used}** of {first.n_expected}"
        rows.append([column.label, amount, f"{100 * first.chance:.1f}",
                     *(percent(score.interval(), lines=True) for score in scores.values())])
    return Table(
        name="tab-activation-scores",
        caption="Accuracy in percent with each activation, with 95 % bootstrap intervals over "
        f"seeds and items; {count(seeds, 'seed')} of CLIP-FT averaged, one CLIP. In brackets: the "
        "activation in training, and at reading where it is another one.",
        header=["benchmark", "n", "chance", *(LABELS[row] for row in found)],
        rows=rows,
    )


@if_measured
def step_table(profile: str, seeds: int) -> Table:
    """The four differences by family, in points."""
    found = steps(control_answers(profile, seeds))
    names = list(next(iter(found.values())))
    rows = [
        [f"*{name}*" if name == OVERALL else name,
         *(emphasised(percent(row[name], sign=True, lines=True), row[name].excludes_zero)
           for row in found.values())]
        for name in names
    ]  # fmt: skip
    definitions = "; ".join(f"*{s.name}*: {LABELS[s.of]} − {LABELS[s.minus]}" for s in STEPS)
    return Table(
        name="tab-activation-steps",
        caption="CLIP-FT minus CLIP in percentage points, taken apart; 95 % bootstrap intervals "
        f"over {count(seeds, 'seed')} and the same items. Bold: the interval excludes zero.",
        header=["family", *found],
        rows=rows,
        notes=[f"{definitions}."],
    )


@if_measured
def control_recall_table(profile: str, seeds: int) -> Table:
    """Recall at 1 with each activation."""
    found = control_answers(profile, seeds)
    rows = [
        [cell_label(*cell),
         *(percent(recall(row, profile, *cell, 1, 1 if row in ONCE else seeds), lines=True)
           for row in found)]
        for cell in CELLS
    ]  # fmt: skip
    return Table(
        name="tab-activation-recall",
        caption="Recall at 1 in percent with each activation, with 95 % bootstrap intervals over "
        f"seeds and queries; {count(seeds, 'seed')} of CLIP-FT, one CLIP.",
        header=["set and direction", *(LABELS[row] for row in found)],
        rows=rows,
    )
