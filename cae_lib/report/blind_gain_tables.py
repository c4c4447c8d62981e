"""Tables of CAE's gain beside what is got without the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cae_lib.evaluation.statistics import Interval
from cae_lib.report.benchmarks import COLUMNS, Score, answers, column_score, mean_score
from cae_lib.report.blind import (
    AVERAGE,
    blind_answers,
    cae_choosers,
    chooser_label,
    main_choosers,
)
from cae_lib.report.blind_gains import (
    STANDINGS,
    Subset,
    by_standing,
    compared_subsets,
    correlation,
    difference,
    excesses,
    gains_without_pictures,
)
from cae_lib.report.blind_tables import amount
from cae_lib.report.markup import Table, count, emphasised, interval, number, percent
from cae_lib.report.runs import TUNED, cae_runs
from cae_lib.report.stored import if_measured, require


@if_measured
def standing_table(profile: str, seeds: int) -> Table:
    """CAE's gain where the likelier caption is right above, at and below chance."""
    groups = by_standing(compared_subsets(profile, seeds))
    rows = []
    for name in STANDINGS:
        if name in groups:
            rows.append(_standing_row(name, groups[name]))
    rows.append(_standing_row("all", [s for found in groups.values() for s in found]))
    return Table(
        name="tab-blind-standing",
        caption="Subsets by what the likelier caption gets on them, unweighted means over the "
        "subsets: accuracy minus chance, and differences of models with the picture, in points, "
        f"with 95 % bootstrap intervals over {count(seeds, 'seed')} and items; CLIP-CAE is the "
        "mean over its methods. Bold: the interval excludes zero.",
        header=["likelier caption is", "subsets", "items", "blind − chance",
                "CLIP-FT − chance", "CLIP-FT − CLIP", "CAE − CLIP-FT", "up", "down"],
        rows=rows,
        notes=["up, down: subsets on which CAE − CLIP-FT is above, below zero for certain. Several "
               "subsets of VL-CheckList share pictures and captions."],
    )  # fmt: skip


def _standing_row(name: str, subsets: Sequence[Subset]) -> list[str]:
    tuning = difference([s.tuned for s in subsets], [s.base for s in subsets])
    gain = difference([s.cae for s in subsets], [s.tuned for s in subsets])
    level = np.mean([s.tuned.interval().estimate - s.blind.chance for s in subsets])
    return [
        name, str(len(subsets)), str(sum(s.blind.n_used for s in subsets)),
        number(100 * float(np.mean([s.excess for s in subsets])), 1, sign=True),
        number(100 * float(level), 1, sign=True),
        *(emphasised(percent(v, sign=True, lines=True), v.excludes_zero) for v in (tuning, gain)),
        str(sum(s.gain.low > 0 for s in subsets)), str(sum(s.gain.high < 0 for s in subsets)),
    ]  # fmt: skip


@if_measured
def correlation_table(profile: str, seeds: int) -> Table:
    """Over subsets: what goes with the gain of fine-tuning, and with CAE's."""
    subsets = compared_subsets(profile, seeds)
    keys = [s.key for s in subsets]
    gains = {s.key: s.gain.estimate for s in subsets}
    tuning = {s.key: difference([s.tuned], [s.base]).estimate for s in subsets}
    sides: dict[str, Mapping[str, float]] = {
        f"{chooser_label(name)}, minus chance": excesses(profile, name, keys)
        for name in main_choosers(profile)
    }
    alone = gains_without_pictures(profile, keys)
    sides["CAE − CLIP-FT, average picture"] = {key: v.estimate for key, v in alone.items()}
    rows = [
        [name, str(len(side)), *(interval(correlation(side, other), 2, sign=True)
                                 for other in (tuning, gains))]
        for name, side in sides.items()
        if side
    ]  # fmt: skip
    return Table(
        name="tab-blind-correlation",
        caption="Spearman's correlation over subsets (n of them) of what is got without the "
        "picture with two gains made with it; 95 % bootstrap intervals over subsets. Subsets of a "
        "family share items, so the intervals are too narrow.",
        header=["without the picture", "n", "with CLIP-FT − CLIP", "with CAE − CLIP-FT"],
        rows=rows,
    )


@if_measured
def language_table(profile: str, seeds: int) -> Table:
    """CAE's gain with the picture, and with the average picture in place of every picture."""
    runs = list(cae_runs(profile))
    require([TUNED, *runs], profile, "benchmarks", seeds)
    seeing = {run: answers(run, profile, seeds) for run in (TUNED, *runs)}
    blind = {name: blind_answers(profile, name) for name in cae_choosers(profile)}
    tuned = blind_answers(profile, AVERAGE + TUNED)
    rows = []
    for column in COLUMNS:
        scores = [column_score(column, found) for found in (tuned, *blind.values())]
        if not blind or any(score is None for score in scores):
            continue
        levels = [column_score(column, seeing[run]) for run in (TUNED, *runs)]
        alone = _mean_minus(scores)
        rows.append([
            column.label, amount(scores[0]),
            *(number(100 * s.interval().estimate, 1) for s in (scores[0], mean_score(scores[1:]))),
            emphasised(percent(alone, sign=True), alone.excludes_zero),
            percent(_mean_minus(levels), sign=True),
        ])  # fmt: skip
    return Table(
        name="tab-blind-language",
        caption="CLIP-CAE (mean over methods) and CLIP-FT with the average picture in place of "
        "every picture, seed 0: accuracy in percent and difference in points, beside the "
        f"difference with the pictures ({count(seeds, 'seed')}); 95 % bootstrap intervals over "
        "items, with the pictures over seeds too. Bold: the interval excludes zero.",
        header=["benchmark", "n", "CLIP-FT, average picture", "CAE, average picture",
                "CAE − FT, average picture", "CAE − FT, with the picture"],
        rows=rows,
    )  # fmt: skip


def _mean_minus(scores: Sequence[Score]) -> Interval:
    """Mean of all scores but the first, minus the first."""
    return difference([mean_score(scores[1:])], [scores[0]])
