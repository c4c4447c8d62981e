"""Recall at k between pictures and captions, both ways, in pure numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cae_lib.errors import DataError
from cae_lib.evaluation.bits import pack_bits, pack_numbers, unpack_bits, unpack_numbers

KS = (1, 5, 10)


@dataclass(frozen=True)
class RetrievalResult:
    """Hits of both directions, query by query.

    Attributes:
        text_hits: For each k, `(n_images,)` bool: one of the picture's captions is among the k
            closest captions (text retrieval, image to text).
        image_hits: For each k, `(n_texts,)` bool: the caption's picture is among the k closest
            pictures (image retrieval, text to image).
        pictures: `(n_texts,)`, for each caption the number of its picture: the hits of a picture's
            captions depend on each other.
    """

    text_hits: Mapping[int, np.ndarray]
    image_hits: Mapping[int, np.ndarray]
    pictures: np.ndarray

    def queries(self, direction: str) -> tuple[Mapping[int, np.ndarray], np.ndarray]:
        """Hits for each k, and the picture of each query `(n,)`; `direction` as in `recall`."""
        if direction == "image":
            return self.image_hits, self.pictures
        return self.text_hits, np.arange(len(next(iter(self.text_hits.values()))))

    def recall(self, direction: str, k: int) -> float:
        """Recall at k, a fraction; `direction` is `"text"` or `"image"`, what is retrieved."""
        return float(self.queries(direction)[0][k].mean())

    def to_record(self) -> dict[str, Any]:
        """Recalls, numbers of queries, the hits as hex strings, and the captions' pictures."""
        record: dict[str, Any] = {"pictures": pack_numbers(self.pictures)}
        for name, hits in (("text", self.text_hits), ("image", self.image_hits)):
            record[name] = {
                "n": len(next(iter(hits.values()))),
                "recall": {str(k): float(part.mean()) for k, part in hits.items()},
                "hits": {str(k): pack_bits(part) for k, part in hits.items()},
            }
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> RetrievalResult:
        """Read what `to_record` wrote.

        Raises:
            DataError: The record does not hold a result.
        """
        try:
            pictures = unpack_numbers(record["pictures"], record["image"]["n"])
            return cls(_read_hits(record["text"]), _read_hits(record["image"]), pictures)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"retrieval: no such record ({error!r}). Compute it anew.") from error


def retrieval(
    image_features: np.ndarray,
    text_features: np.ndarray,
    image_index: np.ndarray,
    ks: Sequence[int] = KS,
    chunk: int = 1024,
) -> RetrievalResult:
    """Recall at each k by cosine.

    A tie goes against the query: a wrong candidate that is as close as the right one ranks before
    it.

    Args:
        image_features: `(n_images, E)` unit vectors.
        text_features: `(n_texts, E)` unit vectors.
        image_index: `(n_texts,)`, for each caption the row of its picture.
        ks: Numbers of candidates looked at.
        chunk: Queries whose similarities are held at once.

    Raises:
        DataError: If the shapes do not fit, an index is out of range, or a picture has no caption.
    """
    image_index = np.asarray(image_index)
    rows = np.arange(len(image_features))
    _check(image_index, len(rows), len(text_features))
    text_ranks = _ranks(image_features, text_features, rows, image_index, chunk)
    image_ranks = _ranks(text_features, image_features, image_index, rows, chunk)
    return RetrievalResult(
        {k: text_ranks < k for k in ks},
        {k: image_ranks < k for k in ks},
        image_index,
    )


def _read_hits(part: Mapping[str, Any]) -> dict[int, np.ndarray]:
    return {int(k): unpack_bits(hits, part["n"]) for k, hits in part["hits"].items()}


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
    """Number of wrong candidates that are at least as close as the best right one, by query."""
    ranks = []
    distinct, place = _distinct_rows(gallery)
    for start in range(0, len(queries), chunk):
        part = slice(start, start + chunk)
        belongs = query_labels[part, None] == gallery_labels
        ranks.append(_best_rank((queries[part] @ distinct.T)[:, place], belongs))
    return np.concatenate(ranks) if ranks else np.empty(0, dtype=np.int64)


def _distinct_rows(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows, and for each row its place among them.

    A matrix product may round equal columns differently; equal candidates must tie exactly.
    """
    places: dict[bytes, int] = {}
    place = np.array([places.setdefault(row.tobytes(), len(places)) for row in features], dtype=int)
    first = np.unique(place, return_index=True)[1]
    return features[first], place


def _best_rank(similarity: np.ndarray, belongs: np.ndarray) -> np.ndarray:
    best = np.where(belongs, similarity, -np.inf).max(axis=1, keepdims=True)
    return ((similarity >= best) & ~belongs).sum(axis=1)
