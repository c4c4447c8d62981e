"""Average precision of pictures for a label, as COLA defines it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cae_lib.data.benchmarks.cola import LabelledPictures
from cae_lib.errors import DataError
from cae_lib.evaluation.embed import Encoder


def label_precisions(pictures: LabelledPictures, encoder: Encoder) -> pd.DataFrame:
    """Rank each label's hard pictures by cosine; COLA's number is the mean precision over labels.

    Returns:
        `set`, `label`, `precision`; a label that fits none of its hard pictures has no average
        precision, it is NaN and left out of the mean.

    Raises:
        DataError: If a picture cannot be read.
    """
    scores = encoder.images(pictures.images) @ encoder.texts(pictures.labels).T
    precision = [
        average_precision(scores[hard, label], pictures.present[hard, label])
        for label, hard in enumerate(pictures.hard.T)
    ]
    return pd.DataFrame(
        {"set": pictures.source, "label": list(pictures.labels), "precision": precision}
    )


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
