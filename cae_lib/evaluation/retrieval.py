"""Retrieval between pictures and captions, both ways: the rank of what is right, query by query."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cae_lib.data.captions import Pairs
from cae_lib.errors import DataError
from cae_lib.evaluation.embed import Encoder, ImageRef

DIRECTIONS = ("image to text", "text to image")


def retrieval_ranks(encoder: Encoder, pairs: Pairs, name: str) -> pd.DataFrame:
    """What `ranks` returns for a set, with its name as the first column, `set`."""
    images = encoder.images([ImageRef(path) for path in pairs.image_paths])
    found = ranks(images, encoder.texts(pairs.captions), np.asarray(pairs.image_index))
    found.insert(0, "set", name)
    return found


def ranks(
    image_features: np.ndarray,
    text_features: np.ndarray,
    image_index: np.ndarray,
    chunk: int = 1024,
) -> pd.DataFrame:
    """Rank by cosine of the best right candidate; recall at k is the share of ranks up to k.

    A tie goes against the query: a wrong candidate that is as close as the right one ranks before
    it. Other right candidates, as a picture's further captions, are not counted.

    Args:
        image_features: `(n_images, E)` unit vectors.
        text_features: `(n_texts, E)` unit vectors.
        image_index: `(n_texts,)`, for each caption the row of its picture.
        chunk: Queries whose similarities are held at once.

    Returns:
        `direction`, one of `DIRECTIONS`; `query`, row of the picture or caption; `picture`, the
        query's picture; `rank`, 1 for what is found first.

    Raises:
        DataError: If the shapes do not fit, an index is out of range, or a picture has no caption.
    """
    index, rows = np.asarray(image_index), np.arange(len(image_features))
    _check(index, len(rows), len(text_features))
    found = (
        (rows, _ranks(image_features, text_features, rows, index, chunk)),
        (index, _ranks(text_features, image_features, index, rows, chunk)),
    )
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "direction": direction,
                    "query": np.arange(len(own), dtype=np.int32),
                    "picture": pictures.astype(np.int32),
                    "rank": own.astype(np.int32),
                }
            )
            for direction, (pictures, own) in zip(DIRECTIONS, found, strict=True)
        ],
        ignore_index=True,
    )


def _check(image_index: np.ndarray, n_images: int, n_texts: int) -> None:
    if image_index.shape != (n_texts,):
        raise DataError(f"image_index has shape {image_index.shape}, expected ({n_texts},).")
    if n_texts and not 0 <= image_index.min() <= image_index.max() < n_images:
        raise DataError(f"image_index names pictures outside 0..{n_images - 1}.")
    bare = np.setdiff1d(np.arange(n_images), image_index)
    if len(bare):
        raise DataError(
            f"{len(bare)} of {n_images} pictures have no caption (the first is row {bare[0]}): "
            "text retrieval is not defined for them. Leave them out."
        )


def _ranks(
    queries: np.ndarray,
    gallery: np.ndarray,
    query_labels: np.ndarray,
    gallery_labels: np.ndarray,
    chunk: int,
) -> np.ndarray:
    """1 and the number of wrong candidates at least as close as the best right one, by query."""
    found = []
    distinct, place = _distinct_rows(gallery)
    for start in range(0, len(queries), chunk):
        part = slice(start, start + chunk)
        belongs = query_labels[part, None] == gallery_labels
        similarity = (queries[part] @ distinct.T)[:, place]
        best = np.where(belongs, similarity, -np.inf).max(axis=1, keepdims=True)
        found.append(1 + ((similarity >= best) & ~belongs).sum(axis=1))
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def _distinct_rows(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows, and for each row its place among them.

    A matrix product may round equal columns differently; equal candidates must tie exactly.
    """
    places: dict[bytes, int] = {}
    place = np.array([places.setdefault(row.tobytes(), len(places)) for row in features], dtype=int)
    first = np.unique(place, return_index=True)[1]
    return features[first], place
