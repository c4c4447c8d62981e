"""What CAE gains on a subset, beside what a blind chooser gets there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import spearmanr

from cae_lib.errors import DataError
from cae_lib.evaluation.blind_record import AVERAGE
from cae_lib.evaluation.correlation import correlation_draws
from cae_lib.evaluation.statistics import Interval, paired_difference
from cae_lib.report.attribution import Draws
from cae_lib.report.benchmarks import Score, answers, mean_score, subset_score
from cae_lib.report.blind import LIKELIHOOD, blind_answers, cae_choosers
from cae_lib.report.runs import BASE, TUNED, cae_runs
from cae_lib.report.stored import require

RESAMPLES = 2000
SLACK = 1e-9
PAIRS_OF_PICTURES = "winoground"
"""A family whose items no blind chooser can get right: it tells nothing about the captions."""

ABOVE, AT, BELOW = "above chance", "at chance", "below chance"
STANDINGS = (ABOVE, AT, BELOW)


@dataclass(frozen=True)
class Subset:
    """One subset: the blind chooser by likelihood, and models with the picture.

    Attributes:
        key: `family/subset`.
        blind: Of the likelier caption.
        base, tuned, cae: Of CLIP, CLIP-FT, and the mean over CLIP-CAE's methods.
    """

    key: str
    blind: Score
    base: Score
    tuned: Score
    cae: Score

    @property
    def family(self) -> str:
        """Name of the family."""
        return self.key.partition("/")[0]

    @cached_property
    def excess(self) -> float:
        """Blind accuracy minus chance."""
        return self.blind.interval().estimate - self.blind.chance

    @cached_property
    def standing(self) -> str:
        """Whether the blind chooser's 95 % interval lies above, about or below chance."""
        found = self.blind.interval()
        if found.low > self.blind.chance + SLACK:
            return ABOVE
        return BELOW if found.high < self.blind.chance - SLACK else AT

    @cached_property
    def gain(self) -> Interval:
        """CLIP-CAE minus CLIP-FT."""
        return difference([self.cae], [self.tuned])


def difference(first: Sequence[Score], second: Sequence[Score]) -> Interval:
    """Difference of the unweighted means of scores, on the same items and seeds."""
    weights = [w / len(first) for score in first for w in score.weights]
    a, b = ([part for score in side for part in score.strata] for side in (first, second))
    shared = [part for score in first for part in score.pictures]
    return paired_difference(
        a, b, weights, clusters=shared, resample_seeds=True, resamples=RESAMPLES
    )


def compared_subsets(profile: str, seeds: int) -> tuple[Subset, ...]:
    """All subsets on which captions are chosen for one picture.

    Raises:
        NotMeasured: The record of the blind choosers, or of a run, is missing.
        DataError: They were measured on different items.
    """
    blind = blind_answers(profile, LIKELIHOOD)
    runs = [BASE, TUNED, *cae_runs(profile)]
    require(runs, profile, "benchmarks", seeds)
    found = {run: answers(run, profile, 1 if run == BASE else seeds) for run in runs}
    subsets = []
    for key, (part,) in blind.items():
        if part.name == PAIRS_OF_PICTURES or any(key not in known for known in found.values()):
            continue
        if any(known[key][0].items != part.items for known in found.values()):
            raise DataError(f"{key}: `blind` was measured on other items; compute both anew")
        scores = {run: subset_score(known[key]) for run, known in found.items()}
        cae = mean_score([scores[run] for run in cae_runs(profile)])
        subsets.append(Subset(key, subset_score([part]), scores[BASE], scores[TUNED], cae))
    return tuple(subsets)


def by_standing(subsets: Sequence[Subset]) -> dict[str, list[Subset]]:
    """The subsets above, at and below chance, as far as there are any."""
    groups = {name: [s for s in subsets if s.standing == name] for name in STANDINGS}
    return {name: found for name, found in groups.items() if found}


def correlation(x: Mapping[str, float], y: Mapping[str, float]) -> Interval | None:
    """Spearman's correlation over the subsets that both have; None if one of them never varies.

    The interval is a bootstrap over subsets, of which there are `n_items`.
    """
    keys = [key for key in x if key in y]
    a, b = (np.array([side[key] for key in keys]) for side in (x, y))
    if len(keys) < 3 or np.ptp(a) < SLACK or np.ptp(b) < SLACK:
        return None
    estimate = float(spearmanr(a, b).statistic)
    draws = correlation_draws([a], b, "spearman", RESAMPLES)[:, 0]
    draws = np.where(np.isnan(draws), estimate, draws)
    return Draws(estimate, draws, len(keys), 1).interval()


def excesses(profile: str, chooser: str, keys: Iterable[str]) -> dict[str, float]:
    """Accuracy minus chance of a blind chooser on those of the subsets that it was measured on."""
    found = blind_answers(profile, chooser)
    return {key: found[key][0].value - found[key][0].chance for key in keys if key in found}


def gains_without_pictures(profile: str, keys: Iterable[str]) -> dict[str, Interval]:
    """CLIP-CAE minus CLIP-FT, both with the average picture in place of every picture, seed 0."""
    tuned = blind_answers(profile, AVERAGE + TUNED)
    cae = [blind_answers(profile, chooser) for chooser in cae_choosers(profile)]
    return {
        key: difference([mean_score([subset_score(found[key]) for found in cae])],
                        [subset_score(tuned[key])])
        for key in keys
        if cae and key in tuned and all(key in found for found in cae)
    }  # fmt: skip
