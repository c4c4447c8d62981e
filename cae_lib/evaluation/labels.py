"""Average precision of pictures for a label, and its mean over labels, as COLA defines it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cae_lib.data.benchmarks.cola import LabelledPictures
from cae_lib.errors import DataError
from cae_lib.evaluation.embed import Encoder


@dataclass(frozen=True)
class LabelResult:
    """Average precision label by label.

    Attributes:
        source: Name of the set.
        precision: `(L,)`, NaN for labels that are not scored.
        n_used, n_expected: Pictures used and expected.
    """

    source: str
    precision: np.ndarray
    n_used: int
    n_expected: int

    @property
    def value(self) -> float:
        """Mean over the labels that are scored (NaN if there is none)."""
        scored = self.precision[~np.isnan(self.precision)]
        return float(scored.mean()) if scored.size else float("nan")

    def to_record(self) -> dict[str, Any]:
        """Plain JSON; a label that is not scored is null."""
        values = [None if np.isnan(x) else float(x) for x in self.precision]
        n_labels = sum(x is not None for x in values)
        return {
            "source": self.source,
            "mean_average_precision": self.value if n_labels else None,
            "n_labels": n_labels,
            "n_labels_expected": len(values),
            "n_used": self.n_used,
            "n_expected": self.n_expected,
            "average_precision": values,
        }


def evaluate_labels(pictures: LabelledPictures, encoder: Encoder) -> LabelResult:
    """Rank each label's hard pictures by cosine and average the precision over labels.

    A label that fits none of its hard pictures has no average precision and is left out.

    Raises:
        DataError: If a picture cannot be read.
    """
    scores = encoder.images(pictures.images) @ encoder.texts(pictures.labels).T
    precision = [
        average_precision(scores[hard, label], pictures.present[hard, label])
        for label, hard in enumerate(pictures.hard.T)
    ]
    n = len(pictures.images)
    return LabelResult(pictures.source, np.array(precision), n, pictures.n_expected)


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Sum over thresholds of precision times the step in recall; equal scores are one threshold.

    Args:
        scores: `(n,)`.
        positive: `(n,)` bool.

    Returns:
        The average precision, NaN without a positive.

    Raises:
        DataError: If the lengths differ.
    """
    if scores.shape != positive.shape:
        raise DataError(f"average precision: {scores.shape} scores, {positive.shape} labels.")
    if not positive.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(positive[order])
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    precision = hits[ends] / (ends + 1)
    return float((precision * np.diff(hits[ends], prepend=0)).sum() / hits[-1])
