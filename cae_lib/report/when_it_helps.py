"""CAE's gain from base models of different training length, against what each base knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np

from cae_lib.base import KINDS
from cae_lib.errors import DataError
from cae_lib.evaluation.statistics import Interval
from cae_lib.report.attribution import RoleScores
from cae_lib.report.benchmarks import Score
from cae_lib.report.markup import percent
from cae_lib.report.runs import BASE, TUNED, method_of
from cae_lib.report.stored import NotMeasured
from cae_lib.report.variants import (
    MEAN,
    Answers,
    family_scores,
    require_variants,
    variant_answers,
    variant_scores,
)
from cae_lib.studies import Variant, base_variants

MEASURES: Mapping[str, str] = {
    MEAN: MEAN,
    "relation": "relation choices",
    "attribute": "attribute choices",
}
"""What the gain is measured in, and its name on pages."""

Dependence = Literal["weaker", "stronger", "none"]

DEPENDENCES: Mapping[Dependence, str] = {
    "weaker": "the gain is larger from the weaker base",
    "stronger": "the gain is larger from the stronger base",
    "none": "no dependence found",
}


@dataclass(frozen=True, eq=False)
class Start:
    """A base model, and what fine-tuning with and without CAE makes of it.

    Attributes:
        steps: Of the base model's own training.
        method: Attribution method of the CAE run.
        knowledge: The base's choices of objects, relations and attributes.
        base, tuned, cae: Attribution by that method in the base, in CLIP-FT, in CLIP-CAE.
        scores: For each of `MEASURES`, CLIP-FT and CLIP-CAE.
    """

    steps: int
    method: str
    knowledge: Mapping[str, Score]
    base: RoleScores
    tuned: RoleScores
    cae: RoleScores
    scores: Mapping[str, tuple[Score, Score]]

    @cached_property
    def gains(self) -> Mapping[str, Interval]:
        """CLIP-CAE minus CLIP-FT on the same items and seeds, for each of `MEASURES`."""
        return {name: cae.minus(tuned) for name, (tuned, cae) in self.scores.items()}


@lru_cache(maxsize=4)
def starts(profile: str, seeds: int) -> tuple[Start, ...]:
    """Every base model of the study, in the order of their training lengths.

    Raises:
        NotMeasured: The profile has no such bases, or a record is missing.
    """
    variants = base_variants(profile)
    if not variants:
        raise NotMeasured(
            f"The profile {profile} starts from downloaded weights. There is no other base model "
            "of the same kind that was trained for less long, so this question is asked in the "
            "profiles that train their own base alone."
        )
    require_variants(variants, profile, seeds)
    groups = dict.fromkeys(variant.group for variant in variants)
    return tuple(
        _start([v for v in variants if v.group == group], profile, seeds) for group in groups
    )


def _start(variants: Sequence[Variant], profile: str, seeds: int) -> Start:
    base, tuned = (next(v for v in variants if v.run == run) for run in (BASE, TUNED))
    (cae,) = (v for v in variants if v.run not in (BASE, TUNED))
    method = method_of(cae.run) or ""
    scores = (_measured(variant_answers(v, profile, seeds)) for v in (tuned, cae))
    first, second = scores
    own = variant_answers(base, profile)
    return Start(
        int(base.group), method, {kind: kind_score(kind, own) for kind in KINDS},
        *(variant_scores(v, profile, method, seeds) for v in (base, tuned, cae)),
        {name: (first[name], second[name]) for name in MEASURES},
    )  # fmt: skip


def _measured(found: Answers) -> dict[str, Score]:
    kinds = {kind: kind_score(kind, found) for kind in KINDS if kind in MEASURES}
    return {MEAN: family_scores(found)[MEAN]} | kinds


def kind_score(kind: str, found: Answers) -> Score:
    """Accuracy on choices of one kind: the mean over its subsets of the mean over items.

    Raises:
        DataError: A subset was not measured.
    """
    missing = [name for name in KINDS[kind] if name not in found]
    if missing:
        raise DataError(f"the benchmarks lack {', '.join(missing)}: measure them anew")
    parts = [found[name] for name in KINDS[kind]]
    return Score(
        strata=[np.stack([result.correct for result in part]) for part in parts],
        weights=[1 / len(parts)] * len(parts),
        pictures=[part[0].pictures for part in parts],
        n_used=sum(part[0].n_used for part in parts),
        n_expected=sum(part[0].n_expected for part in parts),
        chance=float(np.mean([part[0].chance for part in parts])),
    )


def ends(found: Sequence[Start]) -> tuple[Start, Start]:
    """The bases that know least and most of relations."""
    ordered = sorted(found, key=lambda start: start.knowledge["relation"].interval().estimate)
    return ordered[0], ordered[-1]


def knowledge_apart(found: Sequence[Start]) -> Interval:
    """What the strongest base knows of relations minus what the weakest one does."""
    weakest, strongest = ends(found)
    return strongest.knowledge["relation"].minus(weakest.knowledge["relation"])


def gain_difference(found: Sequence[Start], measure: str) -> Interval:
    """The gain from the weakest base minus that from the strongest, on the same items and seeds."""
    gains = []
    for tuned, cae in (start.scores[measure] for start in ends(found)):
        pairs = zip(cae.strata, tuned.strata, strict=True)
        gains.append(replace(cae, strata=[1.0 * after - before for after, before in pairs]))
    return gains[0].minus(gains[1])


def dependence(found: Sequence[Start], measure: str) -> Dependence:
    """Whether the gain depends on the base, by the rule of the page."""
    difference = gain_difference(found, measure)
    if not difference.excludes_zero:
        return "none"
    return "weaker" if difference.estimate > 0 else "stronger"


def finding(profile: str, seeds: int) -> str | None:
    """One sentence for the book's first page; None where nothing has been measured."""
    try:
        found = starts(profile, seeds)
    except NotMeasured:
        return None
    least, most = (percent(start.gains[MEAN], sign=True) for start in ends(found))
    return (
        f"Over {len(found)} base models of different training length, CAE's gain over plain "
        f"fine-tuning in the mean over families is {least} points from the base that knows least "
        f"of relations and {most} from the one that knows most: "
        f"{DEPENDENCES[dependence(found, MEAN)]}."
    )
