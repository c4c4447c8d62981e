"""SVO-Probes' official metric: does each single picture match the sentence, yes or no?

Hendricks and Nematzadeh 2021, official notebook. A model of similarities has no yes or no of its
own, so a threshold on the cosine stands in: the median of all distinct pairs scored, which says yes
as often as no. The metric is the mean of the accuracies on matching pairs and on others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cae_lib.data.benchmarks.base import Benchmark, Choice
from cae_lib.data.benchmarks.svo_probes import GROUPS

MATCH = "svo_probes/match"


def matches(benchmark: Benchmark) -> Benchmark:
    """The distinct pairs of a sentence and a picture, as items of groups "positive", "negative".

    Only rows with exactly one kind of negative count. Sentences are compared in lower case with
    single spaces. A row that is missing counts as two pairs that are.
    """
    found: dict[tuple, Choice] = {}
    for item in benchmark.items:
        if item.group in GROUPS:
            for group, image in zip(("positive", "negative"), item.images, strict=True):
                key = (group, _sentence(item), image)
                found.setdefault(key, Choice((image,), item.texts, 0, group, item.id))
    missing = 2 * (benchmark.n_expected - benchmark.n_used)
    return replace(
        benchmark,
        subset=MATCH.partition("/")[2],
        items=tuple(found.values()),
        n_expected=len(found) + missing,
        headline="macro",
        macro_groups=None,
        rule="match against no match, mean of both accuracies",
        counts={},
        sets={},
    )


def match_margins(items: Sequence[Choice], cosines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Right or wrong, and the distance to the threshold in the right direction, `(n,)` each.

    A matching pair has to lie above the threshold, another one at or below it.
    """
    distinct = {
        (_sentence(item), item.images[0]): cosine
        for item, cosine in zip(items, cosines.astype(np.float64), strict=True)
    }
    above = cosines - np.median(list(distinct.values()))
    positive = np.array([item.group == "positive" for item in items])
    return np.where(positive, above > 0, above <= 0), np.where(positive, above, -above)


def _sentence(item: Choice) -> str:
    return " ".join(item.texts[0].lower().split())
