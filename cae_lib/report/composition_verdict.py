"""What the composition curve shows, in sentences that follow from the numbers."""

from __future__ import annotations

from cae_lib.evaluation.statistics import Interval
from cae_lib.report.attribution import Draws
from cae_lib.report.composition_curve import Curve, composition
from cae_lib.report.composition_items import BOTH, LENGTH, OBJECTS, TOPS, WORLD
from cae_lib.report.composition_tables import class_label, main_slopes
from cae_lib.report.markup import Text, count, listing, number, percent
from cae_lib.report.runs import TUNED, cae_runs, method_label
from cae_lib.report.stored import if_measured


@if_measured
def verdict(profile: str, seeds: int) -> Text:
    """Whether accuracy falls, whether length explains it, what CAE changes, and what was counted.

    "For certain" means a 95 % interval that excludes zero.
    """
    curve = composition(profile, seeds)
    own, gaps = main_slopes(profile, seeds)
    if own is None or not gaps:
        return Text(
            f"*The items of the profile {profile} state too little, or always the same, to tell "
            "the classes apart.*"
        )
    parts = [_fall(curve, own), _cae(own, gaps), _growth(curve, profile), _counted(curve)]
    return Text("\n\n".join(part for part in parts if part))


def direction(found: Interval | None) -> str:
    """Whether a slope falls, rises, or neither for certain."""
    if found is None or not found.excludes_zero:
        return "neither falls nor rises for certain"
    return "falls" if found.high < 0 else "rises"


def _interval(found: Draws | None) -> Interval | None:
    return found.interval() if found else None


def _fall(curve: Curve, own: Interval) -> str:
    fixed, words = map(_interval, curve.slopes(TUNED, BOTH, LENGTH))
    text = (
        f"**Accuracy {direction(own)} with what the caption states.** In CLIP-FT one relation or "
        f"attribute more goes with {percent(own, sign=True)} points, with the subset held fixed."
    )
    if fixed and words:
        text += (
            f" Between captions of equal length it is {percent(fixed, sign=True)} points "
            f"({direction(fixed)}), and one more word between captions that state as much "
            f"{percent(words, sign=True)} points ({direction(words)})."
        )
    if OBJECTS in curve.groups:
        other = _interval(curve.slopes(TUNED, BOTH, group=OBJECTS)[0])
        text += (
            f" On questions about objects, which no relation or attribute decides, the slope is "
            f"{percent(other, sign=True)} points ({direction(other)})."
        )
    return text


def _cae(own: Interval, gaps: dict[str, Interval]) -> str:
    up = [method_label(m) for m, gap in gaps.items() if gap.low > 0]
    down = [method_label(m) for m, gap in gaps.items() if gap.high < 0]
    word = "flatter" if own.high < 0 else "higher"
    if up and not down:
        title = f"CAE makes the slope {word} with {len(up)} of {count(len(gaps), 'method')}"
    elif down and not up:
        title = f"CAE lowers the slope with {len(down)} of {count(len(gaps), 'method')}"
    elif up and down:
        title = "CAE raises the slope with one method and lowers it with another"
    else:
        title = "CAE does not change the slope for certain with any method"
    values = [f"{percent(gap, sign=True)} by {method_label(m)}" for m, gap in gaps.items()]
    named = [f"raised by {listing(up)}"] * bool(up) + [f"lowered by {listing(down)}"] * bool(down)
    tail = f" (for certain {' and '.join(named)})" if named else ""
    return f"**{title}.** CLIP-CAE minus CLIP-FT in the slope, in points: {listing(values)}{tail}."


def _growth(curve: Curve, profile: str) -> str:
    parts = []
    for run, method in cae_runs(profile).items():
        gains = curve.gains(run, TUNED, BOTH)
        known = [k for k, gain in enumerate(gains) if gain]
        if len(known) > 1:
            first, last = known[0], known[-1]
            parts.append(
                f"{method_label(method)} {percent(gains[first], sign=True)} at "
                f"{class_label(BOTH, first)} and {percent(gains[last], sign=True)} at "
                f"{class_label(BOTH, last)}"
            )
    if not parts:
        return ""
    return (
        "CAE's idea predicts a gain over CLIP-FT that grows with the number of relations and "
        f"attributes. Its gain in points is, by method: {'; '.join(parts)}."
    )


def _counted(curve: Curve) -> str:
    if WORLD not in curve.columns:
        return ""
    shares = listing([f"{number(100 * share, 0)} % of the items for {role}"
                      for role, share in curve.agreement.items()])  # fmt: skip
    text = f"The parser's counts equal those by the world's own words on {shares}."
    true, fixed = (_interval(curve.slopes(TUNED, *with_length)[0])
                   for with_length in ((WORLD,), (WORLD, LENGTH)))  # fmt: skip
    text += (
        " Counted by those, one attribute more goes with "
        f"{percent(true, sign=True)} points in CLIP-FT ({direction(true)}), between captions of "
        f"equal length with {percent(fixed, sign=True)} ({direction(fixed)})."
    )
    if curve.varying["world relations"]:
        return f"**What the parser misses.** {text}"
    size = curve.sizes["relations"]
    several = sum(size[2 : TOPS["relations"] + 1])
    return (
        f"**What cannot be tested here.** {text} By those words every caption of a subset states "
        "equally many relations, so where the parser finds more or fewer of them within a subset, "
        f"the wording differs and not the content ({several} items have two or more by the "
        "parser). On this profile the curve is one of attributes; that of relations says only "
        "whether captions are harder where the parser reads a relation."
    )
