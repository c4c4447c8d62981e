"""Verdicts on the paper's claims C1 to C3, by the rules of `cae_lib.report.rules`.

Each rule is a pure function of what the records hold; `RULES` states it for the reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cae_lib.evaluation.statistics import Interval
from cae_lib.report.attribution import RoleScores
from cae_lib.report.markup import Text, count, interval, listing, number
from cae_lib.report.rules import CLOSED, FAMILIES_WON, LEAD, RULES, SHARE_OF_METHODS
from cae_lib.report.runs import METHOD_LABELS, method_label
from cae_lib.report.spans import span

Status = Literal["reproduced", "partly", "not", "untested"]

WORDS: Mapping[Status, str] = {
    "reproduced": "reproduced",
    "partly": "partly reproduced",
    "not": "not reproduced",
    "untested": "not tested",
}


@dataclass(frozen=True)
class Verdict:
    """What became of a claim.

    Attributes:
        claim: C1 to C8.
        status: One of `WORDS`.
        ours: The numbers in short, for a table.
        reason: A sentence that gives the reason.
    """

    claim: str
    status: Status
    ours: str
    reason: str

    @property
    def badge(self) -> str:
        """The verdict as a coloured word in HTML."""
        return f'<span class="verdict-{self.status}">{WORDS[self.status]}</span>'

    def text(self) -> Text:
        """Verdict, reason and rule, for the page of the claim."""
        lines = [f"**Verdict on {self.claim}:** {self.badge}", "", self.reason]
        if self.claim in RULES:
            lines += ["", f"*The rule.* {RULES[self.claim]}"]
        return Text("\n".join(lines))


def untested(claim: str, reason: str = "No page tests this claim yet.") -> Verdict:
    """The verdict on a claim that nothing speaks to."""
    return Verdict(claim, "untested", "–", reason)


def shows_deficiency(scores: RoleScores) -> bool:
    """Whether object words lead as clearly as the rule of C1 asks."""
    top = scores.means["object"].estimate
    return all(
        scores.lead(role).low > 0 and top >= LEAD * scores.means[role].estimate
        for role in ("attribute", "relation")
    )


def judge_deficiency(found: Mapping[str, RoleScores]) -> Verdict:
    """C1, from the base's scores by method."""
    if not found:
        return untested("C1", "The records hold no attribution.")
    shown = [method for method, scores in found.items() if shows_deficiency(scores)]
    enough = len(shown) >= SHARE_OF_METHODS * len(found)
    status: Status = "reproduced" if enough else "partly" if shown else "not"
    rest = [method for method in found if method not in shown]
    others = f", but not by {_names(rest)}" if rest else ""
    reason = f"object words lead clearly by {_names(shown)}{others}"
    if not shown:
        reason = f"object words do not lead clearly by any method ({_names(rest)})"
    ours = f"clear lead by {len(shown)} of {count(len(found), 'method')}; {_ratios(found)}"
    return Verdict("C1", status, ours, f"In CLIP, {reason}.")


def _names(methods: list[str]) -> str:
    return listing([method_label(method) for method in methods])


def _ratios(found: Mapping[str, RoleScores]) -> str:
    """Ratios by one method, attention where it was measured."""
    method = "attention" if "attention" in found else next(iter(found))
    values = {role: found[method].ratio(role) for role in ("attribute", "relation")}
    parts = [
        f"object / {role} {'undefined' if value is None else interval(value, 2)}"
        for role, value in values.items()
    ]
    return f"by {method_label(method)}: {', '.join(parts)}"


Outcome = Literal["level", "reversed", "reduced", "open", "none"]

OUTCOMES: Mapping[Outcome, str] = {
    "level": "the groups are level",
    "reversed": "the gap is closed, but beyond level",
    "reduced": "the gap is smaller, but not level",
    "open": "the gap is not smaller for certain",
    "none": "CLIP-FT has no gap to close",
}


def levelling(tuned: RoleScores, cae: RoleScores) -> Outcome:
    """What CAE made of CLIP-FT's gap, by one method."""
    before, after = tuned.gap, cae.gap
    if before.interval().low <= 0:
        return "none"
    if before.minus(after).interval().low <= 0:
        return "open"
    if after.estimate > CLOSED * before.estimate or cae.contrast > CLOSED * tuned.contrast:
        return "reduced"
    if after.estimate < -CLOSED * before.estimate or cae.contrast < -CLOSED * tuned.contrast:
        return "reversed"
    return "level"


def judge_levelling(found: Mapping[str, tuple[RoleScores, RoleScores]]) -> Verdict:
    """C2, from the scores of (CLIP-FT, CLIP-CAE) by each method that CAE was trained on."""
    outcomes = {method: levelling(*pair) for method, pair in found.items()}
    if all(outcome == "none" for outcome in outcomes.values()):
        return untested("C2", "CLIP-FT has no gap for CAE to close."
                        if outcomes else "No CAE run has been measured.")  # fmt: skip
    improved = [m for m, outcome in outcomes.items() if outcome in ("level", "reversed", "reduced")]
    level = all(outcome == "level" for outcome in outcomes.values())
    complete = set(found) >= set(METHOD_LABELS)
    status: Status = "reproduced" if level and complete else "partly" if improved else "not"
    reasons = [
        f"by {method_label(method)} {OUTCOMES[outcome]} (gap {_gap(found[method][0])} in "
        f"CLIP-FT, {_gap(found[method][1])} in CLIP-CAE)"
        for method, outcome in outcomes.items()
    ]
    ours = "; ".join(
        f"{method_label(method)} {_gap(tuned)} → {interval(cae.gap.interval(), tuned.decimals)}"
        for method, (tuned, cae) in found.items()
    )
    reason = f"After CAE, {listing(reasons)}.{incomplete(found)}"
    return Verdict("C2", status, f"gap in CLIP-FT → CLIP-CAE: {ours}", reason)


def _gap(scores: RoleScores) -> str:
    return number(scores.gap.estimate, scores.decimals)


Differences = Mapping[str, Mapping[str, Interval]]
Means = Mapping[str, Interval] | None


def judge_benchmarks(found: Differences, means: Means = None) -> Verdict:
    """C3, from CLIP-CAE - CLIP-FT by family; the mean over families (`means`) is only shown."""
    return judge_families("C3", found, means, "CLIP-CAE", "CLIP-FT")


def judge_hard_negatives(found: Differences, means: Means = None) -> Verdict:
    """C4, from NegCLIP with CAE - NegCLIP by family; the mean over families is only shown."""
    return judge_families("C4", found, means, "NegCLIP-CAE", "NegCLIP")


def judge_families(
    claim: str, found: Differences, means: Means, ours: str, against: str
) -> Verdict:
    """A claim that CAE is better than `against` on the families of benchmarks."""
    if not found:
        return untested(claim, "No CAE run has been measured.")
    tallies = {method: tally(families) for method, families in found.items()}
    passed = all(won >= FAMILIES_WON and not lost for won, lost, _ in tallies.values())
    ahead = any(won > lost for won, lost, _ in tallies.values())
    complete = set(found) >= set(METHOD_LABELS)
    status: Status = "reproduced" if passed and complete else "partly" if ahead else "not"
    most = max(n for *_, n in tallies.values())
    short = f"better / worse, of {most} families: " + ", ".join(
        f"{method_label(method)} {won} / {lost}" for method, (won, lost, _) in tallies.items()
    )
    if means:
        short = f"{ours} − {against}, points, mean over families: {span(means)}; {short}"
    reasons = [
        f"trained on {method_label(method)}, better on {won} of {count(n, 'family', 'families')}, "
        f"worse on {lost}, not told apart on {n - won - lost}"
        for method, (won, lost, n) in tallies.items()
    ]
    reason = f"{ours} against {against}: {'; '.join(reasons)}.{incomplete(found)}"
    return Verdict(claim, status, short, reason)


def tally(families: Mapping[str, Interval]) -> tuple[int, int, int]:
    """Families won and lost for certain, and all."""
    won = sum(difference.low > 0 for difference in families.values())
    lost = sum(difference.high < 0 for difference in families.values())
    return won, lost, len(families)


def incomplete(found: Mapping[str, object]) -> str:
    """A sentence on the attribution methods that no run was trained on; empty if there is none."""
    missing = [name for name in METHOD_LABELS if name not in found]
    if not missing:
        return ""
    return f" CAE by {_names(missing)} has not been trained in this profile."
