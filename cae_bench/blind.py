"""Text-only baselines: answer benchmarks of captions without the image.

A baseline gives a number to each caption and answers with the caption of the largest number. If
several captions tie, it guesses among them, so an item counts with its expected accuracy. For items
with two images and for comparisons of three captions, see `expected_accuracy`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import compress

import pandas as pd

from cae_bench.benchmarks.base import CHANCE_ACCURACY_OF_TASK, CLOSER_TEXT_PAIRS, Benchmark, Item
from cae_bench.choice import item_frame, scorable_benchmarks

TextBaseline = Callable[[Sequence[str]], Sequence[float]]
"""A text-only baseline: a function that gives each text a number and prefers larger ones. Equal
texts get equal numbers."""

TIE_DECIMALS = 9
"""Numbers tie if they are equal when rounded to this many decimals, because a sum in another order
may differ by rounding errors."""

START, END = "<s>", "</s>"
"""Symbols of the trigram model before and after a text."""

TOKEN_PATTERN = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
"""Pattern of a token of the trigram model: a word such as "isn't", or one punctuation mark."""


def text_only_baselines(captions: Iterable[str]) -> dict[str, TextBaseline]:
    """Return the text-only baselines by name.

    "shorter" and "longer" prefer the caption with fewer or more words, split at white space.
    "likelihood" and "likelihood_per_word" prefer the larger log probability under a trigram model,
    in total or per word (see `TrigramModel.log_likelihood`).

    Args:
        captions: The captions that the trigram model is fitted on.
    """
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

    Benchmarks that have an item with a single caption are left out, and so are those of the tasks
    "image" and "tot".

    Args:
        benchmarks: The benchmarks.
        baselines: The baselines by name, at least one.

    Returns:
        A row for each baseline and item: `chooser`, the name of the baseline; `family`, `subset`,
        `item` and `picture` as in `choice.item_frame`; and `share`, the expected accuracy. If all
        benchmarks are left out, the table is empty and has no columns.

    Raises:
        DataError: If two benchmarks have the same name and subset.
    """
    benchmarks = scorable_benchmarks(benchmarks)
    items = [(subset.task, item) for subset in benchmarks for item in subset.items]
    is_text_choice = [_is_text_choice(subset) for subset in benchmarks for _ in subset.items]
    if not any(is_text_choice):
        return pd.DataFrame()
    # numbered over all subsets, so that an image has one number whichever benchmarks apply
    frame = item_frame(benchmarks)[is_text_choice]
    items = list(compress(items, is_text_choice))
    texts = list(dict.fromkeys(text for _, item in items for text in item.texts))
    tables = []
    for name, chooser in baselines.items():
        numbers = dict(zip(texts, map(float, chooser(texts)), strict=True))
        shares = [expected_accuracy(item, task, numbers) for task, item in items]
        tables.append(frame.assign(chooser=name, share=shares))
    columns = ["chooser", "family", "subset", "item", "picture", "share"]
    return pd.concat(tables, ignore_index=True)[columns]


def _is_text_choice(benchmark: Benchmark) -> bool:
    """Return whether a benchmark's items can be answered by comparing a number of each text."""
    if benchmark.task in ("image", "tot"):
        return False
    return all(len(item.texts) > 1 for item in benchmark.items)


def expected_accuracy(item: Item, task: str, text_scores: Mapping[str, float]) -> float:
    """Return the probability that a baseline answers an item correctly.

    For the task "choice", the baseline takes the text with the highest score, and guesses among
    texts that tie (see `TIE_DECIMALS`). For the tasks in `CLOSER_TEXT_PAIRS` there is no guess: the
    result is 1 or 0, and a tie is wrong. An item with two images needs a different caption for each
    image, but a baseline prefers the same caption for both. If the two captions do not tie, the
    result is therefore 0. If they tie, it is that of random scores, `CHANCE_ACCURACY_OF_TASK`.

    Args:
        item: The item, with more than one text.
        task: How the item is scored, see `Benchmark.task`; neither "image" nor "tot".
        text_scores: The baseline's number of each text of the item.
    """
    values = [round(text_scores[text], TIE_DECIMALS) for text in item.texts]
    best = max(values)
    if task in CLOSER_TEXT_PAIRS:
        pairs = CLOSER_TEXT_PAIRS[task]
        return float(all(values[closer] > values[other] for closer, other in pairs))
    if task != "choice":
        return CHANCE_ACCURACY_OF_TASK[task] if min(values) == best else 0.0
    return 1 / values.count(best) if values[item.truth] == best else 0.0


class TrigramModel:
    """A trigram language model with Witten-Bell smoothing (1991).

    The trigram model is interpolated with the bigram model, which is interpolated with the unigram
    model. The unigram model is interpolated with a uniform distribution over the vocabulary and one
    symbol for all unknown words. Therefore no text has probability zero.

    Args:
        texts: The texts that the model is fitted on.

    Attributes:
        vocabulary_size: Number of distinct words and punctuation marks, plus 1 for the end of a
            text; 0 if there are no texts.
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
        """Return the probability of a word after a context.

        Args:
            word: The word or punctuation mark, in lower case, or `END`.
            context: At most two preceding words or punctuation marks, in lower case and in the
                order of the text; `START` stands before the beginning of a text.
        """
        shorter = self.probability(word, context[1:]) if context else 1 / (self.vocabulary_size + 1)
        followers = self._counts.get(context)
        if followers is None:
            return shorter
        kinds = len(followers)
        return (followers[word] + kinds * shorter) / (self._totals[context] + kinds)

    def log_likelihood(self, text: str, per_word: bool = False) -> float:
        """Return the log probability of a text, in nats.

        Args:
            text: The text.
            per_word: Whether to divide the log probability by the number of words and punctuation
                marks plus 1, for the end of the text.
        """
        logs = [math.log(self.probability(word, context)) for context, word in _trigrams(text)]
        return math.fsum(logs) / len(logs) if per_word else math.fsum(logs)


def _trigrams(text: str) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield a pair for each word or mark of a text, and one for its end.

    The pair has the two preceding symbols and the word (in lower case), mark or `END`.
    """
    padded = [START, START, *TOKEN_PATTERN.findall(text.lower()), END]
    for first, second, word in zip(padded, padded[1:], padded[2:], strict=False):
        yield (first, second), word
