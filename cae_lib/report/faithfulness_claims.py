"""What the faithfulness records say, in sentences that are computed from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from cae_lib.attribution import METHODS
from cae_lib.evaluation.faithfulness import INTEGRATED
from cae_lib.evaluation.statistics import Interval
from cae_lib.report.attribution import Draws
from cae_lib.report.faithfulness import SCORERS, Areas, Faithfulness, scorer_label
from cae_lib.report.markup import Text, interval, listing

Change = Literal["less", "more", "same", "unknown"]
Fate = Literal["forgets", "keeps", "between"]

CHANGES: Mapping[Change, str] = {
    "less": "less faithful",
    "more": "more faithful",
    "same": "not told apart",
    "unknown": "not defined",
}
KEPT = 0.5


def beats_chance(areas: Areas) -> bool:
    """Whether both curves leave a random order behind, by their 95 % intervals."""
    leads = (areas.deletion_lead, areas.insertion_lead)
    return all(lead is not None and lead.interval().low > 0 for lead in leads)


def change(tuned: Faithfulness, cae: Faithfulness, method: str) -> Change:
    """What training did to the scores by a method, relative to integrated gradients.

    By the 95 % interval of the difference of `Faithfulness.relative`.
    """
    difference = relative_change(tuned, cae, method)
    if difference is None:
        return "unknown"
    found = difference.interval()
    return "less" if found.high < 0 else "more" if found.low > 0 else "same"


def relative_change(tuned: Faithfulness, cae: Faithfulness, method: str) -> Draws | None:
    """Share of integrated gradients' faithfulness: CLIP-CAE minus CLIP-FT, paired."""
    return _difference(tuned.relative(method), cae.relative(method))


def absolute_change(tuned: Faithfulness, cae: Faithfulness, scorer: str) -> Draws | None:
    """Faithfulness of CLIP-CAE minus that of CLIP-FT, on the same captions and seeds."""
    return _difference(tuned.areas(scorer).faithfulness, cae.areas(scorer).faithfulness)


def _difference(before: Draws | None, after: Draws | None) -> Draws | None:
    return None if before is None or after is None else after.minus(before)


def fate(correlation: Draws) -> Fate:
    """What is left of a ranking after randomisation: less or more than half, for certain."""
    found = correlation.interval()
    return "forgets" if found.high < KEPT else "keeps" if found.low > KEPT else "between"


def judge_chance(base: Faithfulness) -> Text:
    """Which methods point at the words that S rests on, in one run."""
    better = [s for s in SCORERS if beats_chance(base.areas(s))]
    rest = [s for s in SCORERS if s not in better]
    shares = {s: base.areas(s).faithfulness for s in SCORERS}
    defined = {s: share.estimate for s, share in shares.items() if share is not None}
    sentences = []
    if better:
        sentences.append(
            f"In CLIP, words that score high by {_names(better)} are those that the similarity "
            "rests on: masked first they lower it faster, and brought back first they raise it "
            "faster, than words in random order."
        )
    if rest:
        sentences.append(f"For {_names(rest)} this cannot be said for certain.")
    if defined:
        top, last = max(defined, key=defined.__getitem__), min(defined, key=defined.__getitem__)
        sentences.append(
            f"The most faithful scores are those by {scorer_label(top)} "
            f"({interval(_found(shares[top]), 2)}), the least faithful those by "
            f"{scorer_label(last)} ({interval(_found(shares[last]), 2)})."
        )
    return Text(" ".join(sentences))


def judge_training(pairs: Mapping[str, tuple[Faithfulness, Faithfulness]]) -> Text:
    """Whether training on a method made its scores less faithful."""
    question = "**Does training on a method make its scores less faithful?**"
    if not pairs:
        return Text(f"{question} No CAE run has been measured.")
    found = {m: change(*runs, m) for m, runs in pairs.items()}
    by_change = {c: [m for m, other in found.items() if other == c] for c in CHANGES}
    phrases = {
        "less": "falls by",
        "more": "rises by",
        "same": "does not change so that it could be told from chance by",
        "unknown": "is not defined, since integrated gradients do no better than chance, by",
    }
    parts = [f"{phrases[c]} {_changes(by_change[c], pairs)}" for c in CHANGES if by_change[c]]
    head = "Yes" if by_change["less"] else "Not that it could be told here"
    if by_change["less"] and len(by_change["less"]) < len(found):
        head = f"For {len(by_change['less'])} of {len(found)} methods"
    return Text(
        f"{question} {head}. Measured by what integrated gradients reach on the same model, the "
        f"share that a method's own scores reach after training on it {'; it '.join(parts)}, "
        f"each compared with CLIP-FT. {_spread(pairs)}"
    )


def _changes(
    methods: Iterable[str], pairs: Mapping[str, tuple[Faithfulness, Faithfulness]]
) -> str:
    items = []
    for method in methods:
        difference = relative_change(*pairs[method], method)
        shown = "" if difference is None else f" ({interval(difference.interval(), 2, sign=True)})"
        items.append(f"{scorer_label(method)}{shown}")
    return listing(items)


def _spread(pairs: Mapping[str, tuple[Faithfulness, Faithfulness]]) -> str:
    """In which runs even integrated gradients find less to point at."""
    found = []
    for method, runs in pairs.items():
        difference = absolute_change(*runs, INTEGRATED)
        if difference is not None and difference.interval().high < 0:
            shown = interval(difference.interval(), 2, sign=True)
            found.append(f"{scorer_label(method)} ({shown})")
    if not found:
        return "The faithfulness of integrated gradients themselves falls after no training."
    return (
        "The faithfulness of integrated gradients themselves, which no run trains on, falls after "
        f"training on {listing(found)}: either such a model rests on more words at once, so that "
        "no order of them can gain as much, or integrated gradients point at them less well."
    )


def judge_randomisation(base: Faithfulness) -> Text:
    """Which methods pass the randomisation check, and which hold on to half-random models."""
    half, whole = half_stage(base), base.block_stages[-1]
    after = {m: fate(base.randomised(m, whole)) for m in METHODS}
    passed = [m for m in METHODS if after[m] == "forgets"]
    failed = [m for m in METHODS if after[m] == "keeps"]
    rest = [m for m in METHODS if after[m] == "between"]
    sentences = []
    if passed:
        sentences.append(
            f"With every block of the text tower random, the scores by {_names(passed)} keep less "
            "than half of their ranking: they pass the check."
        )
    if failed:
        sentences.append(
            f"The scores by {_names(failed)} keep more than half of their ranking although every "
            "block is random: they fail the check."
        )
    if rest:
        sentences.append(f"For {_names(rest)} the interval holds {KEPT}.")
    if half != whole:
        stuck = [m for m in METHODS if fate(base.randomised(m, half)) == "keeps"]
        sentences.append(
            "With the projection and only the upper half of the blocks random "
            + (f"the scores by {_names(stuck)} still keep more than half: they say little about "
               "what those layers do." if stuck else "none keeps more than half for certain.")
        )  # fmt: skip
    return Text(" ".join(sentences))


def half_stage(run: Faithfulness) -> str:
    """The stage at which the upper half of the blocks is random."""
    return run.block_stages[(len(run.block_stages) - 1) // 2]


def _names(scorers: Iterable[str]) -> str:
    return listing([scorer_label(s) for s in scorers])


def _found(share: Draws | None) -> Interval | None:
    return None if share is None else share.interval()
