"""What the blind choosers show, in sentences that follow from the records."""

from __future__ import annotations

from collections.abc import Sequence

from cae_lib.report.blind import AVERAGE, TUNED, blind_results
from cae_lib.report.blind_gains import (
    ABOVE,
    AT,
    Subset,
    by_standing,
    compared_subsets,
    correlation,
    difference,
)
from cae_lib.report.markup import Text, count, interval, listing, number, percent
from cae_lib.report.stored import NotMeasured, if_measured

MOST_NAMED = 5


def finding(profile: str, seeds: int) -> str | None:
    """The main numbers in one sentence; None where they are not measured yet."""
    try:
        subsets = compared_subsets(profile, seeds)
    except NotMeasured:
        return None
    return f"{_solved(subsets)}; {_gains(subsets)}." if subsets else None


@if_measured
def blind_summary(profile: str, seeds: int) -> Text:
    """What the page's tables say, in a few sentences."""
    subsets = compared_subsets(profile, seeds)
    if not subsets:
        return Text("*No subset asks for one of several captions of one picture.*")
    better = sum(s.blind.interval().estimate > s.tuned.interval().estimate for s in subsets)
    lines = [
        f"{_solved(subsets)}. On {better} of the {len(subsets)} it is right more often than "
        f"CLIP-FT with the picture.", "", f"{_capital(_gains(subsets))}. {_relation(subsets)}",
        "", _certain_gains(subsets),
    ]  # fmt: skip
    if AVERAGE + TUNED not in blind_results(profile)["choosers"]:
        lines += ["", "CLIP with the average picture is not measured: the run is not trained here."]
    return Text("\n".join(lines))


def _solved(subsets: Sequence[Subset]) -> str:
    above = by_standing(subsets).get(ABOVE, [])
    text = (
        "Without the picture, the likelier caption by a trigram model of the training captions is "
        f"right for certain more often than guessing on {len(above)} of "
        f"{count(len(subsets), 'subset')}"
    )
    if not above:
        return text
    most = max(above, key=lambda s: s.excess)
    accuracy, chance = most.blind.interval().estimate, most.blind.chance
    return (f"{text} (most on `{most.key}`: {number(100 * accuracy, 1)} % where chance is "
            f"{number(100 * chance, 1)} %)")  # fmt: skip


def _gains(subsets: Sequence[Subset]) -> str:
    """CAE's mean gain on each group of subsets."""
    parts = [
        f"{percent(difference([s.cae for s in found], [s.tuned for s in found]), sign=True)} "
        f"points on the {len(found)} {name}"
        for name, found in by_standing(subsets).items()
        if name in (ABOVE, AT)
    ]
    return f"CAE changes plain fine-tuning's accuracy by {' and by '.join(parts)}"


def _certain_gains(subsets: Sequence[Subset]) -> str:
    """Where CAE is better for certain, and what a blind chooser gets there."""
    better = [s for s in subsets if s.gain.low > 0]
    if not better:
        return "There is no subset on which CAE is better for certain."
    shown = [f"`{s.key}` ({percent(s.gain, sign=True)} points; likelier caption "
             f"{number(100 * s.blind.interval().estimate, 1)} %, chance "
             f"{number(100 * s.blind.chance, 1)} %)" for s in better[:MOST_NAMED]]  # fmt: skip
    rest = len(better) - len(shown)
    named = listing([*shown, f"{rest} more"] if rest else shown)
    return f"CAE is better for certain on {named}."


def _relation(subsets: Sequence[Subset]) -> str:
    found = correlation({s.key: s.excess for s in subsets},
                        {s.key: s.gain.estimate for s in subsets})  # fmt: skip
    if found is None:
        return "Over subsets the two do not vary enough for a correlation."
    meaning = (
        "so the gain is larger where language alone does well" if found.low > 0
        else "so the gain is smaller where language alone does well" if found.high < 0
        else "so the subsets do not show that the gain goes with what language alone gives"
    )  # fmt: skip
    return (f"Over {found.n_items} subsets, Spearman's correlation of blind accuracy minus chance "
            f"with CAE's gain is {interval(found, 2, sign=True)}, {meaning}.")  # fmt: skip


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
