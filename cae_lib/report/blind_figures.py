"""Two figures: what is solved without the picture, and CAE's gain against it."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import seaborn as sns

from cae_lib.evaluation.statistics import Interval
from cae_lib.report.benchmarks import COLUMNS, Score, answers, column_score
from cae_lib.report.blind import LIKELIHOOD, blind_answers, chooser_label
from cae_lib.report.blind_gains import Subset, compared_subsets, correlation
from cae_lib.report.figure import NEUTRAL, WIDTH, Figure, finish, style
from cae_lib.report.markup import interval, number, percent
from cae_lib.report.runs import TUNED, label
from cae_lib.report.stored import if_measured, require

FAMILY_LABELS = {
    "aro": "ARO", "order": "ARO, order", "sugarcrepe": "SugarCrepe",
    "vl_checklist": "VL-CheckList", "valse": "VALSE", "crepe": "CREPE", "whatsup": "What'sUp",
    "crepe_systematicity": "CREPE, systematicity",
}  # fmt: skip
MARKERS = "osD^vP*X"


@if_measured
def solved_figure(profile: str, seeds: int) -> Figure:
    """The likelier and the shorter caption beside CLIP-FT with the picture, and chance."""
    require([TUNED], profile, "benchmarks", seeds)
    sides = {
        chooser_label("shorter"): blind_answers(profile, "shorter"),
        chooser_label(LIKELIHOOD): blind_answers(profile, LIKELIHOOD),
        f"{label(TUNED)}, with the picture": answers(TUNED, profile, seeds),
    }
    rows: dict[str, dict[str, Score]] = {}
    for column in COLUMNS:
        scores = {name: column_score(column, found) for name, found in sides.items()}
        if all(score is not None for score in scores.values()):
            rows[column.label] = scores
    palette = sns.color_palette("colorblind")
    with style():
        size = (WIDTH, 1.0 + 0.42 * len(rows))
        canvas, axis = plt.subplots(figsize=size, layout="constrained")
        for place, (name, color, marker) in enumerate(
            zip(sides, (palette[1], palette[0], palette[2]), "^os", strict=True)
        ):
            found = [row[name].interval() for row in rows.values()]
            axis.errorbar(
                [100 * v.estimate for v in found],
                [y + 0.2 * (place - 1) for y in range(len(rows))],
                xerr=_errors(found),
                linestyle="",
                capsize=3,
                markersize=6,
                marker=marker,
                color=color,
                label=name,
            )
        chance = [100 * row[chooser_label(LIKELIHOOD)].chance for row in rows.values()]
        axis.vlines(chance, [y - 0.4 for y in range(len(rows))],
                    [y + 0.4 for y in range(len(rows))], color=NEUTRAL, label="chance")  # fmt: skip
        axis.set_yticks(range(len(rows)), list(rows))
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_xlim(-2, 102)
        axis.set_xlabel("accuracy, %")
        axis.grid(axis="y", visible=False)
        canvas.legend(loc="outside upper center", ncols=4)
        return finish(canvas, _solved_alt(rows))


def _errors(found: Sequence[Interval]) -> list[list[float]]:
    """Lengths of the two halves of intervals, in percent; never below zero by rounding."""
    return [
        [max(0.0, 100 * (v.estimate - v.low)) for v in found],
        [max(0.0, 100 * (v.high - v.estimate)) for v in found],
    ]


def _solved_alt(rows: dict[str, dict[str, Score]]) -> str:
    parts = [
        f"{name}: " + ", ".join(f"{side} {percent(s.interval())}" for side, s in scores.items())
        + f", chance {number(100 * next(iter(scores.values())).chance, 1)}"
        for name, scores in rows.items()
    ]  # fmt: skip
    return f"Accuracy in percent with 95 % intervals, by benchmark. {'; '.join(parts)}."


@if_measured
def gain_figure(profile: str, seeds: int) -> Figure:
    """CLIP-CAE minus CLIP-FT on each subset against the likelier caption's accuracy there."""
    subsets = compared_subsets(profile, seeds)
    families = list(dict.fromkeys(s.family for s in subsets))
    colors = sns.color_palette("colorblind")
    with style():
        canvas, axis = plt.subplots(figsize=(WIDTH, 4.2), layout="constrained")
        for place, family in enumerate(families):
            found = [s for s in subsets if s.family == family]
            axis.errorbar(
                [100 * s.excess for s in found],
                [100 * s.gain.estimate for s in found],
                yerr=_errors([s.gain for s in found]),
                linestyle="",
                elinewidth=0.7,
                markersize=6,
                marker=MARKERS[place % len(MARKERS)],
                color=colors[place % len(colors)],
                label=FAMILY_LABELS.get(family, family),
            )
        axis.axhline(0, color=NEUTRAL, linewidth=1)
        axis.axvline(0, color=NEUTRAL, linewidth=1)
        axis.set_xlabel("likelier caption, accuracy \N{MINUS SIGN} chance, percentage points")
        axis.set_ylabel(f"CAE \N{MINUS SIGN} {label(TUNED)}, percentage points")
        canvas.legend(loc="outside upper center", ncols=4)
        return finish(canvas, _gain_alt(subsets))


def _gain_alt(subsets: Sequence[Subset]) -> str:
    found = correlation({s.key: s.excess for s in subsets},
                        {s.key: s.gain.estimate for s in subsets})  # fmt: skip
    parts = [f"{s.key}: {number(100 * s.excess, 1, sign=True)}, {percent(s.gain, sign=True)}"
             for s in subsets]  # fmt: skip
    return (
        f"{len(subsets)} subsets: accuracy of the likelier caption minus chance, and CLIP-CAE "
        f"minus CLIP-FT, in percentage points with 95 % intervals. Spearman's correlation "
        f"{interval(found, 2, sign=True)}. {'; '.join(parts)}."
    )
