"""One setting of the loss at a time: does it still level the groups, and what does it change?

All runs are short and have one seed. What a difference between two such runs can mean is judged by
a yardstick: how far apart two runs are that differ in nothing but their seed, from the runs of the
same length that have several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from cae_lib.errors import ConfigError
from cae_lib.evaluation.statistics import Interval
from cae_lib.report.attribution import Draws, RoleScores
from cae_lib.report.claims import Outcome, levelling
from cae_lib.report.markup import count, number
from cae_lib.report.runs import TUNED, method_of
from cae_lib.report.stored import NotMeasured
from cae_lib.report.variants import (
    MEAN,
    family_scores,
    require_variants,
    variant_answers,
    variant_scores,
)
from cae_lib.report.yardstick import Yardstick, yardstick
from cae_lib.studies import ABLATED, Variant, ablations

REFERENCE = "reference"
SHARED = method_of(ABLATED) or ""
"""The method by which CLIP-FT's gap is shown, which has none of its own."""


@dataclass(frozen=True)
class Trial:
    """What became of one setting.

    Attributes:
        variant: The run.
        method: Its attribution method; for CLIP-FT the one that its gap is shown by.
        own: Its attribution on test captions.
        plain: That of CLIP-FT of the same length that trains the same towers.
        level: Mean of the families.
        change: Minus the reference, for the mean and each family; empty for a reference.
        gain: Mean of the families minus that of this CLIP-FT; None for CLIP-FT.
    """

    variant: Variant
    method: str
    own: RoleScores
    plain: RoleScores
    level: Interval
    change: Mapping[str, Interval]
    gain: Interval | None

    @property
    def is_cae(self) -> bool:
        """Whether the run has an attribution loss."""
        return self.gain is not None

    @property
    def outcome(self) -> Outcome | None:
        """What the run made of CLIP-FT's gap by the rule of C2; None for CLIP-FT."""
        return levelling(self.plain, self.own) if self.is_cae else None

    @property
    def left(self) -> Interval | None:
        """Share of CLIP-FT's gap that is left; None where there is no certain gap, or no CAE."""
        before, after = self.plain.gap, self.own.gap
        if not self.is_cae or before.interval().low <= 0:
            return None
        shares = Draws(after.estimate / before.estimate, after.samples / before.samples,
                       after.n_items, after.n_seeds)  # fmt: skip
        return shares.interval()


@lru_cache(maxsize=2)
def trials(profile: str) -> tuple[Trial, ...]:
    """Every run of the study, the references first.

    Raises:
        NotMeasured: A record is missing.
    """
    variants = ablations(profile)
    require_variants(variants, profile)
    return tuple(_trial(variant, variants, profile) for variant in variants)


def _trial(variant: Variant, variants: Sequence[Variant], profile: str) -> Trial:
    plain = plain_of(variant, variants)
    method = method_of(variant.run) or SHARED
    own = family_scores(variant_answers(variant, profile))
    change: dict[str, Interval] = {}
    if variant.group != REFERENCE:
        other = family_scores(variant_answers(reference_of(variant, variants), profile))
        change = {name: score.minus(other[name]) for name, score in own.items()}
    gain = None
    if variant.run != TUNED:
        gain = own[MEAN].minus(family_scores(variant_answers(plain, profile))[MEAN])
    return Trial(
        variant, method, variant_scores(variant, profile, method),
        variant_scores(plain, profile, method), own[MEAN].interval(), change, gain,
    )  # fmt: skip


def reference_of(variant: Variant, variants: Sequence[Variant]) -> Variant:
    """The same run with the profile's settings."""
    return _the([v for v in variants if v.run == variant.run and v.group == REFERENCE], variant)


def plain_of(variant: Variant, variants: Sequence[Variant]) -> Variant:
    """CLIP-FT that trains the same towers."""
    locked = variant.settings.get("lock_image")
    same = [v for v in variants if v.run == TUNED and v.settings.get("lock_image") == locked]
    return _the(same, variant)


def _the(found: Sequence[Variant], variant: Variant) -> Variant:
    if len(found) != 1:
        raise ConfigError(
            f"{len(found)} runs to compare {variant.run} ({variant.label}) with: expected one"
        )
    return found[0]


def price_of_levelling(found: Sequence[Trial]) -> str:
    """Differences to CLIP-FT of the runs that level the groups, and of those that do not."""
    parts = []
    for words, level in (("level the groups", True), ("do not", False)):
        gains = sorted(100 * trial.gain.estimate for trial in found
                       if trial.gain and (trial.outcome == "level") == level)  # fmt: skip
        if gains:
            low, high = (number(value, 1, sign=True) for value in (gains[0], gains[-1]))
            span = low if low == high else f"{low} to {high}"
            parts.append(f"{span} points with the {len(gains)} CAE runs that {words}")
    return f"Against CLIP-FT of the same length the mean moves by {', by '.join(parts)}."


def exceeding(found: Sequence[Trial], measure: Yardstick | None) -> list[Trial]:
    """Settings whose change of the mean is told apart from zero, and from a seed's if known."""
    return [
        trial
        for trial in found
        if trial.change
        and (measure.exceeded(MEAN, trial.change[MEAN]) if measure
             else trial.change[MEAN].excludes_zero)
    ]  # fmt: skip


def finding(profile: str) -> str | None:
    """One sentence for the book's first page; None where nothing has been measured."""
    try:
        found = trials(profile)
    except NotMeasured:
        return None
    measure = yardstick(profile)
    changed = [trial for trial in found if trial.change]
    moved = exceeding(found, measure)
    cae = [trial for trial in changed if trial.is_cae]
    level = sum(trial.outcome == "level" for trial in cae)
    return (
        f"{limit_words(measure)} with {len(moved)} of {count(len(changed), 'other setting')}, each "
        f"tried in a short run of one seed; {level} of the {len(cae)} among them that keep CAE "
        f"level the groups. {price_of_levelling(found)}"
    )


def limit_words(measure: Yardstick | None) -> str:
    """The start of a sentence on how many settings move the mean of the families."""
    mean = "The mean over the seven families of benchmarks moves"
    if measure is None:
        return f"{mean} for certain over items"
    limit = number(100 * measure.limits[MEAN], 1)
    return f"{mean} by more than another seed would move it (±{limit} points)"
