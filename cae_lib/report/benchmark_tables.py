"""Table 1 and what belongs to it: scores, differences, the paper's numbers, the subsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cae_lib.evaluation.results import ChoiceResult
from cae_lib.evaluation.statistics import Interval
from cae_lib.report.benchmarks import (
    COLUMNS,
    FAMILIES,
    Column,
    Score,
    column_score,
    family_score,
    mean_score,
    subset_score,
)
from cae_lib.report.markup import NONE, Table, count, emphasised, number, percent
from cae_lib.report.paper import SETTING, TABLE1
from cae_lib.report.runs import CAE, HARD, HARD_CAE, TUNED, label

Found = Mapping[str, Mapping[str, Sequence[ChoiceResult]]]
"""Results by run, then by `family/subset`, one a seed."""


def _columns(found: Found) -> list[Column]:
    """Columns that every run has results for."""
    return [c for c in COLUMNS if all(column_score(c, part) is not None for part in found.values())]


def _seeds(found: Found) -> int:
    return max(len(parts) for run in found.values() for parts in run.values())


def _amount(score: Score) -> str:
    """n used, with n expected where they differ."""
    if score.n_used == score.n_expected:
        return f"{score.n_used}"
    return f"**{score.n_used}** of {score.n_expected}"


def score_table(found: Found) -> Table:
    """Every run's score on every benchmark, with intervals."""
    rows, notes = [], []
    for column in _columns(found):
        scores = {run: column_score(column, part) for run, part in found.items()}
        first = scores[next(iter(found))]
        cells = [percent(score.interval(), lines=True) for score in scores.values()]
        rows.append([column.label, _amount(first), f"{100 * first.chance:.1f}", *cells])
        if first.absent:
            notes.append(f"{column.label}: the data have no {', '.join(first.absent)}; the other "
                         "subsets carry the weight.")  # fmt: skip
    return Table(
        name="tab-benchmarks",
        caption="Accuracy in percent on the composition benchmarks, with 95 % bootstrap intervals "
        f"over seeds and items; {count(_seeds(found), 'seed')} of each trained model averaged, "
        "one CLIP. A tie counts as wrong. n: items used, and expected where that differs.",
        header=["benchmark", "n", "chance", *(label(run) for run in found)],
        rows=rows,
        notes=notes,
    )


def rules_table() -> Table:
    """How each benchmark is averaged."""
    return Table(
        name="tab-averaging",
        caption="How the subsets of each benchmark are averaged, which is the paper's way as far "
        "as it is known. The number of a family is the unweighted mean of its rows.",
        header=["benchmark", "family", "averaging"],
        rows=[[c.label, c.family or NONE, c.rule] for c in COLUMNS],
        left=3,
        collapsed="How the numbers are averaged",
    )


def differences(
    found: Found, against: str = TUNED, runs: Sequence[str] | None = None
) -> dict[str, dict[str, Interval]]:
    """For each run, its score minus that of `against`, by family, then by further column.

    By default CLIP-FT is compared with the runs of CAE alone, NegCLIP with those of both.
    """
    table: dict[str, dict[str, Interval]] = {}
    for run in _cae(found, against) if runs is None else runs:
        row = {name: _difference(family_score(name, found[run]), family_score(name, found[against]))
               for name in FAMILIES}  # fmt: skip
        for column in COLUMNS:
            if column.family is None:
                pair = column_score(column, found[run]), column_score(column, found[against])
                row[column.label] = _difference(*pair)
        table[run] = {name: value for name, value in row.items() if value is not None}
    return table


def _cae(found: Found, against: str = TUNED) -> list[str]:
    prefix = HARD_CAE if against == HARD else CAE
    return [run for run in found if run.startswith(prefix)]


def _difference(first: Score | None, second: Score | None) -> Interval | None:
    return first.minus(second) if first is not None and second is not None else None


def difference_table(found: Found, against: str = TUNED) -> Table:
    """CAE minus `against` in points, by family; bold where the interval excludes zero."""
    return differences_as_table(differences(found, against), against, _seeds(found))


def differences_as_table(
    table: Mapping[str, Mapping[str, Interval]], against: str, seeds: int
) -> Table:
    """Differences to `against` by run, in points; bold where the interval excludes zero."""
    names = list(dict.fromkeys(name for row in table.values() for name in row))
    rows = []
    for name in names:
        values = [table[run].get(name) for run in table]
        cells = [
            emphasised(percent(v, sign=True, lines=len(table) > 2),
                       v is not None and v.excludes_zero)
            for v in values
        ]  # fmt: skip
        rows.append([name if name in FAMILIES else f"*{name}*", *cells])
    return Table(
        name="tab-differences",
        caption=f"Accuracy minus that of {label(against)} in percentage points on each of the "
        "seven families, on the same items and seeds; 95 % bootstrap intervals over "
        f"{count(seeds, 'seed')} and items. Bold: the interval excludes zero. Italic: "
        "beside the seven families.",
        header=["family", *(label(run) for run in table)],
        rows=rows,
    )


def paper_table(found: Found, ours: str) -> Table:
    """The paper's numbers beside ours.

    Args:
        found: Our results.
        ours: The setting that they come from, see `runs.setting`.
    """
    runs, rows, notes = _cae(found), [], []
    for column in _columns(found):
        if column.key not in TABLE1:
            continue
        printed = TABLE1[column.key]
        scores = [column_score(column, found[run]) for run in runs]
        own = mean_score(scores).minus(column_score(column, found[TUNED])) if runs else None
        rows.append([
            column.label, *(number(v, 1) for v in (printed.clip, printed.tuned, printed.cae)),
            number(printed.gain, 1, sign=True), percent(own, sign=True, lines=True),
            agreement(printed.gain, own),
        ])  # fmt: skip
        if printed.note:
            notes.append(f"{column.label}, paper: {printed.note}.")
    return Table(
        name="tab-paper",
        caption=f"The paper's numbers ({SETTING}; CLIP-CAE is the mean of the four attribution "
        f"methods, as the same authors quote it later) beside our difference ({ours}; mean "
        f"of {count(len(runs), 'method')}, {count(_seeds(found), 'seed')}, 95 % interval). Levels "
        "cannot be compared between the two; directions can.",
        header=["benchmark", "paper: CLIP", "paper: CLIP-FT", "paper: CLIP-CAE",
                "paper: CAE − FT", "ours: CAE − FT", "direction"],
        rows=rows,
        notes=notes,
    )  # fmt: skip


def agreement(printed: float | None, ours: Interval | None) -> str:
    """Whether two differences have the same sign, as far as ours is certain."""
    if printed is None or ours is None:
        return NONE
    if not ours.excludes_zero:
        return "not told apart"
    return "same" if (printed > 0) == (ours.estimate > 0) else "opposite"


def subset_table(found: Found) -> Table:
    """Every subset by its own averaging rule, without intervals."""
    first = found[next(iter(found))]
    rows = []
    for key, parts in first.items():
        scores = [subset_score(part[key]) for part in found.values() if key in part]
        values = [100 * score.interval().estimate for score in scores]
        amount, chance = _amount(subset_score(parts)), f"{100 * parts[0].chance:.1f}"
        rows.append([f"`{key}`", amount, chance, *(number(v, 1) for v in values), parts[0].rule])
    return Table(
        name="tab-subsets",
        caption="Accuracy in percent on every subset, each averaged by its own rule; mean over "
        f"{count(_seeds(found), 'seed')} of each trained model, one CLIP.",
        header=["subset", "n", "chance", *(label(run) for run in found), "averaging"],
        rows=rows,
        collapsed="All subsets",
    )
