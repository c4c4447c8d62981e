"""The image-only baseline: a model that gets the same average image for every item."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cae_lib.data.benchmarks.base import ImageRef
from cae_lib.evaluation.blind import blind_answers
from cae_lib.evaluation.datasets import (
    available_training_pairs,
    evenly_spaced_indices,
    load_benchmarks,
)
from cae_lib.evaluation.encoder import Encoder

N_IMAGES = 500
"""Number of training images in the average, spread evenly over the set."""


def average_image_table(encoder: Encoder, profile: str) -> pd.DataFrame:
    """Answer all benchmarks of captions by the mean vector of training images.

    Returns:
        The table of `blind_answers`; an empty one without training images.
    """
    pairs = available_training_pairs(profile)
    if pairs is None:
        return pd.DataFrame()
    rows = evenly_spaced_indices(len(pairs.image_paths), N_IMAGES)
    vectors = encoder.encode_images([ImageRef(pairs.image_paths[row]) for row in rows])
    mean = vectors.astype(np.float64).mean(axis=0)
    mean /= np.linalg.norm(mean)

    def similarity(texts: Sequence[str]) -> list[float]:
        return (encoder.encode_texts(texts) * mean).sum(axis=-1).tolist()

    return blind_answers(load_benchmarks(profile), {"average picture": similarity})
