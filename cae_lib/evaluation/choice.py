"""Scoring benchmarks of choices: is the true option closer than every other one?"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cae_lib.data.benchmarks.base import ORDERS, Benchmark, Choice
from cae_lib.data.benchmarks.svo_probes import GROUPS
from cae_lib.evaluation.embed import Encoder

MATCH = "svo_probes/match"
Judged = tuple[Sequence[bool], Sequence[float], Sequence[int]]


def answers(benchmarks: Sequence[Benchmark], encoder: Encoder) -> pd.DataFrame:
    """Answer every item of `scored` benchmarks by cosine of float32 unit vectors; a tie is wrong.

    To the columns of `keys` come `correct` (bool); `margin` (float32), by how much the true option
    is closer than the best other one, of other tasks the smallest of the differences that have to
    be positive; `rank` (int16), 1 and the number of other options at least as close, 0 for items
    that have no other options or another task.
    """
    parts = scored(benchmarks)
    encoder.texts([text for part in parts for item in part.items for text in item.texts])
    judged: list[Judged] = [([], [], [])]
    judged += [
        _judged(part, (text_scores if part.task == "tot" else item_scores)(part.items, encoder))
        for part in parts
    ]
    correct, margins, ranks = (np.concatenate(column) for column in zip(*judged, strict=True))
    return keys(parts).assign(
        correct=correct.astype(bool), margin=margins.astype(np.float32), rank=ranks.astype(np.int16)
    )


def scored(benchmarks: Sequence[Benchmark]) -> list[Benchmark]:
    """Those benchmarks that have items, and after SVO-Probes its pairs, see `matches`."""
    found = []
    for part in benchmarks:
        extra = [matches(part)] if part.name == "svo_probes" else []
        found += [one for one in (part, *extra) if one.items]
    return found


def matches(benchmark: Benchmark) -> Benchmark:
    """SVO-Probes' official metric: does each single picture match the sentence, yes or no? Returns
    the distinct pairs of a sentence and a picture as items of groups "positive", "negative"
    (Hendricks and Nematzadeh 2021, official notebook). Only rows with exactly one kind of negative
    count. Sentences are compared in lower case with single spaces."""
    found: dict[tuple, Choice] = {}
    for item in benchmark.items:
        if item.group in GROUPS:
            for group, image in zip(("positive", "negative"), item.images, strict=True):
                key = (group, _sentence(item), image)
                found.setdefault(key, Choice((image,), item.texts, 0, group, item.id))
    missing = 2 * (benchmark.n_expected - benchmark.n_used)
    return Benchmark(
        benchmark.name, "match", tuple(found.values()), len(found) + missing, headline="macro",
        rule="match against no match, mean of both accuracies",
    )


def keys(parts: Sequence[Benchmark]) -> pd.DataFrame:
    """What names the items of benchmarks: family, subset, group, item (the position among the
    benchmark's items), picture. Items have the same `picture`, here a number, if they show the same
    file, whatever is cut out of it; an item with two pictures counts with the first, which is the
    right one where one is asked for."""
    items = [item for part in parts for item in part.items]
    sizes = [part.n_used for part in parts]
    paths = [os.path.normpath(item.images[0].path) for item in items]
    names = np.array([(part.name, part.subset) for part in parts], dtype=object).reshape(-1, 2)
    return pd.DataFrame({
        "family": np.repeat(names[:, 0], sizes),
        "subset": np.repeat(names[:, 1], sizes),
        "group": [item.group for item in items],
        "item": np.array([row for n in sizes for row in range(n)], dtype=np.int32),
        "picture": pd.factorize(np.array(paths, dtype=object))[0].astype(np.int32),
    })


def item_scores(items: Sequence[Choice], encoder: Encoder) -> list[np.ndarray]:
    """Cosine `(number of images, number of texts)` of all options of each item, float32. An option
    that occurs twice has exactly the same score twice, so ties are exact."""
    rows: dict[tuple[int, int], list[int]] = {}
    for row, item in enumerate(items):
        rows.setdefault((len(item.images), len(item.texts)), []).append(row)
    scores: dict[int, np.ndarray] = {}
    for (n_images, n_texts), own in sorted(rows.items()):
        images = encoder.images([ref for row in own for ref in items[row].images])
        texts = encoder.texts([text for row in own for text in items[row].texts])
        images = images.reshape(len(own), n_images, 1, -1)
        cosines = (images * texts.reshape(len(own), 1, n_texts, -1)).sum(axis=-1)
        scores.update(zip(own, cosines, strict=True))
    return [scores[row] for row in range(len(items))]


def text_scores(items: Sequence[Choice], encoder: Encoder) -> list[np.ndarray]:
    """Cosine `(3, 3)` of the three texts of each item with each other, float32."""
    texts = [encoder.texts(item.texts) for item in items]
    return [vectors @ vectors.T for vectors in texts]


def _judged(part: Benchmark, scores: Sequence[np.ndarray]) -> Judged:
    """Right or wrong, margin and rank of each item of a benchmark."""
    if part.key == MATCH:
        margins = match_margins(part.items, np.concatenate(scores, axis=None))
        negative = np.array([item.group == "negative" for item in part.items])
        return (margins > 0) | (negative & (margins == 0)), margins, np.zeros(len(margins))
    if part.task == "choice":
        found = [margin_and_rank(s, item.truth) for s, item in zip(scores, part.items, strict=True)]
        margins, ranks = (np.array(column) for column in zip(*found, strict=True))
    else:
        margins = np.array([_margin(part.task, s) for s in scores])
        ranks = np.zeros(len(margins))
    return margins > 0, margins, ranks


def _margin(task: str, scores: np.ndarray) -> float:
    """The smallest difference that has to be positive for an item to be right."""
    if task == "tot":
        return scores[0, 1] - max(scores[0, 2], scores[1, 2])
    if task in ORDERS:
        return min(scores[0, closer] - scores[0, other] for closer, other in ORDERS[task])
    return pair_margins(scores)[task]


def match_margins(items: Sequence[Choice], cosines: np.ndarray) -> np.ndarray:
    """Distance `(n,)` to the threshold, positive where the answer is right. A model of similarities
    has no yes or no of its own, so the threshold is the median of all distinct pairs: a matching
    pair has to lie above it, another one at or below it."""
    distinct = {(_sentence(item), item.images[0]): float(cosine)
                for item, cosine in zip(items, cosines, strict=True)}
    above = cosines - np.median(list(distinct.values()))
    return np.where([item.group == "positive" for item in items], above, -above)


def margin_and_rank(scores: np.ndarray, truth: int) -> tuple[float, int]:
    """By how much the true one of the options is closer than the best other one, and its rank."""
    flat = scores.ravel()
    return flat[truth] - np.delete(flat, truth).max(), int((flat >= flat[truth]).sum())


def pair_margins(scores: np.ndarray) -> dict[str, float]:
    """Margins of Winoground's three scores from the cosines `(image, text)` of a 2 x 2 item."""
    text = min(scores[0, 0] - scores[0, 1], scores[1, 1] - scores[1, 0])
    image = min(scores[0, 0] - scores[1, 0], scores[1, 1] - scores[0, 1])
    return {"text": text, "image": image, "group": min(text, image)}


def _sentence(item: Choice) -> str:
    return " ".join(item.texts[0].lower().split())
