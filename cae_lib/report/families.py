"""Two runs compared on the seven families of benchmarks, one by one and in the mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cae_lib.evaluation.results import ChoiceResult
from cae_lib.evaluation.statistics import Interval
from cae_lib.report.benchmarks import FAMILIES, Score, combined, family_score

Parts = Mapping[str, Sequence[ChoiceResult]]
"""Results of a run by `family/subset`, one a seed."""


def family_scores(found: Parts) -> dict[str, Score]:
    """A run's score on each family that its records hold."""
    scores = {name: family_score(name, found) for name in FAMILIES}
    return {name: score for name, score in scores.items() if score is not None}


def overall_score(found: Parts) -> Score | None:
    """A run's unweighted mean over the families that its records hold; None if they hold none."""
    scores = family_scores(found)
    return combined(scores, dict.fromkeys(scores, 1 / len(scores)), ()) if scores else None


def family_differences(found: Parts, against: Parts) -> dict[str, Interval]:
    """Difference of two runs on each family that both have, on the same items and seeds."""
    first, second = family_scores(found), family_scores(against)
    return {name: first[name].minus(second[name]) for name in first if name in second}


def overall_difference(found: Parts, against: Parts) -> Interval | None:
    """Difference of two runs in the mean over families, on the same items and seeds."""
    first, second = overall_score(found), overall_score(against)
    return first.minus(second) if first is not None and second is not None else None
