"""Ranks by cosine: of captions and images, and of an image's classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from cae_lib.data.benchmarks.base import ImageRef
from cae_lib.data.captions import Pairs
from cae_lib.data.labelled import LabelledImages
from cae_lib.errors import DataError
from cae_lib.evaluation.datasets import classification_sets, retrieval_sets
from cae_lib.evaluation.encoder import Encoder
from cae_lib.words.articles import indefinite_article

DIRECTIONS = ("image to text", "text to image")
PROMPTS = ("a photo of {}", "{}")
"""Prompts, filled with a class and its article; the mean of their vectors stands for the class."""


def concat_tables(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Concatenate the rows of tables; without tables, return an empty one."""
    tables = list(tables)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def retrieval_table(encoder: Encoder, profile: str) -> pd.DataFrame:
    """Return `retrieval_ranks` on all sets of a profile."""
    sets = retrieval_sets(profile)
    return concat_tables(retrieval_ranks(encoder, pairs, name) for name, pairs in sets.items())


def zero_shot_table(encoder: Encoder, profile: str) -> pd.DataFrame:
    """Return `class_ranks` on all sets of a profile, with the name of the `set` first."""
    tables = []
    for name, images in classification_sets(profile).items():
        table = class_ranks(encoder, images)
        table.insert(0, "set", name)
        tables.append(table)
    return concat_tables(tables)


def retrieval_ranks(encoder: Encoder, pairs: Pairs, name: str) -> pd.DataFrame:
    """Return `rank_pairs` of a retrieval set, with its name as the first column, `set`."""
    images = encoder.encode_images([ImageRef(path) for path in pairs.image_paths])
    table = rank_pairs(images, encoder.encode_texts(pairs.captions), np.asarray(pairs.image_index))
    table.insert(0, "set", name)
    return table


def rank_pairs(
    images: np.ndarray, texts: np.ndarray, image_index: np.ndarray, chunk: int = 1024
) -> pd.DataFrame:
    """Rank the right candidate of each query by cosine; the best one if there are several.

    Recall at k is the share of queries with a rank of at most k.

    A tie counts against the query: a wrong candidate that is as close as the right one ranks before
    it. Other right candidates, such as an image's further captions, are not counted.

    Args:
        images: Unit vectors `(n_images, E)`.
        texts: Unit vectors `(n_texts, E)`.
        image_index: Row of each caption's image `(n_texts,)`.
        chunk: Number of queries whose similarities are held at once.

    Returns:
        `direction`, one of `DIRECTIONS`; `query`, row of the image or caption; `picture`, row of
        the query's image; `rank`, 1 for the closest.

    Raises:
        DataError: An image has no caption.
    """
    rows = np.arange(len(images))
    without_caption = np.setdiff1d(rows, image_index)
    if len(without_caption):
        raise DataError(
            f"{len(without_caption)} of {len(rows)} pictures have no caption (the first is row "
            f"{without_caption[0]}): text retrieval is not defined for them. Leave them out."
        )
    ranks = (
        _best_ranks(images, texts, rows, image_index, chunk),
        _best_ranks(texts, images, image_index, rows, chunk),
    )
    return pd.DataFrame(
        {
            "direction": np.repeat(np.array(DIRECTIONS, dtype=object), [len(images), len(texts)]),
            "query": np.concatenate([rows, np.arange(len(texts))]).astype(np.int32),
            "picture": np.concatenate([rows, image_index]).astype(np.int32),
            "rank": np.concatenate(ranks).astype(np.int32),
        }
    )


def _best_ranks(
    queries: np.ndarray,
    candidates: np.ndarray,
    query_labels: np.ndarray,
    candidate_labels: np.ndarray,
    chunk: int,
) -> np.ndarray:
    """Count, for each query, the wrong candidates at least as close as the best right one, plus 1.

    A candidate is right where its label is the query's.
    """
    ranks = [np.empty(0, dtype=np.int64)]
    distinct, column = _distinct_rows(candidates)
    for start in range(0, len(queries), chunk):
        rows = slice(start, start + chunk)
        is_right = query_labels[rows, None] == candidate_labels
        similarity = (queries[rows] @ distinct.T)[:, column]
        best = np.where(is_right, similarity, -np.inf).max(axis=1, keepdims=True)
        ranks.append(1 + ((similarity >= best) & ~is_right).sum(axis=1))
    return np.concatenate(ranks)


def _distinct_rows(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct rows of features, and for each row its number among them.

    A matrix product may round equal columns differently, but equal candidates must tie exactly.
    """
    numbers: dict[bytes, int] = {}
    number = np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in features], int)
    first = np.unique(number, return_index=True)[1]
    return features[first], number


def class_ranks(encoder: Encoder, images: LabelledImages) -> pd.DataFrame:
    """Rank by cosine each class that an image shows: zero-shot classification.

    An image may show several classes. A tie counts against the right class.

    Returns:
        `picture`, number of the image; `label`, a class that it shows; `rank` of this class among
        those that the image does not show, 1 for the closest.
    """
    vectors = encoder.encode_images([ImageRef(path) for path in images.paths])
    similarity = vectors @ class_vectors(encoder, images.classes).T
    sizes = [len(labels) for labels in images.labels]
    rows = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    columns = np.concatenate([list(labels) for labels in images.labels])
    wrong = similarity.copy()
    wrong[rows, columns] = -np.inf
    ranks = 1 + (wrong[rows] >= similarity[rows, columns, None]).sum(axis=1)
    labels = np.array(images.classes, dtype=object)[columns]
    return pd.DataFrame({"picture": rows, "label": labels, "rank": ranks.astype(np.int32)})


def class_vectors(encoder: Encoder, classes: Sequence[str]) -> np.ndarray:
    """Return unit vectors of classes `(C, E)`: the mean over `PROMPTS`, as CLIP evaluates it."""
    texts = [text for name in classes for text in class_prompts(name)]
    vectors = encoder.encode_texts(texts).reshape(len(classes), len(PROMPTS), -1).mean(axis=1)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def class_prompts(name: str) -> list[str]:
    """Return the texts that an image of a class is compared with, one for each of `PROMPTS`."""
    return [prompt.format(f"{indefinite_article(name)} {name}") for prompt in PROMPTS]
