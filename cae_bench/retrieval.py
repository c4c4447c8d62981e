"""Image-text retrieval and zero-shot classification: ranks by cosine similarity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cae_bench.benchmarks.base import ImageRef
from cae_bench.encoder import Encoder
from cae_bench.labelled import LabelledImages
from cae_lib.data.captions import ImageCaptionPairs
from cae_lib.errors import DataError
from cae_lib.words.articles import indefinite_article

DIRECTIONS = ("image to text", "text to image")
"""Directions of retrieval: from the query to the candidates."""

PROMPT_TEMPLATES = ("a photo of {}", "{}")
"""Prompts of zero-shot classification; "{}" stands for a class with its article."""


def retrieval_ranks(encoder: Encoder, pairs: ImageCaptionPairs, name: str) -> pd.DataFrame:
    """Return the table of `rank_pairs` of a retrieval set, with `name` in a first column, `set`."""
    images = encoder.encode_images([ImageRef(path) for path in pairs.image_paths])
    table = rank_pairs(images, encoder.encode_texts(pairs.captions), np.asarray(pairs.image_index))
    table.insert(0, "set", name)
    return table


def rank_pairs(
    image_features: np.ndarray,
    text_features: np.ndarray,
    image_index: np.ndarray,
    chunk_size: int = 1024,
) -> pd.DataFrame:
    """Rank the right candidate of each query by cosine, in both directions.

    Args:
        image_features: Unit vectors of the images `(n_images, E)`.
        text_features: Unit vectors of the captions `(n_texts, E)`.
        image_index: Row of each caption's image `(n_texts,)`.
        chunk_size: Number of queries whose similarities are in memory at once.

    Returns:
        A row for each query: `direction`, one of `DIRECTIONS`; `query`, the row of the image or
        caption; `picture`, the row of its image; `rank`, 1 for the closest.
    """
    rows = np.arange(len(image_features))
    without_caption = np.setdiff1d(rows, image_index)
    if len(without_caption):
        raise DataError(
            f"{len(without_caption)} of {len(rows)} pictures have no caption (the first is row "
            f"{without_caption[0]}): text retrieval is not defined for them. Leave them out."
        )
    ranks = (
        _best_ranks(image_features, text_features, rows, image_index, chunk_size),
        _best_ranks(text_features, image_features, image_index, rows, chunk_size),
    )
    return pd.DataFrame(
        {
            "direction": np.repeat(
                np.array(DIRECTIONS, dtype=object), [len(image_features), len(text_features)]
            ),
            "query": np.concatenate([rows, np.arange(len(text_features))]).astype(np.int32),
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
    """Return, for each query, 1 plus the number of wrong candidates before the best right one.

    A candidate is right where its label is the query's.
    """
    ranks = [np.empty(0, dtype=np.int64)]
    # A matrix product may round equal columns differently, but equal candidates must tie exactly.
    distinct, column = _distinct_rows(candidates)
    for start in range(0, len(queries), chunk):
        rows = slice(start, start + chunk)
        # (queries of the chunk, candidates), as `similarity`
        is_right = query_labels[rows, None] == candidate_labels
        similarity = (queries[rows] @ distinct.T)[:, column]
        # Of several captions of an image, the closest one is ranked.
        best = np.where(is_right, similarity, -np.inf).max(axis=1, keepdims=True)
        # The other right candidates do not count, and in a tie the wrong candidate ranks first.
        ranks.append(1 + ((similarity >= best) & ~is_right).sum(axis=1))
    return np.concatenate(ranks)


def _distinct_rows(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct rows of features, and for each row its number among them."""
    numbers: dict[bytes, int] = {}
    number = np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in features], int)
    first = np.unique(number, return_index=True)[1]
    return features[first], number


def class_ranks(encoder: Encoder, images: LabelledImages) -> pd.DataFrame:
    """Rank each class that an image shows among the classes that it does not show, by cosine.

    Returns:
        A row for each image and class that it shows: `picture`, the position in `images.paths`;
        `label`, the name of the class; and `rank`, 1 for the closest.
    """
    vectors = encoder.encode_images([ImageRef(path) for path in images.paths])
    similarity = vectors @ class_vectors(encoder, images.classes).T
    sizes = [len(labels) for labels in images.labels]
    # (labels,): image and class of each label, for images may show several classes.
    rows = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    columns = np.concatenate([list(labels) for labels in images.labels])
    wrong = similarity.copy()
    # (images, classes) without the classes that an image shows: they do not compete.
    wrong[rows, columns] = -np.inf
    # `>=`, so that in a tie the wrong class ranks first.
    ranks = 1 + (wrong[rows] >= similarity[rows, columns, None]).sum(axis=1)
    labels = np.array(images.classes, dtype=object)[columns]
    return pd.DataFrame({"picture": rows, "label": labels, "rank": ranks.astype(np.int32)})


def class_vectors(encoder: Encoder, classes: Sequence[str]) -> np.ndarray:
    """Return a unit vector of each class `(C, E)`: the mean of its prompts' vectors, normalised."""
    texts = [text for name in classes for text in class_prompts(name)]
    vectors = (
        encoder.encode_texts(texts).reshape(len(classes), len(PROMPT_TEMPLATES), -1).mean(axis=1)
    )
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def class_prompts(class_name: str) -> list[str]:
    """Return the prompts of a class: one text for each of `PROMPT_TEMPLATES`."""
    return [
        prompt.format(f"{indefinite_article(class_name)} {class_name}")
        for prompt in PROMPT_TEMPLATES
    ]
