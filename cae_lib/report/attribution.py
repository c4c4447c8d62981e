"""Attribution by role, read from records: means, gaps and ratios with bootstrap intervals.

The unit is the caption. A role's mean is the mean over captions of the mean over the role's tokens
in the caption; captions without that role are left out of it. Captions are resampled together for
all roles, seeds and runs, so that differences are paired; seeds are resampled as well.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from cae_lib.errors import DataError
from cae_lib.evaluation.attribution import ROLES
from cae_lib.evaluation.statistics import RESAMPLES, Interval
from cae_lib.measurements import results
from cae_lib.records import Record

LEVEL = 0.95


@dataclass(frozen=True)
class Draws:
    """A statistic on the data and on each bootstrap sample.

    Attributes:
        estimate: On the data themselves.
        samples: `(R,)`.
        n_items: Captions.
        n_seeds: Seeds averaged over.
    """

    estimate: float
    samples: np.ndarray
    n_items: int
    n_seeds: int

    def interval(self) -> Interval:
        """Percentile interval."""
        low, high = np.quantile(self.samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Interval(self.estimate, float(low), float(high), LEVEL, self.n_items, self.n_seeds)

    def minus(self, other: Draws, factor: float = 1.0) -> Draws:
        """This minus `factor` times the other, sample by sample."""
        return Draws(self.estimate - factor * other.estimate,
                     self.samples - factor * other.samples,
                     self.n_items, max(self.n_seeds, other.n_seeds))  # fmt: skip


@dataclass(frozen=True)
class RoleScores:
    """What one method says of one run.

    Attributes:
        captions: For each role `(S, C)`, NaN where it does not occur in a caption.
        percentiles: For each role `(101,)`, of its tokens' scores, averaged over seeds.
        n_tokens: For each role, the number of its tokens.
    """

    captions: Mapping[str, np.ndarray]
    percentiles: Mapping[str, np.ndarray]
    n_tokens: Mapping[str, int]

    @property
    def n_captions(self) -> int:
        """Captions scored."""
        return self.captions["object"].shape[1]

    @property
    def n_seeds(self) -> int:
        """Seeds."""
        return len(self.captions["object"])

    @property
    def decimals(self) -> int:
        """Decimals that give the mean of object words three significant digits."""
        size = abs(self.means["object"].estimate)
        return min(max(2 - math.floor(math.log10(size)), 0), 8) if size else 3

    @cached_property
    def means(self) -> Mapping[str, Draws]:
        """Mean of each role, and of "composition": relation and attribute words together.

        The latter weighs the two by their numbers of tokens, as the loss does.
        """
        found = {role: self._mean(values) for role, values in self.captions.items()}
        sizes = np.array([self.n_tokens["attribute"], self.n_tokens["relation"]], dtype=float)
        share = sizes / sizes.sum()
        both = [found["attribute"], found["relation"]]
        return found | {"composition": Draws(
            float(sum(w * part.estimate for w, part in zip(share, both, strict=True))),
            sum(w * part.samples for w, part in zip(share, both, strict=True)),
            self.n_captions, self.n_seeds)}  # fmt: skip

    @cached_property
    def gap(self) -> Draws:
        """A_obj - A_comp."""
        return self.means["object"].minus(self.means["composition"])

    @cached_property
    def contrast(self) -> float:
        """The gap relative to the level of the scores: (A_obj - A_comp) / (|A_obj| + |A_comp|)."""
        level = abs(self.means["object"].estimate) + abs(self.means["composition"].estimate)
        return self.gap.estimate / level if level else 0.0

    def lead(self, role: str) -> Interval:
        """Mean of object words minus that of a role."""
        return self.means["object"].minus(self.means[role]).interval()

    def ratio(self, role: str) -> Interval | None:
        """Mean of object words over that of a role; None where that one may be zero or less."""
        top, bottom = self.means["object"], self.means[role]
        if bottom.estimate <= 0 or np.quantile(bottom.samples, (1 - LEVEL) / 2) <= 0:
            return None
        samples = top.samples / bottom.samples
        return Draws(top.estimate / bottom.estimate, samples,
                     self.n_captions, self.n_seeds).interval()  # fmt: skip

    def _mean(self, values: np.ndarray) -> Draws:
        return mean_draws(values)


def mean_draws(values: np.ndarray) -> Draws:
    """Mean over captions, then over seeds, of values `(S, C)`; those that are NaN are left out.

    Arrays of the same shape are resampled alike, so their differences and ratios are paired.
    """
    present = np.isfinite(values)
    n_seeds, n_captions = values.shape
    counts, weights = _resampling(n_captions, n_seeds)
    sums = counts @ np.where(present, values, 0).T
    by_seed = sums / np.maximum(counts @ present.T.astype(np.float64), 1)
    estimate = float(np.nanmean(values, axis=1).mean())
    return Draws(estimate, (weights * by_seed).sum(axis=1), n_captions, n_seeds)


@lru_cache(maxsize=4)
def _resampling(n_captions: int, n_seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each caption `(R, C)` is drawn, and the weight of each seed `(R, S)`."""
    captions = np.random.default_rng(0).multinomial(
        n_captions, np.full(n_captions, 1 / n_captions), size=RESAMPLES
    )
    seeds = np.random.default_rng(1).multinomial(
        n_seeds, np.full(n_seeds, 1 / n_seeds), size=RESAMPLES
    )
    return captions.astype(np.float64), seeds / n_seeds


@lru_cache(maxsize=64)
def role_scores(
    run: str, profile: str, method: str, seeds: int, **settings: Hashable
) -> RoleScores:
    """What a method says of a run, or of its variant with other settings, over its first seeds.

    Raises:
        DataError: A record is missing, lacks the method or a role, or seeds differ in captions.
    """
    records = results(run, profile, "attribution", seeds, **settings)
    parts = [_part(record, method) for record in records]
    if len({part["n_captions"] for part in parts}) > 1:
        raise DataError(f"{run}, {method}: its seeds scored different captions; compute them anew")
    captions = {
        role: np.array([[np.nan if value is None else value for value in part[role]["captions"]]
                        for part in parts])
        for role in ROLES
    }  # fmt: skip
    percentiles = {
        role: np.mean([part[role]["percentiles"] for part in parts], axis=0) for role in ROLES
    }
    return RoleScores(captions, percentiles, {r: parts[0][r]["n_tokens"] for r in ROLES})


def _part(record: Record, method: str) -> Mapping:
    """A method's part of a record, each role present."""
    if method not in record.results:
        raise DataError(
            f"record {record.name} has no attribution by {method}, only by "
            f"{', '.join(record.results)}: run `make reproduce` again"
        )
    part = record.results[method]
    for role in ROLES:
        if not part[role]["n_tokens"]:
            raise DataError(f"record {record.name}: no {role} word was found in its captions")
    return part


def stored_methods(run: str, profile: str, wanted: Sequence[str], seeds: int) -> list[str]:
    """Those of the wanted methods that every record of a run holds, in that order."""
    records = results(run, profile, "attribution", seeds)
    return [name for name in wanted if all(name in record.results for record in records)]
