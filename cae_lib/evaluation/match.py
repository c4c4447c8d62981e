"""SVO-Probes' official metric: does each single picture match the sentence, yes or no?

Hendricks and Nematzadeh 2021, official notebook. A model of similarities has no yes or no of its
own, so a threshold on the cosine stands in: by default the median of all distinct pairs scored,
which says yes as often as no. The threshold is returned with the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cae_lib.data.benchmarks.base import Benchmark, ImageRef
from cae_lib.data.benchmarks.svo_probes import GROUPS
from cae_lib.errors import DataError
from cae_lib.evaluation.choice import item_scores
from cae_lib.evaluation.embed import Encoder

Pair = tuple[str, ImageRef]


@dataclass(frozen=True)
class MatchAccuracy:
    """Accuracies of one kind of negative, fractions of distinct (sentence, picture) pairs.

    Attributes:
        positive: Share of matching pairs that are called a match.
        negative: Share of other pairs that are called none.
        n_positive: Distinct matching pairs.
        n_negative: Distinct other pairs.
    """

    positive: float
    negative: float
    n_positive: int
    n_negative: int

    @property
    def value(self) -> float:
        """Mean of the two accuracies."""
        return (self.positive + self.negative) / 2


def match_accuracy(
    benchmark: Benchmark, encoder: Encoder, threshold: float | None = None
) -> tuple[Mapping[str, MatchAccuracy], float]:
    """Accuracy of match against no match, overall and by kind of negative.

    Only rows with exactly one kind of negative count. Sentences are compared in lower case with
    single spaces, and a pair that occurs in several rows counts once in each accuracy.

    Args:
        benchmark: SVO-Probes.
        encoder: Encodes what it has not encoded yet.
        threshold: Cosine above which a pair is a match; None for the median of all pairs.

    Returns:
        The accuracies by `"all"`, `"subj"`, `"verb"`, `"obj"` (kinds that occur), and the
        threshold.

    Raises:
        DataError: If no row has exactly one kind of negative.
    """
    items = [item for item in benchmark.items if item.group in GROUPS]
    if not items:
        raise DataError(f"{benchmark.key}: no row has exactly one kind of negative.")
    rows: list[tuple[str, Pair, Pair]] = []
    scores: dict[Pair, float] = {}
    for item, score in zip(items, item_scores(items, encoder), strict=True):
        sentence = " ".join(item.texts[0].lower().split())
        pairs = [(sentence, image) for image in item.images]
        scores.update(zip(pairs, score.ravel().tolist(), strict=True))
        rows.append((item.group, pairs[0], pairs[1]))
    if threshold is None:
        threshold = float(np.median(list(scores.values())))
    kinds = ["all", *(group for group in GROUPS if any(row[0] == group for row in rows))]
    return {kind: _accuracy(rows, kind, scores, threshold) for kind in kinds}, threshold


def match_metrics(benchmark: Benchmark, encoder: Encoder) -> dict[str, float]:
    """The accuracies as metrics of a record: `match/all`, `match/subj`, ... and the threshold.

    There are none where no row has exactly one kind of negative.
    """
    if not any(item.group in GROUPS for item in benchmark.items):
        return {}
    found, threshold = match_accuracy(benchmark, encoder)
    return {f"match/{kind}": a.value for kind, a in found.items()} | {"match_threshold": threshold}


def _accuracy(
    rows: list[tuple[str, Pair, Pair]], kind: str, scores: Mapping[Pair, float], threshold: float
) -> MatchAccuracy:
    chosen = [row for row in rows if kind in ("all", row[0])]
    positive = {pair for _, pair, _ in chosen}
    negative = {pair for _, _, pair in chosen}
    return MatchAccuracy(
        positive=float(np.mean([scores[pair] > threshold for pair in positive])),
        negative=float(np.mean([scores[pair] <= threshold for pair in negative])),
        n_positive=len(positive),
        n_negative=len(negative),
    )
