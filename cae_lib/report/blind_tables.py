"""Tables of what is got without the picture, by benchmark and by subset."""

from __future__ import annotations

from cae_lib.report.benchmarks import COLUMNS, Score, answers, column_score
from cae_lib.report.blind import (
    AVERAGE,
    blind_answers,
    blind_results,
    chooser_label,
    main_choosers,
    without_captions,
)
from cae_lib.report.blind_gains import (
    SLACK,
    compared_subsets,
)
from cae_lib.report.markup import NONE, Table, count, emphasised, number, percent
from cae_lib.report.runs import TUNED, label
from cae_lib.report.stored import if_measured, require


@if_measured
def blind_table(profile: str, seeds: int) -> Table:
    """Accuracy of each blind chooser on the benchmarks of Table 1, beside CLIP-FT's."""
    require([TUNED], profile, "benchmarks", seeds)
    tuned = answers(TUNED, profile, seeds)
    choosers = main_choosers(profile)
    found = {name: blind_answers(profile, name) for name in choosers}
    rows = []
    for column in COLUMNS:
        with_picture = column_score(column, tuned)
        if with_picture is None:
            continue
        cells = [_against_chance(column_score(column, part)) for part in found.values()]
        cells.append(percent(with_picture.interval(), lines=True))
        chance = f"{100 * with_picture.chance:.1f}"
        rows.append([column.label, amount(with_picture), chance, *cells])
    record = blind_results(profile)
    return Table(
        name="tab-blind",
        caption="Accuracy in percent of choosers that do not see the picture, and of CLIP-FT that "
        "does; 95 % bootstrap intervals over items, for CLIP-FT over "
        f"{count(seeds, 'seed')} too; averaged as in Table 1. A blind chooser guesses among ties "
        "(expected accuracy); for CLIP-FT a tie is wrong. Bold: for certain above chance. "
        f"{NONE}: the benchmark asks for a picture, not for a caption.",
        header=["benchmark", "n", "chance", *map(chooser_label, choosers),
                f"{label(TUNED)}, with the picture"],
        rows=rows,
        notes=[f"The trigram model knows {record['n_captions']} of "
               f"{record['n_captions_expected']} training captions; the average picture is the "
               f"mean embedding of {count(record['n_pictures'], 'training picture')}; models "
               "with it are of seed 0."],
    )  # fmt: skip


def amount(score: Score) -> str:
    """n used, with n expected where they differ."""
    if score.n_used == score.n_expected:
        return f"{score.n_used}"
    return f"**{score.n_used}** of {score.n_expected}"


def _against_chance(score: Score | None) -> str:
    if score is None:
        return NONE
    found = score.interval()
    return emphasised(percent(found, lines=True), found.low > score.chance + SLACK)


@if_measured
def blind_subset_table(profile: str, seeds: int) -> Table:
    """Every subset: blind choosers by words, chance, CLIP-FT and CAE's gain."""
    choosers = [name for name in main_choosers(profile) if not name.startswith(AVERAGE)]
    found = {name: blind_answers(profile, name) for name in choosers}
    rows = []
    for subset in compared_subsets(profile, seeds):
        values = [100 * found[name][subset.key][0].value for name in choosers]
        rows.append([
            f"`{subset.key}`", amount(subset.blind), f"{100 * subset.blind.chance:.1f}",
            *(number(value, 1) for value in values), subset.standing,
            number(100 * subset.tuned.interval().estimate, 1), percent(subset.gain, sign=True),
        ])  # fmt: skip
    absent = ", ".join(f"`{key}`" for key in without_captions(profile))
    return Table(
        name="tab-blind-subsets",
        caption="Accuracy in percent on every subset that asks for one of several captions, by its "
        "own averaging rule, and the gain of CLIP-CAE (mean over methods) over CLIP-FT in points "
        f"with its 95 % interval over {count(seeds, 'seed')} and items. Judgement: by the 95 % "
        "interval of the likelier caption.",
        header=["subset", "n", "chance", *map(chooser_label, choosers), "judgement",
                label(TUNED), "CAE − FT"],
        rows=rows,
        notes=[f"Not applicable, since a picture is chosen: {absent or 'none'}. Left out, since "
               "no blind chooser can be right on both of an item's pictures: Winoground."],
        collapsed="All subsets",
    )  # fmt: skip
