"""The image-only baseline, and the items that text alone does not solve."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cae_bench.averages import score_weights
from cae_bench.benchmarks.base import ITEM_KEY, ImageRef
from cae_bench.blind import blind_answers
from cae_bench.datasets import load_benchmarks
from cae_bench.encoder import Encoder
from cae_lab.runs import Profile
from cae_lab.samples import evenly_spaced_indices
from cae_lab.training_set import available_training_pairs

N_IMAGES = 500
"""Number of training images in the average, spread evenly over the set."""


def average_image_table(encoder: Encoder, profile: Profile) -> pd.DataFrame:
    """Answer all benchmarks by the mean vector of training images; empty if there are none."""
    pairs = available_training_pairs(profile)
    if pairs is None:
        return pd.DataFrame()
    rows = evenly_spaced_indices(len(pairs.image_paths), N_IMAGES)
    vectors = encoder.encode_images([ImageRef(pairs.image_paths[row]) for row in rows])
    mean = vectors.astype(np.float64).mean(axis=0)
    mean /= np.linalg.norm(mean)

    def similarity(texts: Sequence[str]) -> list[float]:
        return (encoder.encode_texts(texts) * mean).sum(axis=-1).tolist()

    return blind_answers(load_benchmarks(profile.datasets), {"average picture": similarity})


SOLVERS = ("likelihood", "likelihood_per_word")
"""Text-only baselines; an item that one of them answers counts as solved by text alone."""


def weights_by_text(
    items: pd.DataFrame, blind: pd.DataFrame, solvers: Sequence[str] = SOLVERS
) -> pd.DataFrame:
    """Return the weights of items in each family, and in their mean, by whether text solves them.

    Rows are those of `score_weights`. `name` is its score, `part` is "solved by text alone" or "not
    solved", and `score` is both. In a part, items of a family weigh alike, and so do families.
    """
    right = blind[blind["chooser"].isin(solvers)].merge(items[[*ITEM_KEY, "chance"]])
    # A tie of all captions gives exactly chance, which is no answer.
    right = right[right["share"] > right["chance"]].drop_duplicates(list(ITEM_KEY))
    right = right[list(ITEM_KEY)].assign(part="solved by text alone")
    parts = score_weights(items, "family").merge(right, on=list(ITEM_KEY), how="left")
    parts["part"] = parts["part"].fillna("not solved")
    parts["name"], parts["score"] = parts["score"], parts["score"] + ", " + parts["part"]
    # The weights of a part sum to 1, whatever its share of each family is.
    of_family = parts.groupby(["score", "family"])["weight"].transform("sum")
    n_families = parts.groupby("score")["family"].transform("nunique")
    return parts.assign(weight=parts["weight"] / of_family / n_families)
