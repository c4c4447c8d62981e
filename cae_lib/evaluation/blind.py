"""Choosers that never see the picture, on every benchmark that asks for one of several captions:
each caption has a number of its own, and the largest is taken. Where several are largest the
chooser guesses among them, so an item counts with its expected accuracy."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from cae_lib.data.benchmarks.base import CHANCE_OF_TASKS, ORDERS, Benchmark, ImageRef, Item
from cae_lib.evaluation.choice import item_frame, scorable_benchmarks
from cae_lib.evaluation.datasets import benchmarks, evenly_spaced_indices, training_captions
from cae_lib.evaluation.encoder import Encoder
from cae_lib.evaluation.tables import join_by_item
from cae_lib.store import ANSWERS

Chooser = Callable[[Sequence[str]], Sequence[float]]
"""Numbers of texts, the larger the better; the same text has the same number."""

DIGITS = 9
"""Numbers that agree to so many decimals tie: a reordered sum is no reason to choose."""

PICTURES = 500
"""Training pictures whose mean stands in for every picture, spread evenly over the set."""

START, END = "<s>", "</s>"
TOKEN = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def text_choosers(captions: Iterable[str]) -> dict[str, Chooser]:
    """The caption of fewer or more words, or the likelier one by a trigram model of `captions`."""
    model = CaptionModel(captions)
    return {
        "shorter": lambda texts: [-len(text.split()) for text in texts],
        "longer": lambda texts: [len(text.split()) for text in texts],
        "likelihood": lambda texts: [model.log_likelihood(text) for text in texts],
        "likelihood_per_word": lambda texts: [model.log_likelihood(text, True) for text in texts],
    }


def average_picture(encoder: Encoder, profile: str) -> pd.DataFrame:
    """What a model gets if the mean of `PICTURES` training pictures stands in for every picture;
    empty without training pictures."""
    pairs = training_captions(profile)
    if pairs is None:
        return pd.DataFrame()
    refs = [
        ImageRef(pairs.image_paths[row])
        for row in evenly_spaced_indices(len(pairs.image_paths), PICTURES)
    ]
    mean = encoder.images(refs).astype(np.float64).mean(axis=0)
    mean /= np.linalg.norm(mean)

    def chooser(texts: Sequence[str]) -> list[float]:
        return (encoder.texts(texts) * mean).sum(axis=-1).tolist()

    return blind_answers(benchmarks(profile), {"average picture": chooser})


def blind_answers(subsets: Sequence[Benchmark], choosers: Mapping[str, Chooser]) -> pd.DataFrame:
    """What every chooser gets on every benchmark of captions: `chooser`; `family`, `subset`,
    `item`, `picture` as in `choice.answers`; and `share`, the expected accuracy."""
    subsets = scorable_benchmarks(subsets)
    asked = [subset for subset in subsets if _applies(subset)]
    if not asked:
        return pd.DataFrame()
    frame = item_frame(
        subsets
    )  # of all, so that a picture has one number whichever benchmarks apply
    frame = frame.merge(
        pd.DataFrame(
            [(subset.name, subset.subset) for subset in asked], columns=["family", "subset"]
        )
    )
    texts = list(dict.fromkeys(text for s in asked for item in s.items for text in item.texts))
    tables = []
    for name, chooser in choosers.items():
        numbers = dict(zip(texts, map(float, chooser(texts)), strict=True))
        rows = [
            (subset.name, subset.subset, number, guesses(item, subset.task, numbers))
            for subset in asked
            for number, item in subset.numbered_items()
        ]
        shares = pd.DataFrame(rows, columns=[*ANSWERS, "among"]).astype({"item": np.int32})
        among = shares.pop("among").to_numpy()
        shares["share"] = np.divide(1, among, out=np.zeros(len(among)), where=among > 0)
        tables.append(join_by_item(frame, shares).assign(chooser=name))
    columns = ["chooser", "family", "subset", "item", "picture", "share"]
    return pd.concat(tables, ignore_index=True)[columns]


def _applies(benchmark: Benchmark) -> bool:
    """Whether the items choose between texts by what each is worth: no pictures, and no pairs."""
    if benchmark.task in ("image", "tot"):
        return False
    return all(len(item.texts) > 1 for item in benchmark.items)


def guesses(item: Item, task: str, numbers: Mapping[str, float]) -> int:
    """Among how many equal answers the chooser guesses; 0 if the right answer is not among them. A
    2 x 2 item needs another caption for each of its pictures. A blind chooser takes the same one
    for both, so it is wrong unless the two tie."""
    values = [round(numbers[text], DIGITS) for text in item.texts]
    best = max(values)
    if task in ORDERS:
        return int(all(values[closer] > values[other] for closer, other in ORDERS[task]))
    if task != "choice":
        return round(1 / CHANCE_OF_TASKS[task]) if min(values) == best else 0
    return values.count(best) if values[item.truth] == best else 0


class CaptionModel:
    """A trigram model of texts, smoothed as Witten and Bell do (1991), down to unknown words: each
    order is mixed with the one below it, the last one with a uniform share for every known word and
    one for all unknown words together. So no text has probability zero, as it would in `nltk.lm`,
    which ends at the unigrams."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._counts: dict[tuple[str, ...], Counter[str]] = {}
        for text in texts:
            for context, word in _events(text):
                for start in range(3):
                    self._counts.setdefault(context[start:], Counter())[word] += 1
        self._totals = {context: found.total() for context, found in self._counts.items()}
        self.vocabulary = len(self._counts.get((), ()))

    def probability(self, word: str, context: tuple[str, ...] = ()) -> float:
        """Probability of a word after a context of at most two words."""
        shorter = self.probability(word, context[1:]) if context else 1 / (self.vocabulary + 1)
        followers = self._counts.get(context)
        if followers is None:
            return shorter
        kinds = len(followers)
        return (followers[word] + kinds * shorter) / (self._totals[context] + kinds)

    def log_likelihood(self, text: str, per_word: bool = False) -> float:
        """Log probability (nats) of a text with its end, in all or on average over its words."""
        logs = [math.log(self.probability(word, context)) for context, word in _events(text)]
        return math.fsum(logs) / len(logs) if per_word else math.fsum(logs)


def _events(text: str) -> Iterator[tuple[tuple[str, str], str]]:
    """Each word or punctuation mark in lower case, and the end, with the two before it."""
    padded = [START, START, *TOKEN.findall(text.lower()), END]
    for first, second, word in zip(padded, padded[1:], padded[2:], strict=False):
        yield (first, second), word
