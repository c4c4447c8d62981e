"""Answer the items of benchmarks by cosine similarity, and weight the items in averages."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cae_bench.averages import item_weights, require_unique_items
from cae_bench.benchmarks.base import (
    CHANCE_ACCURACY_OF_TASK,
    CLOSER_TEXT_PAIRS,
    Average,
    Benchmark,
    Item,
)
from cae_bench.benchmarks.svo_probes import NEGATIVE_KINDS
from cae_bench.encoder import Encoder

SVO_MATCH_KEY = "svo_probes/match"
"""Key of the benchmark that `svo_match_benchmark` returns."""


def answer_benchmarks(benchmarks: Sequence[Benchmark], encoder: Encoder) -> pd.DataFrame:
    """Answer every item by the cosines of its images and texts; a tie is wrong.

    Benchmarks without items are left out, and `svo_match_benchmark` is added after SVO-Probes.

    Returns:
        A row for each item, with the columns of `item_frame` and three more: `correct` (bool);
        `margin` (float32), a difference of cosines, see `margin` and `match_margins`; and `rank`
        (int16), for the task "choice" 1 plus the number of other options that are at least as close
        as the true one, else 0.
    """
    benchmarks = scorable_benchmarks(benchmarks)
    frame = item_frame(benchmarks)
    # All at once, because the encoder sorts texts into batches of similar length. Each subset below
    # then finds its vectors.
    encoder.encode_texts(
        [text for subset in benchmarks for item in subset.items for text in item.texts]
    )
    rows = [row for subset in benchmarks for row in zip(*_judge(subset, encoder), strict=True)]
    types = {"correct": bool, "margin": np.float32, "rank": np.int16}
    return frame.join(pd.DataFrame(rows, columns=[*types]).astype(types))


def scorable_benchmarks(benchmarks: Sequence[Benchmark]) -> list[Benchmark]:
    """Return the benchmarks that have items, with `svo_match_benchmark` added after SVO-Probes."""
    scorable = []
    for subset in benchmarks:
        scorable.append(subset)
        if subset.name == "svo_probes":
            scorable.append(svo_match_benchmark(subset))
    return [subset for subset in scorable if subset.items]


def svo_match_benchmark(benchmark: Benchmark) -> Benchmark:
    """Return the benchmark of SVO-Probes' official metric: does an image match a sentence?

    Its items are the distinct pairs of a sentence and an image (Hendricks and Nematzadeh 2021,
    official notebook), in the groups "positive" and "negative".
    """
    pairs: dict[tuple, Item] = {}
    for item in benchmark.items:
        # The official metric uses only rows with exactly one kind of negative.
        if item.group in NEGATIVE_KINDS:
            for group, image in zip(("positive", "negative"), item.images, strict=True):
                # Several rows may have the same sentence and matching image.
                key = (group, _sentence(item), image)
                pairs.setdefault(key, Item(item.key, (image,), item.texts, 0, group))
    # A row that is not here would have given a positive and a negative pair.
    missing = 2 * (benchmark.n_expected - benchmark.n_used)
    return Benchmark(
        benchmark.name,
        "match",
        tuple(pairs.values()),
        len(pairs) + missing,
        Average("match against no match, mean of both accuracies", over_groups=True),
    )


def item_frame(benchmarks: Sequence[Benchmark]) -> pd.DataFrame:
    """Return a row for each item of benchmarks, with the columns that identify it.

    Returns:
        `family`, `subset`, `group`; `item` (int32), see `Benchmark.item_numbers`; and `picture`
        (int32), a number of the file of the item's first image, whatever the crop.
    """
    rows = [
        # Two spellings of a path, such as b/../a/x and a/x, are one image.
        (subset.name, subset.subset, item.group, number, os.path.normpath(item.images[0].path))
        for subset in benchmarks
        for number, item in subset.numbered_items()
    ]
    frame = pd.DataFrame(rows, columns=["family", "subset", "group", "item", "picture"])
    require_unique_items(frame)
    # Statistics resample images: items that show one file share a number in all benchmarks.
    frame["picture"] = pd.factorize(frame["picture"])[0]
    return frame.astype({"item": np.int32, "picture": np.int32})


def weighted_items(benchmarks: Sequence[Benchmark]) -> pd.DataFrame:
    """Return the items of the scorable benchmarks with their weights.

    The items have the order of `answer_benchmarks`.

    Returns:
        The columns of `item_frame` and three more: `weight`, so that the headline score of a subset
        is the sum of the weights of its right answers; `stratum`, a label of the items that are
        averaged together with equal weights; and `chance`, the probability of guessing the item.
    """
    benchmarks = scorable_benchmarks(benchmarks)
    rows = []
    for subset in benchmarks:
        weights = item_weights([item.group for item in subset.items], subset.average)
        for item, weight in zip(subset.items, weights, strict=True):
            over_groups = subset.average.over_groups
            # With the key of the subset, because two subsets may have a group of the same name.
            stratum = f"{subset.key}: {item.group}" if over_groups else subset.key
            rows.append((weight, stratum, chance(subset, item)))
    columns = pd.DataFrame(rows, columns=["weight", "stratum", "chance"])
    return item_frame(benchmarks).join(columns.astype({"weight": np.float64, "chance": np.float64}))


def chance(benchmark: Benchmark, item: Item) -> float:
    """Return the probability of guessing an item right."""
    if benchmark.key == SVO_MATCH_KEY:
        return 1 / 2
    if benchmark.task != "choice":
        return CHANCE_ACCURACY_OF_TASK[benchmark.task]
    return 1 / (len(item.images) * len(item.texts))


def item_scores(items: Sequence[Item], encoder: Encoder) -> list[np.ndarray]:
    """Return for each item the cosines of its images with its texts, float32 `(images, texts)`."""
    shapes: dict[tuple[int, int], list[int]] = {}
    for row, item in enumerate(items):
        shapes.setdefault((len(item.images), len(item.texts)), []).append(row)
    scores: dict[int, np.ndarray] = {}
    for (n_images, n_texts), rows in sorted(shapes.items()):
        images = encoder.encode_images([ref for row in rows for ref in items[row].images])
        texts = encoder.encode_texts([text for row in rows for text in items[row].texts])
        # (items, images, 1, E) times (items, 1, texts, E). A sum of products, not a matrix product,
        # which may round equal options differently: a tie has to be exact.
        images = images.reshape(len(rows), n_images, 1, -1)
        cosines = (images * texts.reshape(len(rows), 1, n_texts, -1)).sum(axis=-1)
        scores.update(zip(rows, cosines, strict=True))
    return [scores[row] for row in range(len(items))]


def _judge(subset: Benchmark, encoder: Encoder) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each item of a benchmark whether it is right, its margin and its rank."""
    ranks = np.zeros(subset.n_used)
    if subset.task == "tot":
        # (3, 3) for each item: cosines of the texts with each other, without the image.
        vectors = [encoder.encode_texts(item.texts) for item in subset.items]
        scores = [features @ features.T for features in vectors]
    else:
        scores = item_scores(subset.items, encoder)
    if subset.key == SVO_MATCH_KEY:
        margins = match_margins(subset.items, np.concatenate(scores, axis=None))
        negative = np.array([item.group == "negative" for item in subset.items])
        # A match lies above the threshold, so a negative pair at the threshold is right.
        return (margins > 0) | (negative & (margins == 0)), margins, ranks
    truths = [item.truth for item in subset.items]
    margins = np.array(
        [margin(subset.task, s, truth) for s, truth in zip(scores, truths, strict=True)]
    )
    if subset.task == "choice":
        ranks = np.array(
            # The true option counts itself, so the smallest rank is 1.
            [(s >= s.flat[truth]).sum() for s, truth in zip(scores, truths, strict=True)]
        )
    return margins > 0, margins, ranks


def match_margins(items: Sequence[Item], cosines: np.ndarray) -> np.ndarray:
    """Return the margins `(n,)` of the items of `svo_match_benchmark` from their cosines `(n,)`.

    The margin is the cosine minus the threshold for a positive pair, the threshold minus the cosine
    for a negative pair.
    """
    # A pair may be positive in one row and negative in another; it counts once in the median.
    distinct = {
        (_sentence(item), item.images[0]): float(cosine)
        for item, cosine in zip(items, cosines, strict=True)
    }
    # A cosine gives no yes or no, so the median of all pairs is the threshold.
    above = cosines - np.median(list(distinct.values()))
    return np.where([item.group == "positive" for item in items], above, -above)


def margin(task: str, scores: np.ndarray, truth: int) -> float:
    """Return the smallest of the differences that have to be positive for an item to be right.

    `scores` are cosines `(images, texts)`; for "tot", cosines between the three texts `(3, 3)`.
    """
    if task == "choice":
        return scores.flat[truth] - np.delete(scores.ravel(), truth).max()
    if task == "tot":
        return scores[0, 1] - max(scores[0, 2], scores[1, 2])
    if task in CLOSER_TEXT_PAIRS:
        return min(
            scores[0, closer] - scores[0, other] for closer, other in CLOSER_TEXT_PAIRS[task]
        )
    # Winoground: along a row the texts of one image compete, along a column the images of one text.
    text = min(scores[0, 0] - scores[0, 1], scores[1, 1] - scores[1, 0])
    image = min(scores[0, 0] - scores[1, 0], scores[1, 1] - scores[0, 1])
    return {"text": text, "image": image, "group": min(text, image)}[task]


def _sentence(item: Item) -> str:
    return " ".join(item.texts[0].lower().split())
