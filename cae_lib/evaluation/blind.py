"""Text-only baselines: answers to benchmarks of captions that never see the image.

A baseline gives a number to each caption and answers with the caption of the largest number. If
several are largest it guesses among them, so an item counts with its expected accuracy.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import compress

import pandas as pd

from cae_lib.data.benchmarks.base import CHANCE_OF_TASKS, ORDERS, Benchmark, Item
from cae_lib.evaluation.choice import item_frame, scorable_benchmarks

Chooser = Callable[[Sequence[str]], Sequence[float]]
"""Numbers of texts, the larger the better; the same text has the same number."""

DECIMALS = 9
"""Numbers that agree to so many decimals tie: a reordered sum is no reason to choose."""

START, END = "<s>", "</s>"
TOKEN = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def text_choosers(captions: Iterable[str]) -> dict[str, Chooser]:
    """Return the baselines: fewer words, more words, and likelihood by a trigram model."""
    model = TrigramModel(captions)
    return {
        "shorter": lambda texts: [-len(text.split()) for text in texts],
        "longer": lambda texts: [len(text.split()) for text in texts],
        "likelihood": lambda texts: [model.log_likelihood(text) for text in texts],
        "likelihood_per_word": lambda texts: [model.log_likelihood(text, True) for text in texts],
    }


def blind_answers(subsets: Sequence[Benchmark], choosers: Mapping[str, Chooser]) -> pd.DataFrame:
    """Answer every benchmark of captions by every baseline.

    Returns:
        `chooser`; `family`, `subset`, `item` and `picture` as in `choice.answers`; and `share`, the
        expected accuracy.
    """
    subsets = scorable_benchmarks(subsets)
    items = [(subset.task, item) for subset in subsets for item in subset.items]
    is_text_choice = [_is_text_choice(subset) for subset in subsets for _ in subset.items]
    if not any(is_text_choice):
        return pd.DataFrame()
    # numbered over all subsets, so that an image has one number whichever benchmarks apply
    frame = item_frame(subsets)[is_text_choice]
    items = list(compress(items, is_text_choice))
    texts = list(dict.fromkeys(text for _, item in items for text in item.texts))
    tables = []
    for name, chooser in choosers.items():
        numbers = dict(zip(texts, map(float, chooser(texts)), strict=True))
        guesses = [n_guesses(item, task, numbers) for task, item in items]
        shares = [1 / n if n else 0.0 for n in guesses]
        tables.append(frame.assign(chooser=name, share=shares))
    columns = ["chooser", "family", "subset", "item", "picture", "share"]
    return pd.concat(tables, ignore_index=True)[columns]


def _is_text_choice(benchmark: Benchmark) -> bool:
    """Return whether an item is answered by comparing its texts, each by a number of its own."""
    if benchmark.task in ("image", "tot"):
        return False
    return all(len(item.texts) > 1 for item in benchmark.items)


def n_guesses(item: Item, task: str, numbers: Mapping[str, float]) -> int:
    """Count the best answers that a baseline guesses among; 0 if the right one is not one of them.

    A 2 x 2 item needs another caption for each of its images. A baseline takes the same one for
    both, so it is wrong unless the two tie.
    """
    values = [round(numbers[text], DECIMALS) for text in item.texts]
    best = max(values)
    if task in ORDERS:
        return int(all(values[closer] > values[other] for closer, other in ORDERS[task]))
    if task != "choice":
        return round(1 / CHANCE_OF_TASKS[task]) if min(values) == best else 0
    return values.count(best) if values[item.truth] == best else 0


class TrigramModel:
    """A trigram model of texts with Witten-Bell smoothing (1991), down to unknown words.

    Each order is mixed with the one below it, the last one with a uniform share for every known
    word and one for all unknown words together. So no text has probability zero, as it would in
    `nltk.lm`, which ends at the unigrams.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._counts: dict[tuple[str, ...], Counter[str]] = {}
        for text in texts:
            for context, word in _trigrams(text):
                for start in range(3):
                    self._counts.setdefault(context[start:], Counter())[word] += 1
        self._totals = {context: counts.total() for context, counts in self._counts.items()}
        self.vocabulary_size = len(self._counts.get((), ()))

    def probability(self, word: str, context: tuple[str, ...] = ()) -> float:
        """Return the probability of a word after a context of at most two words.

        Words are in lower case, and the context is in the order of the text.
        """
        shorter = self.probability(word, context[1:]) if context else 1 / (self.vocabulary_size + 1)
        followers = self._counts.get(context)
        if followers is None:
            return shorter
        kinds = len(followers)
        return (followers[word] + kinds * shorter) / (self._totals[context] + kinds)

    def log_likelihood(self, text: str, per_word: bool = False) -> float:
        """Return the log probability (nats) of a text.

        Args:
            text: The text.
            per_word: Return the mean over the words, punctuation marks and the end of the text
                instead of the sum.
        """
        logs = [math.log(self.probability(word, context)) for context, word in _trigrams(text)]
        return math.fsum(logs) / len(logs) if per_word else math.fsum(logs)


def _trigrams(text: str) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield each word or mark in lower case, and the end, with the two that precede it."""
    padded = [START, START, *TOKEN.findall(text.lower()), END]
    for first, second, word in zip(padded, padded[1:], padded[2:], strict=False):
        yield (first, second), word
