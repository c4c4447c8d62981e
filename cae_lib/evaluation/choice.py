"""Scoring benchmarks of choices: is the true option closer than every other one?"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cae_lib.data.benchmarks.base import CHANCE_OF_TASKS, ORDERS, Benchmark, Choice
from cae_lib.data.benchmarks.svo_probes import GROUPS
from cae_lib.evaluation.datasets import benchmarks
from cae_lib.evaluation.encoder import Encoder
from cae_lib.evaluation.tables import join_by_item
from cae_lib.store import ANSWERS

MATCH = "svo_probes/match"


def benchmark_answers(encoder: Encoder, profile: str) -> pd.DataFrame:
    """`answers` to all benchmarks of a profile."""
    return answers(benchmarks(profile), encoder)


def answers(subsets: Sequence[Benchmark], encoder: Encoder) -> pd.DataFrame:
    """Answer every item of `scored` benchmarks by cosine of float32 unit vectors; a tie is wrong.

    To the columns of `keys` come `correct` (bool); `margin` (float32), by how much the true option
    is closer than the best other one, of other tasks the smallest of the differences that have to
    be positive; `rank` (int16), 1 and the number of other options at least as close, 0 for items
    that have no other options or another task. DataError for two benchmarks of the same name.
    """
    subsets = scored(subsets)
    encoder.texts([text for subset in subsets for item in subset.items for text in item.texts])
    rows = [
        (subset.name, subset.subset, item, *judged)
        for subset in subsets
        for item, judged in enumerate(zip(*_judged(subset, encoder), strict=True))
    ]
    columns = {"correct": bool, "margin": np.float32, "rank": np.int16}
    judged = pd.DataFrame(rows, columns=[*ANSWERS, *columns]).astype({"item": np.int32, **columns})
    return join_by_item(keys(subsets), judged)


def scored(subsets: Sequence[Benchmark]) -> list[Benchmark]:
    """Those benchmarks that have items, and after SVO-Probes its pairs, see `matches`."""
    both = [
        each
        for subset in subsets
        for each in ((subset, matches(subset)) if subset.name == "svo_probes" else (subset,))
    ]
    return [subset for subset in both if subset.items]


def matches(benchmark: Benchmark) -> Benchmark:
    """SVO-Probes' official metric: does each single picture match the sentence, yes or no? Returns
    the distinct pairs of a sentence and a picture as items of groups "positive", "negative"
    (Hendricks and Nematzadeh 2021, official notebook). Only rows with exactly one kind of negative
    count. Sentences are compared in lower case with single spaces."""
    pairs: dict[tuple, Choice] = {}
    for item in benchmark.items:
        if item.group in GROUPS:
            for group, image in zip(("positive", "negative"), item.images, strict=True):
                key = (group, _sentence(item), image)
                pairs.setdefault(key, Choice((image,), item.texts, 0, group, item.id))
    missing = 2 * (benchmark.n_expected - benchmark.n_used)
    return Benchmark(
        benchmark.name,
        "match",
        tuple(pairs.values()),
        len(pairs) + missing,
        headline="macro",
        rule="match against no match, mean of both accuracies",
    )


def keys(subsets: Sequence[Benchmark]) -> pd.DataFrame:
    """What names the items of benchmarks: family, subset, group, item (the position among the
    benchmark's items), picture. Items have the same `picture`, here a number, if they show the same
    file, whatever is cut out of it; an item with two pictures counts with the first, which is the
    right one where one is asked for."""
    rows = [
        (subset.name, subset.subset, item.group, row, os.path.normpath(item.images[0].path))
        for subset in subsets
        for row, item in enumerate(subset.items)
    ]
    frame = pd.DataFrame(rows, columns=["family", "subset", "group", "item", "picture"])
    frame["picture"] = pd.factorize(frame["picture"])[0]
    return frame.astype({"item": np.int32, "picture": np.int32})


def headlines(subsets: Sequence[Benchmark]) -> pd.DataFrame:
    """The items that `answers` answers, in its order. To the columns of `keys` come `weight` in the
    subset's headline, which is the sum of weight times right or wrong; `stratum`, equal for items
    that the headline averages together, its subset or its group; and `chance` of guessing right."""
    subsets = scored(subsets)
    rows = [
        (
            subset.name,
            subset.subset,
            number,
            weight,
            subset.key if subset.headline == "micro" else f"{subset.key}: {item.group}",
            chance(subset, item),
        )
        for subset in subsets
        for number, (item, weight) in enumerate(
            zip(subset.items, headline_weights(subset), strict=True)
        )
    ]
    frame = pd.DataFrame(rows, columns=[*ANSWERS, "weight", "stratum", "chance"])
    types = {"item": np.int32, "weight": np.float64, "chance": np.float64}
    return join_by_item(keys(subsets), frame.astype(types))


def headline_weights(subset: Benchmark) -> np.ndarray:
    """Weight of each item `(n,)` in the headline average of its subset; they sum to 1."""
    groups = pd.Series([item.group for item in subset.items], dtype=object)
    if subset.headline == "micro":
        return np.full(len(groups), 1 / len(groups))
    counted = groups if subset.macro_groups is None else groups[groups.isin(subset.macro_groups)]
    sizes = counted.value_counts()
    return (1 / (groups.map(sizes) * len(sizes))).fillna(0.0).to_numpy(dtype=np.float64)


def chance(subset: Benchmark, item: Choice) -> float:
    """Probability of guessing an item right."""
    if subset.key == MATCH:
        return 1 / 2
    if subset.task != "choice":
        return CHANCE_OF_TASKS[subset.task]
    return 1 / (len(item.images) * len(item.texts))


def item_scores(items: Sequence[Choice], encoder: Encoder) -> list[np.ndarray]:
    """Cosine `(number of images, number of texts)` of all options of each item, float32. An option
    that occurs twice has exactly the same score twice, so ties are exact."""
    shapes: dict[tuple[int, int], list[int]] = {}
    for row, item in enumerate(items):
        shapes.setdefault((len(item.images), len(item.texts)), []).append(row)
    scores: dict[int, np.ndarray] = {}
    for (n_images, n_texts), rows in sorted(shapes.items()):
        images = encoder.images([ref for row in rows for ref in items[row].images])
        texts = encoder.texts([text for row in rows for text in items[row].texts])
        images = images.reshape(len(rows), n_images, 1, -1)
        cosines = (images * texts.reshape(len(rows), 1, n_texts, -1)).sum(axis=-1)
        scores.update(zip(rows, cosines, strict=True))
    return [scores[row] for row in range(len(items))]


def _judged(subset: Benchmark, encoder: Encoder) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right or wrong, margin and rank of each item of a benchmark."""
    ranks = np.zeros(subset.n_used)
    if subset.task == "tot":  # of the three texts with each other
        vectors = [encoder.texts(item.texts) for item in subset.items]
        scores = [own @ own.T for own in vectors]
    else:
        scores = item_scores(subset.items, encoder)
    if subset.key == MATCH:
        margins = match_margins(subset.items, np.concatenate(scores, axis=None))
        negative = np.array([item.group == "negative" for item in subset.items])
        return (margins > 0) | (negative & (margins == 0)), margins, ranks
    truths = [item.truth for item in subset.items]
    margins = np.array([margin(subset.task, *each) for each in zip(scores, truths, strict=True)])
    if subset.task == "choice":
        ranks = np.array(
            [(own >= own.flat[truth]).sum() for own, truth in zip(scores, truths, strict=True)]
        )
    return margins > 0, margins, ranks


def match_margins(items: Sequence[Choice], cosines: np.ndarray) -> np.ndarray:
    """Distance `(n,)` to the threshold, positive where the answer is right. A model of similarities
    has no yes or no of its own, so the threshold is the median of all distinct pairs: a matching
    pair has to lie above it, another one at or below it."""
    distinct = {
        (_sentence(item), item.images[0]): float(cosine)
        for item, cosine in zip(items, cosines, strict=True)
    }
    above = cosines - np.median(list(distinct.values()))
    return np.where([item.group == "positive" for item in items], above, -above)


def margin(task: str, scores: np.ndarray, truth: int) -> float:
    """The smallest of the differences that have to be positive for an item to be right, from its
    cosines `(images, texts)`; `truth` is that of a choice. Of Winoground's three scores "text" asks
    each picture for its text, "image" each text for its picture, and "group" for both."""
    if task == "choice":
        return scores.flat[truth] - np.delete(scores.ravel(), truth).max()
    if task == "tot":
        return scores[0, 1] - max(scores[0, 2], scores[1, 2])
    if task in ORDERS:
        return min(scores[0, closer] - scores[0, other] for closer, other in ORDERS[task])
    text = min(scores[0, 0] - scores[0, 1], scores[1, 1] - scores[1, 0])
    image = min(scores[0, 0] - scores[1, 0], scores[1, 1] - scores[0, 1])
    return {"text": text, "image": image, "group": min(text, image)}[task]


def _sentence(item: Choice) -> str:
    return " ".join(item.texts[0].lower().split())
