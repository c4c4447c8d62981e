"""Similarity of sentences: cosines of text features against human scores.

As in the literature on sentence embeddings since SimCSE (Gao et al. 2021), the number of a set is
the correlation over all of its pairs together ("all"), not the mean over its parts.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import pearsonr, spearmanr

from cae_lib.data.similarity import SentencePairs
from cae_lib.errors import DataError
from cae_lib.evaluation.correlation import Correlation, correlation_draws
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.statistics import Interval

RESAMPLES = 1000
STEPS = 65_535
HIGHEST = 5.0
"""Highest score that people could give, in every set."""

MEASURES: Mapping[Correlation, Callable[[np.ndarray, np.ndarray], Any]] = {
    "spearman": spearmanr,
    "pearson": pearsonr,
}


@dataclass(frozen=True)
class SimilarityResult:
    """What one model did on one set.

    Attributes:
        name: Name of the set.
        cosine: `(n,)` cosines of the two sentences.
        gold: `(n,)` human scores.
        sizes: Number of pairs of each part, in order.
        n_expected: Number of pairs that there should be.
    """

    name: str
    cosine: np.ndarray
    gold: np.ndarray
    sizes: Mapping[str, int]
    n_expected: int

    @property
    def n_used(self) -> int:
        """Number of pairs scored."""
        return len(self.cosine)

    def correlation(self, kind: Correlation = "spearman") -> float:
        """Correlation over all pairs together; NaN if one side does not vary."""
        return _correlation(kind, self.cosine, self.gold)

    def by_part(self, kind: Correlation = "spearman") -> dict[str, float]:
        """Correlation within each part."""
        ends = np.cumsum(list(self.sizes.values()), dtype=int)
        return {
            part: _correlation(kind, self.cosine[end - n : end], self.gold[end - n : end])
            for (part, n), end in zip(self.sizes.items(), ends, strict=True)
        }

    def interval(self, kind: Correlation = "spearman", level: float = 0.95) -> Interval:
        """Percentile bootstrap interval over pairs."""
        draws = correlation_draws([self.cosine], self.gold, kind, RESAMPLES)[:, 0]
        return _interval(self.correlation(kind), draws, level, self.n_used, 1)

    def to_record(self) -> dict[str, Any]:
        """Plain JSON: correlations, intervals, parts; cosines and scores rounded to 16 bits."""
        record: dict[str, Any] = {
            "name": self.name,
            "n_used": self.n_used,
            "n_expected": self.n_expected,
            "sizes": dict(self.sizes),
            "cosine": _pack((self.cosine + 1) / 2),
            "gold": _pack(self.gold / HIGHEST),
        }
        for kind in MEASURES:
            parts, value = self.by_part(kind), self.correlation(kind)
            record[kind] = {
                "all": _plain(value),
                "mean": _plain(float(np.mean(list(parts.values())))),
                "weighted_mean": _plain(
                    float(np.average(list(parts.values()), weights=list(self.sizes.values())))
                ),
                "parts": {part: _plain(value) for part, value in parts.items()},
                "interval": None if np.isnan(value) else self.interval(kind).to_record(),
            }
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> SimilarityResult:
        """Read what `to_record` wrote; cosines come back to within 0.00002, in the same order.

        Raises:
            DataError: If the record does not hold a result.
        """
        try:
            cosine = _unpack(record["cosine"]) * 2 - 1
            gold = _unpack(record["gold"]) * HIGHEST
            fields = (record[key] for key in ("sizes", "n_expected"))
            result = cls(record["name"], cosine, gold, *fields)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"record {record.get('name')}: not a similarity result ({error!r}). Compute it "
                "anew."
            ) from error
        if len(cosine) != len(gold) or sum(result.sizes.values()) != len(gold):
            raise DataError(f"record {result.name}: numbers of pairs differ. Compute it anew.")
        return result


def evaluate_similarity(pairs: SentencePairs, encoder: Encoder) -> SimilarityResult:
    """Cosine of the text features of each pair."""
    encoder.texts([*pairs.first, *pairs.second])
    cosine = (encoder.texts(pairs.first) * encoder.texts(pairs.second)).sum(axis=1)
    return SimilarityResult(
        pairs.name, cosine.astype(np.float64), pairs.gold, pairs.sizes, pairs.n_expected
    )


def similarity_difference(
    first: Sequence[SimilarityResult],
    second: Sequence[SimilarityResult],
    kind: Correlation = "spearman",
    level: float = 0.95,
) -> Interval:
    """Interval of the mean correlation of `first` minus that of `second`, over the same pairs.

    Args:
        first, second: Results of two methods on one set, one a seed.
        kind: "spearman" or "pearson".
        level: Coverage of the percentile bootstrap interval; pairs are resampled, for all results
            together, and seeds are not.

    Raises:
        DataError: If there is no result, or the results are not of the same pairs.
    """
    results = [*first, *second]
    if not first or not second:
        raise DataError("similarity difference: one side has no result.")
    gold = results[0].gold
    if any(r.name != results[0].name or not np.array_equal(r.gold, gold) for r in results):
        raise DataError("similarity difference: the results are not of the same pairs.")
    weights = np.array([1 / len(first)] * len(first) + [-1 / len(second)] * len(second))
    draws = correlation_draws([r.cosine for r in results], gold, kind, RESAMPLES) @ weights
    estimate = float(np.array([r.correlation(kind) for r in results]) @ weights)
    return _interval(estimate, draws, level, len(gold), max(len(first), len(second)))


def _correlation(kind: Correlation, a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(MEASURES[kind](a, b).statistic)


def _interval(
    estimate: float, draws: np.ndarray, level: float, n_items: int, n_seeds: int
) -> Interval:
    if np.isnan(estimate):
        raise DataError("similarity: the cosines or the scores do not vary, so nothing correlates.")
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), level, n_items, n_seeds)


def _pack(fractions: np.ndarray) -> str:
    steps = np.clip(np.rint(fractions * STEPS), 0, STEPS).astype("<u2")
    return base64.b64encode(steps.tobytes()).decode("ascii")


def _unpack(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<u2") / STEPS


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else value
