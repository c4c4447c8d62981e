"""Scoring benchmarks of choices: is the true option closer than every other one?"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cae_lib.data.benchmarks.base import Benchmark, Choice
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.match import MATCH, match_margins, matches

ITEMS_AT_ONCE = 4096


def answers(benchmarks: Sequence[Benchmark], encoder: Encoder) -> pd.DataFrame:
    """Answer every item of some benchmarks by the cosine of float32 unit vectors.

    All texts are sorted by length together, then encoded; of those that the encoder knows nothing
    is encoded again. A tie is wrong.

    Args:
        benchmarks: Items and how they are averaged; see `scored` for what is added to them.
        encoder: Encodes pictures and texts.

    Returns:
        The columns of `keys`; `correct` (bool); `margin` (float32), by how much the true option is
        closer than the best other one, of 2 x 2 items the smallest of the differences that have to
        be positive; `rank` (int16), 1 and the number of other options at least as close, 0 for
        items that have no other options or are 2 x 2.

    Raises:
        DataError: If a picture cannot be read.
    """
    parts = scored(benchmarks)
    encoder.texts([text for part in parts for item in part.items for text in item.texts])
    found = [_judged(part, item_scores(part.items, encoder)) for part in parts]
    columns = [np.concatenate(column) for column in zip(*found, strict=True)] or [[], [], []]
    return keys(parts).assign(
        correct=np.asarray(columns[0], dtype=bool),
        margin=np.asarray(columns[1], dtype=np.float32),
        rank=np.asarray(columns[2], dtype=np.int16),
    )


def scored(benchmarks: Sequence[Benchmark]) -> list[Benchmark]:
    """Those benchmarks that have items, and after SVO-Probes its pairs, see `match.matches`."""
    found = []
    for part in benchmarks:
        extra = [matches(part)] if part.name == "svo_probes" else []
        found += [one for one in (part, *extra) if one.items]
    return found


def keys(parts: Sequence[Benchmark]) -> pd.DataFrame:
    """What names the items of benchmarks: family, subset, group, item, picture.

    `item` is the position among the benchmark's items. Items have the same `picture`, here a
    number, if they show the same file, whatever is cut out of it; an item with two pictures counts
    with the first, which is the right one where one is asked for.
    """
    items = [item for part in parts for item in part.items]
    sizes = [part.n_used for part in parts]
    paths = [os.path.normpath(item.images[0].path) for item in items]
    return pd.DataFrame(
        {
            "family": np.repeat(np.array([part.name for part in parts], dtype=object), sizes),
            "subset": np.repeat(np.array([part.subset for part in parts], dtype=object), sizes),
            "group": [item.group for item in items],
            "item": np.array([row for n in sizes for row in range(n)], dtype=np.int32),
            "picture": pd.factorize(np.array(paths, dtype=object))[0].astype(np.int32),
        }
    )


def item_scores(items: Sequence[Choice], encoder: Encoder) -> list[np.ndarray]:
    """Cosine `(number of images, number of texts)` of all options of each item, float32.

    An option that occurs twice has exactly the same score twice, so ties are exact.
    """
    shapes = [(len(item.images), len(item.texts)) for item in items]
    scores: list[np.ndarray] = [np.empty(0)] * len(items)
    for shape in sorted(set(shapes)):
        rows = [row for row, other in enumerate(shapes) if other == shape]
        for start in range(0, len(rows), ITEMS_AT_ONCE):
            part = rows[start : start + ITEMS_AT_ONCE]
            for row, score in zip(part, _cosines([items[i] for i in part], encoder), strict=True):
                scores[row] = score
    return scores


def _cosines(items: Sequence[Choice], encoder: Encoder) -> np.ndarray:
    images = encoder.images([ref for item in items for ref in item.images])
    texts = encoder.texts([text for item in items for text in item.texts])
    images = images.reshape(len(items), -1, 1, images.shape[-1])
    texts = texts.reshape(len(items), 1, -1, texts.shape[-1])
    return (images * texts).sum(axis=-1)


def _judged(
    part: Benchmark, scores: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right or wrong, margin and rank of each item of a benchmark."""
    if part.key == MATCH:
        correct, margins = match_margins(part.items, np.concatenate(scores, axis=None))
        return correct, margins, np.zeros(len(margins))
    if part.task == "choice":
        found = [margin_and_rank(s, item.truth) for s, item in zip(scores, part.items, strict=True)]
        margins, ranks = (np.array(column) for column in zip(*found, strict=True))
    else:
        margins = np.array([pair_margins(s)[part.task] for s in scores])
        ranks = np.zeros(len(margins))
    return margins > 0, margins, ranks


def margin_and_rank(scores: np.ndarray, truth: int) -> tuple[float, int]:
    """By how much the true one of the options is closer than the best other one, and its rank."""
    flat = scores.ravel()
    return flat[truth] - np.delete(flat, truth).max(), int((flat >= flat[truth]).sum())


def pair_margins(scores: np.ndarray) -> dict[str, float]:
    """Margins of Winoground's three scores from the cosines `(image, text)` of a 2 x 2 item."""
    text = min(scores[0, 0] - scores[0, 1], scores[1, 1] - scores[1, 0])
    image = min(scores[0, 0] - scores[1, 0], scores[1, 1] - scores[0, 1])
    return {"text": text, "image": image, "group": min(text, image)}


def reference_correct(frame: pd.DataFrame) -> pd.Series:
    """Right or wrong under the references' own rule of ties, from the columns of `answers`.

    ARO's orders and What'sUp take the first of the closest options, which is the true one there,
    so a tie counts. Elsewhere the true option comes last or the comparison is strict, so a tie is
    wrong. (For CREPE the reference leaves it open.)
    """
    return frame["correct"] | (frame["family"].isin(["order", "whatsup"]) & (frame["margin"] >= 0))
