"""Ranks by cosine: of captions and pictures, of a picture's classes, of pictures for a label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from cae_lib.data.benchmarks.base import ImageRef
from cae_lib.data.benchmarks.cola import ImageLabels
from cae_lib.data.captions import Pairs
from cae_lib.data.labelled import LabelledImages
from cae_lib.errors import DataError
from cae_lib.evaluation.datasets import class_sets, label_sets, retrieval_sets
from cae_lib.evaluation.encoder import Encoder
from cae_lib.evaluation.tables import joined

DIRECTIONS = ("image to text", "text to image")
PROMPTS = ("a photo of {}", "{}")
"""Filled with a class and its article; a class is the mean of its prompts' vectors."""


def retrieval_table(encoder: Encoder, profile: str) -> pd.DataFrame:
    """`retrieval_ranks` on all sets of a profile."""
    return joined(
        retrieval_ranks(encoder, pairs, name) for name, pairs in retrieval_sets(profile).items()
    )


def zero_shot_table(encoder: Encoder, profile: str) -> pd.DataFrame:
    """`class_ranks` on all sets of a profile, with the name of the `set`."""
    ranked = joined(
        class_ranks(encoder, pictures).assign(set=name)
        for name, pictures in class_sets(profile).items()
    )
    return ranked[["set", "picture", "label", "rank"]]


def label_table(encoder: Encoder, profile: str) -> pd.DataFrame:
    """`label_precisions` on all sets of a profile."""
    return joined(
        label_precisions(pictures, encoder) for pictures in label_sets(profile) if pictures.images
    )


def retrieval_ranks(encoder: Encoder, pairs: Pairs, name: str) -> pd.DataFrame:
    """What `ranks` returns for a set, with its name as the first column, `set`."""
    images = encoder.images([ImageRef(path) for path in pairs.image_paths])
    ranked = ranks(images, encoder.texts(pairs.captions), np.asarray(pairs.image_index))
    ranked.insert(0, "set", name)
    return ranked


def ranks(
    images: np.ndarray, texts: np.ndarray, image_index: np.ndarray, chunk: int = 1024
) -> pd.DataFrame:
    """Rank by cosine of the best right candidate; recall at k is the share of ranks up to k.

    A tie goes against the query: a wrong candidate that is as close as the right one ranks before
    it. Other right candidates, as a picture's further captions, are not counted.

    Args:
        images, texts: `(n_images, E)` and `(n_texts, E)` unit vectors.
        image_index: `(n_texts,)`, for each caption the row of its picture.
        chunk: Queries whose similarities are held at once.

    Returns `direction`, one of `DIRECTIONS`; `query`, row of the picture or caption; `picture`, the
    query's; `rank`, 1 for what is found first. DataError if a picture has no caption.
    """
    rows = np.arange(len(images))
    bare = np.setdiff1d(rows, image_index)
    if len(bare):
        raise DataError(
            f"{len(bare)} of {len(rows)} pictures have no caption (the first is row {bare[0]}): "
            "text retrieval is not defined for them. Leave them out."
        )
    both = (
        _ranks(images, texts, rows, image_index, chunk),
        _ranks(texts, images, image_index, rows, chunk),
    )
    return pd.DataFrame(
        {
            "direction": np.repeat(np.array(DIRECTIONS, dtype=object), [len(images), len(texts)]),
            "query": np.concatenate([rows, np.arange(len(texts))]).astype(np.int32),
            "picture": np.concatenate([rows, image_index]).astype(np.int32),
            "rank": np.concatenate(both).astype(np.int32),
        }
    )


def _ranks(
    queries: np.ndarray,
    gallery: np.ndarray,
    query_labels: np.ndarray,
    gallery_labels: np.ndarray,
    chunk: int,
) -> np.ndarray:
    """1 and the number of wrong candidates at least as close as the best right one, by query."""
    found = [np.empty(0, dtype=np.int64)]
    distinct, place = _distinct_rows(gallery)
    for start in range(0, len(queries), chunk):
        some = slice(start, start + chunk)
        belongs = query_labels[some, None] == gallery_labels
        similarity = (queries[some] @ distinct.T)[:, place]
        best = np.where(belongs, similarity, -np.inf).max(axis=1, keepdims=True)
        found.append(1 + ((similarity >= best) & ~belongs).sum(axis=1))
    return np.concatenate(found)


def _distinct_rows(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows, and for each row its place among them: a matrix product may round equal
    columns differently, but equal candidates must tie exactly."""
    places: dict[bytes, int] = {}
    place = np.array([places.setdefault(row.tobytes(), len(places)) for row in features], dtype=int)
    first = np.unique(place, return_index=True)[1]
    return features[first], place


def class_ranks(encoder: Encoder, pictures: LabelledImages) -> pd.DataFrame:
    """Zero-shot classification: rank the classes that each picture shows by cosine, of scenes
    several; a tie counts against the right class. `picture`, its number; `label`, a class that it
    shows; `rank` of this class among those that the picture does not show, 1 for the closest."""
    images = encoder.images([ImageRef(path) for path in pictures.paths])
    similarity = images @ class_vectors(encoder, pictures.classes).T
    sizes = [len(labels) for labels in pictures.labels]
    rows = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    columns = np.concatenate([list(labels) for labels in pictures.labels])
    absent = similarity.copy()
    absent[rows, columns] = -np.inf
    found = 1 + (absent[rows] >= similarity[rows, columns, None]).sum(axis=1)
    labels = np.array(pictures.classes, dtype=object)[columns]
    return pd.DataFrame({"picture": rows, "label": labels, "rank": found.astype(np.int32)})


def class_vectors(encoder: Encoder, classes: Sequence[str]) -> np.ndarray:
    """Unit vectors `(C, E)`: the mean over `PROMPTS`, as CLIP's own evaluation does it."""
    texts = [prompt.format(with_article(name)) for name in classes for prompt in PROMPTS]
    vectors = encoder.texts(texts).reshape(len(classes), len(PROMPTS), -1).mean(axis=1)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def with_article(name: str) -> str:
    """A noun with "a" or "an" by its first letter."""
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def label_precisions(pictures: ImageLabels, encoder: Encoder) -> pd.DataFrame:
    """Rank each label's hard pictures by cosine; COLA's number is the mean precision over labels.
    `set`, `label`, `precision`; NaN, left out of the mean, where no hard picture fits."""
    scores = encoder.images(pictures.images) @ encoder.texts(pictures.labels).T
    precision = [
        average_precision_score(pictures.present[hard, label], scores[hard, label])
        if pictures.present[hard, label].any()
        else np.nan
        for label, hard in enumerate(pictures.hard.T)
    ]
    return pd.DataFrame(
        {"set": pictures.source, "label": list(pictures.labels), "precision": precision}
    )
