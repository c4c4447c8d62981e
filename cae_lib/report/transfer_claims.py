"""Verdicts on the claims C5 to C8: what CAE does beside the benchmarks of composition.

The rules stand in `cae_lib.report.rules`; each one is a pure function of differences to CLIP-FT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from cae_lib.evaluation.statistics import Interval
from cae_lib.report.claims import Status, Verdict, incomplete, untested
from cae_lib.report.markup import count, listing
from cae_lib.report.rules import DIP
from cae_lib.report.runs import METHOD_LABELS, method_label
from cae_lib.report.spans import certain, span

Key = TypeVar("Key")
Cells = Mapping[tuple[str, str], Interval]
IMPROVES, DIPS = ("coco", "image"), ("flickr30k", "text")
NOTHING = "No CAE run has been measured."


def judge_retrieval(found: Mapping[str, Cells]) -> Verdict:
    """C5, from CAE - CLIP-FT in R@1 by `(set, what is retrieved)`, by attribution method."""
    if not found:
        return untested("C5", NOTHING)
    kept = {m: [c for c in cells if cells[c].low > -DIP] for m, cells in found.items()}
    lost = {m: [c for c in cells if c not in kept[m] and cells[c].high < 0]
            for m, cells in found.items()}  # fmt: skip
    better = {m: cells[IMPROVES].low > 0 for m, cells in found.items()}
    whole = {m: len(kept[m]) == len(cells) for m, cells in found.items()}
    passed = [m for m in found if whole[m] and better[m]]
    some = any(whole[m] or (better[m] and not lost[m]) for m in found)
    n_whole = sum(whole.values())
    ours = (
        f"CAE − CLIP-FT in R@1, points: COCO text to image {span(_one(found, IMPROVES))}; "
        f"Flickr30k image to text {span(_one(found, DIPS))}; all cells kept with {n_whole} of "
        f"{count(len(found), 'method')}"
    )
    reasons = [
        f"{_by(m)} {len(kept[m])} of {count(len(found[m]), 'cell')} are kept, {len(lost[m])} "
        f"lost, and COCO text-to-image is {_word(found[m][IMPROVES])}"
        for m in found
    ]
    return Verdict("C5", _status(found, passed, some), ours, _sentence(reasons, found))


def judge_similarity(found: Mapping[str, tuple[Interval, Mapping[str, Interval]]]) -> Verdict:
    """C6, from CAE - CLIP-FT in Spearman's correlation: (mean over sets, by set), by method."""
    if not found:
        return untested("C6", NOTHING)
    higher = [m for m, (mean, _) in found.items() if mean.low > 0]
    lower = {m: [n for n, value in sets.items() if value.high < 0]
             for m, (_, sets) in found.items()}  # fmt: skip
    passed = [m for m in higher if not lower[m]]
    means = {m: mean for m, (mean, _) in found.items()}
    ours = (
        f"CAE − CLIP-FT in mean Spearman × 100: {span(means)}; {certain(means, 'higher', 'lower')}"
    )
    reasons = [
        f"{_by(m)} the mean correlation is {_word(mean, 'higher', 'lower')}, and "
        f"{len(lower[m])} of {count(len(sets), 'set')} are lower for certain"
        for m, (mean, sets) in found.items()
    ]
    return Verdict("C6", _status(found, passed, bool(higher)), ours, _sentence(reasons, found))


def judge_phrases(found: Mapping[str, Mapping[str, Interval]]) -> Verdict:
    """C7, from CAE - CLIP-FT in the cosine to "relation" and "attribute" phrases, by method."""
    return _two_sided("C7", found, ("closer", "farther"), "phrases", "cosine", 3)


def judge_heatmaps(found: Mapping[str, Mapping[str, Interval]]) -> Verdict:
    """C8, from CAE - CLIP-FT in two shares of the relevance, by their names, by method."""
    return _two_sided("C8", found, ("higher", "lower"), "", "points", 1)


def _two_sided(claim: str, found: Mapping[str, Mapping[str, Interval]], words: tuple[str, str],
               noun: str, unit: str, digits: int) -> Verdict:  # fmt: skip
    """All of a run's differences up: it passes; one up and none down: partly."""
    if not found:
        return untested(claim, NOTHING)
    passed = [m for m, row in found.items() if all(v.low > 0 for v in row.values())]
    some = any(
        any(v.low > 0 for v in row.values()) and all(v.high >= 0 for v in row.values())
        for row in found.values()
    )
    names = list(next(iter(found.values())))
    scale = 100.0 if unit == "points" else 1.0
    parts = [f"{f'{name} {noun}'.strip()} {span(_one(found, name), digits, scale)}"
             for name in names]  # fmt: skip
    ours = (
        f"CAE − CLIP-FT, {unit}: {'; '.join(parts)}; both {words[0]} with {len(passed)} of "
        f"{count(len(found), 'method')}"
    )
    reasons = [
        f"{_by(m)} "
        + listing([f"{name} {noun}".strip() + f" {_are(noun)} {_word(value, *words)}"
                   for name, value in row.items()])
        for m, row in found.items()
    ]  # fmt: skip
    return Verdict(claim, _status(found, passed, some), ours, _sentence(reasons, found))


def _one(found: Mapping[str, Mapping[Key, Interval]], name: Key) -> dict[str, Interval]:
    """One difference of each method."""
    return {method: row[name] for method, row in found.items()}


def _by(method: str) -> str:
    return f"trained on {method_label(method)},"


def _are(noun: str) -> str:
    return "are" if noun else "is"


def _word(found: Interval, up: str = "better", down: str = "worse") -> str:
    return up if found.low > 0 else down if found.high < 0 else "not told apart"


def _status(found: Mapping[str, object], passed: Sequence[str], some: bool) -> Status:
    if set(passed) >= set(METHOD_LABELS):
        return "reproduced"
    return "partly" if some or passed else "not"


def _sentence(reasons: Sequence[str], found: Mapping[str, object]) -> str:
    text = "; ".join(reasons)
    return f"CAE against CLIP-FT: {text}.{incomplete(found)}"
