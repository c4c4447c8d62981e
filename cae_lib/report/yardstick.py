"""What another seed does to a score: the yardstick for runs that were trained with one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from cae_lib.config import profile as find_profile
from cae_lib.evaluation.statistics import Interval
from cae_lib.report.benchmarks import Score
from cae_lib.report.runs import BASE
from cae_lib.report.stored import NotMeasured
from cae_lib.report.variants import family_scores, require_variants, variant_answers
from cae_lib.studies import base_variants

CERTAINTY = 0.95


@dataclass(frozen=True)
class Yardstick:
    """How far two runs that differ in nothing but the seed are apart.

    Attributes:
        limits: For the mean of families and each family, what 95 % of such differences stay below.
        runs: Number of runs that it comes from.
        seeds: Seeds of each of them.
    """

    limits: Mapping[str, float]
    runs: int
    seeds: int

    def exceeded(self, name: str, difference: Interval) -> bool:
        """Whether a difference is told apart from zero by its items and from chance by the seed."""
        return difference.excludes_zero and abs(difference.estimate) > self.limits[name]


def yardstick(profile: str) -> Yardstick | None:
    """The yardstick of a profile; None where no short run has been measured with several seeds."""
    chosen = find_profile(profile)
    runs = [v for v in base_variants(profile) if v.run != BASE]
    seeds = min([chosen.seeds, *(v.seeds for v in runs)])
    if not runs or seeds < 2:
        return None
    try:
        require_variants(runs, profile)
    except NotMeasured:
        return None
    found = [family_scores(variant_answers(v, profile, seeds)) for v in runs]
    limits = {name: seed_limit([by_seed(part[name]) for part in found]) for name in found[0]}
    return Yardstick(limits, len(runs), seeds)


def by_seed(score: Score) -> np.ndarray:
    """A score of each seed, `(S,)`."""
    pairs = zip(score.weights, score.strata, strict=True)
    return sum(weight * stratum.mean(axis=1) for weight, stratum in pairs)


def seed_limit(values: Sequence[np.ndarray], certainty: float = CERTAINTY) -> float:
    """What the difference of two runs that differ in their seed stays below with a certainty.

    The seeds' variance is pooled over runs, and Student's t allows for how few they are.

    Args:
        values: For each run, its score by seed `(S,)`.
        certainty: Share of such differences that stay below.
    """
    freedom = sum(len(part) - 1 for part in values)
    variance = sum(float(((part - part.mean()) ** 2).sum()) for part in values) / freedom
    return float(student.ppf((1 + certainty) / 2, freedom)) * math.sqrt(2 * variance)
