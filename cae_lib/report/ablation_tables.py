"""Text and tables of the ablation: what follows, the settings, the families."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cae_lib.evaluation.statistics import Interval
from cae_lib.report.ablation import (
    SHARED,
    Trial,
    exceeding,
    limit_words,
    price_of_levelling,
    trials,
)
from cae_lib.report.attribution_tables import sample
from cae_lib.report.benchmarks import FAMILIES
from cae_lib.report.claims import Outcome
from cae_lib.report.markup import (
    NONE,
    Table,
    Text,
    count,
    emphasised,
    interval,
    listing,
    number,
    percent,
)
from cae_lib.report.runs import label, method_label
from cae_lib.report.stored import if_measured
from cae_lib.report.variants import MEAN, commands_text, describe, length
from cae_lib.report.yardstick import CERTAINTY, Yardstick, yardstick
from cae_lib.studies import ablations

SHORT: Mapping[Outcome, str] = {
    "level": "level",
    "reversed": "beyond level",
    "reduced": "smaller gap",
    "open": "gap not smaller for certain",
    "none": "no gap to close",
}
"""`claims.OUTCOMES` as cells of a table."""


def name_of(trial: Trial) -> str:
    """A run and its setting in a few words."""
    return f"{label(trial.variant.run)}, {describe(trial.variant)}"


def _short_name(trial: Trial) -> str:
    """The setting, with its run where that is not CAE by the method that most are tried with."""
    text = describe(trial.variant)
    if not trial.is_cae:
        return f"CLIP-FT, {text}"
    return text if trial.method == SHARED else f"{method_label(trial.method)}, {text}"


@if_measured
def judge_ablation(profile: str) -> Text:
    """Which settings still level the groups, and which change the benchmarks."""
    found, measure = trials(profile), yardstick(profile)
    lines = [_levelling(found), "", _changes(found, measure), "", _seed_note(measure)]
    return Text("\n".join(lines))


def _levelling(found: Sequence[Trial]) -> str:
    cae = [trial for trial in found if trial.is_cae and trial.change]
    level = [trial for trial in cae if trial.outcome == "level"]
    rest = [f"{name_of(t)} ({SHORT[t.outcome]})" for t in cae if t.outcome != "level"]
    references = [f"{label(t.variant.run)} {SHORT[t.outcome]}" for t in found
                  if t.is_cae and not t.change]  # fmt: skip
    others = f" The others: {'; '.join(rest)}." if rest else ""
    return (
        f"**Levelling.** {len(level)} of {count(len(cae), 'changed setting')} with CAE leave the "
        f"groups level by the rule of C2.{others} For comparison, with the settings of the "
        f"profile: {listing(references)}."
    )


def _changes(found: Sequence[Trial], measure: Yardstick | None) -> str:
    changed = [trial for trial in found if trial.change]
    moved = exceeding(found, measure)
    named = [f"{name_of(t)} by {percent(t.change[MEAN], sign=True)}" for t in moved]
    chance = (1 - CERTAINTY) * len(changed)
    return (
        f"**Benchmarks.** {limit_words(measure)} with {len(moved)} of "
        f"{count(len(changed), 'changed setting')}{': ' if named else ''}{'; '.join(named)}. By "
        f"chance alone about {number(chance, 1)} would. {price_of_levelling(found)}"
    )


def _seed_note(measure: Yardstick | None) -> str:
    if measure is None:
        return (
            "**One seed.** Each setting was run with one seed, and no run of this length has been "
            "measured with several, so nothing here says what another seed would have given."
        )
    return (
        "**One seed.** Each setting was run with one seed, so the intervals cover items alone. The "
        f"yardstick is the difference that {100 * CERTAINTY:.0f} % of pairs of runs stay below "
        "which differ in nothing but their seed: from "
        f"{count(measure.runs, 'run')} of this length, CLIP-FT and CAE from each base model, with "
        f"{count(measure.seeds, 'seed')} each, by Student's t. A setting and its reference share "
        "the seed, so the yardstick is rather too strict than too lax."
    )


@if_measured
def ablation_table(profile: str) -> Table:
    """Gap, levelling, and the mean of the families of every run."""
    found, measure = trials(profile), yardstick(profile)
    first = found[0].own
    return Table(
        name="tab-ablation",
        caption=f"Each setting with one seed, {length(profile)}. Gap A_obj − A_comp: by the run's "
        f"own method (of CLIP-FT by {method_label(SHARED)}), beside that of CLIP-FT by the same "
        f"method; {sample(first)}. Families: unweighted mean of the seven, in percent, and "
        "differences in points on the same items; minus CLIP-FT: of the same length, training the "
        "same towers. Brackets: 95 % bootstrap intervals over captions or items. Bold: the "
        "interval excludes zero"
        f"{' and the difference exceeds the yardstick of the seed' if measure else ''}.",
        header=["model", "setting", "gap", "gap of CLIP-FT", "groups", "mean of families",
                "minus reference", "minus CLIP-FT"],
        rows=[_row(trial, measure) for trial in found],
        left=2,
    )  # fmt: skip


def _row(trial: Trial, measure: Yardstick | None) -> list[str]:
    gap = interval(trial.own.gap.interval(), trial.plain.decimals, lines=True)
    before = number(trial.plain.gap.estimate, trial.plain.decimals) if trial.is_cae else NONE
    groups = SHORT[trial.outcome] if trial.outcome else NONE
    return [
        label(trial.variant.run), describe(trial.variant), gap, before, groups,
        percent(trial.level, lines=True), _cell(MEAN, trial.change.get(MEAN), measure),
        _cell(MEAN, trial.gain, measure),
    ]  # fmt: skip


def _cell(name: str, found: Interval | None, measure: Yardstick | None) -> str:
    if found is None:
        return NONE
    strong = measure.exceeded(name, found) if measure else found.excludes_zero
    return emphasised(percent(found, sign=True, lines=True), strong)


@if_measured
def family_table(profile: str) -> Table:
    """Each family's difference to the reference, and the yardstick below."""
    found, measure = [t for t in trials(profile) if t.change], yardstick(profile)
    names = [name for name in FAMILIES if name in found[0].change]
    rows = [
        [_short_name(trial), *(_cell(name, trial.change[name], measure) for name in names)]
        for trial in found
    ]
    if measure:
        limits = [f"±{number(100 * measure.limits[name], 1)}" for name in names]
        rows.append(["*another seed*", *limits])
    items = ", ".join(f"{name} {found[0].change[name].n_items}" for name in names)
    return Table(
        name="tab-ablation-families",
        caption="Accuracy minus that of the same run with the profile's settings, in percentage "
        f"points; one seed, {length(profile)}; the same items (n: {items}), 95 % bootstrap "
        f"intervals over them. Settings without a model: of CAE by {method_label(SHARED)}. Bold: "
        "the interval excludes zero"
        + (" and the difference exceeds what another seed gives, in the last row." if measure
           else "."),
        header=["setting", *names],
        rows=rows,
    )  # fmt: skip


def repeat(profile: str) -> Text:
    """The commands of every run, folded."""
    return commands_text(ablations(profile), profile)
