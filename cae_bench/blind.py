"""Text-only baselines: answer benchmarks of captions without the image.

A baseline scores each caption and answers with the highest one. If several tie, it guesses among
them, so an item counts with its expected accuracy.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import compress

import pandas as pd

from cae_bench.answers import item_frame, scorable_benchmarks
from cae_bench.benchmarks.base import CHANCE_ACCURACY_OF_TASK, CLOSER_TEXT_PAIRS, Benchmark, Item

TextBaseline = Callable[[Sequence[str]], Sequence[float]]
"""Scores texts and prefers larger scores; equal texts get equal scores."""

# Sums in another order differ by rounding errors: these are no preference.
TIE_DECIMALS = 9
"""Scores tie if they are equal when rounded to this many decimals."""

START, END = "<s>", "</s>"
"""Symbols of the trigram model before and after a text."""

TOKEN_PATTERN = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
"""A token of the trigram model: a word such as "isn't", or one punctuation mark."""


def text_only_baselines(captions: Iterable[str]) -> dict[str, TextBaseline]:
    """Return the baselines by name; the trigram model of two of them is fitted on `captions`."""
    model = TrigramModel(captions)
    return {
        "shorter": lambda texts: [-len(text.split()) for text in texts],
        "longer": lambda texts: [len(text.split()) for text in texts],
        "likelihood": lambda texts: [model.log_likelihood(text) for text in texts],
        "likelihood_per_word": lambda texts: [model.log_likelihood(text, True) for text in texts],
    }


def blind_answers(
    benchmarks: Sequence[Benchmark], baselines: Mapping[str, TextBaseline]
) -> pd.DataFrame:
    """Answer the benchmarks that compare captions, by each text-only baseline.

    Returns:
        A row for each baseline and item: `chooser`, the baseline; `family`, `subset`, `item` and
        `picture` as in `choice.item_frame`; and `share`, the expected accuracy. Without a benchmark
        that compares captions, the table has neither rows nor columns.
    """
    benchmarks = scorable_benchmarks(benchmarks)
    items = [(subset.task, item) for subset in benchmarks for item in subset.items]
    counts = [(_is_text_choice(subset), len(subset.items)) for subset in benchmarks]
    is_text_choice = [is_choice for is_choice, count in counts for _ in range(count)]
    if not any(is_text_choice):
        return pd.DataFrame()
    # Numbered over all subsets, so that an image has one number whichever benchmarks apply.
    frame = item_frame(benchmarks)[is_text_choice]
    items = list(compress(items, is_text_choice))
    # Several subsets may have the same texts, as Winoground's three scores do: score each once.
    texts = list(dict.fromkeys(text for _, item in items for text in item.texts))
    tables = []
    for name, chooser in baselines.items():
        numbers = dict(zip(texts, map(float, chooser(texts)), strict=True))
        shares = [expected_accuracy(item, task, numbers) for task, item in items]
        tables.append(frame.assign(chooser=name, share=shares))
    columns = ["chooser", "family", "subset", "item", "picture", "share"]
    return pd.concat(tables, ignore_index=True)[columns]


def _is_text_choice(benchmark: Benchmark) -> bool:
    """Return whether a benchmark's items can be answered by a score of each text."""
    # "image" chooses among images, "tot" compares pairs of texts: neither is a choice of one text.
    if benchmark.task in ("image", "tot"):
        return False
    return all(len(item.texts) > 1 for item in benchmark.items)


def expected_accuracy(item: Item, task: str, text_scores: Mapping[str, float]) -> float:
    """Return the probability that a baseline answers an item of several texts correctly.

    The task is neither "image" nor "tot"; `text_scores` has the score of each text.
    """
    values = [round(text_scores[text], TIE_DECIMALS) for text in item.texts]
    best = max(values)
    if task in CLOSER_TEXT_PAIRS:
        pairs = CLOSER_TEXT_PAIRS[task]
        # Strict and without a guess, as for a model: a tie is wrong.
        return float(all(values[closer] > values[other] for closer, other in pairs))
    if task != "choice":
        # The two images need different captions, but a baseline prefers the same one for both. Only
        # if the captions tie can a guess be right.
        return CHANCE_ACCURACY_OF_TASK[task] if min(values) == best else 0.0
    return 1 / values.count(best) if values[item.truth] == best else 0.0


class TrigramModel:
    """A trigram language model with Witten-Bell smoothing (1991).

    Trigrams are interpolated with bigrams, these with unigrams, and these with a uniform
    distribution over `vocabulary_size` + 1 symbols: the distinct words, marks and `END`, and one
    for all unknown words.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._counts: dict[tuple[str, ...], Counter[str]] = {}
        for text in texts:
            for context, word in _trigrams(text):
                # Counted after two preceding symbols, after one and after none.
                for start in range(3):
                    self._counts.setdefault(context[start:], Counter())[word] += 1
        self._totals = {context: counts.total() for context, counts in self._counts.items()}
        self.vocabulary_size = len(self._counts.get((), ()))

    def probability(self, word: str, context: tuple[str, ...] = ()) -> float:
        """Return the probability of a word, mark (both in lower case) or `END` after a context.

        The context has at most two preceding symbols, in the order of the text.
        """
        # One more than `vocabulary_size`, for all unknown words: no text has probability zero.
        shorter = self.probability(word, context[1:]) if context else 1 / (self.vocabulary_size + 1)
        followers = self._counts.get(context)
        if followers is None:
            return shorter
        # Witten-Bell: a context that met many kinds of words is likely to meet new ones.
        kinds = len(followers)
        return (followers[word] + kinds * shorter) / (self._totals[context] + kinds)

    def log_likelihood(self, text: str, per_word: bool = False) -> float:
        """Return the log probability of a text in nats; `per_word` divides by its words plus 1."""
        logs = [math.log(self.probability(word, context)) for context, word in _trigrams(text)]
        return math.fsum(logs) / len(logs) if per_word else math.fsum(logs)


def _trigrams(text: str) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield the two symbols before it and the symbol itself, of each word, mark and the end."""
    padded = [START, START, *TOKEN_PATTERN.findall(text.lower()), END]
    for first, second, word in zip(padded, padded[1:], padded[2:], strict=False):
        yield (first, second), word
