"""A trigram model of captions, smoothed as Witten and Bell do (1991), down to unknown words.

Each order is mixed with the one below it, the last one with a uniform share for every known word
and one for all unknown words together. So no text has probability zero, however strange it is:
`nltk.lm`, which has the same smoothing, ends at the unigrams and gives unknown words zero.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable

START, END = "<s>", "</s>"
TOKEN = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def words_of(text: str) -> list[str]:
    """Words and punctuation marks in lower case."""
    return TOKEN.findall(text.lower())


class CaptionModel:
    """Counts of word sequences in texts, and the probability of a text by them.

    Args:
        texts: Training texts.
        order: Words in the longest sequence that is counted.
    """

    def __init__(self, texts: Iterable[str], order: int = 3) -> None:
        self.order = order
        self._counts: dict[tuple[str, ...], Counter[str]] = {}
        for text in texts:
            for context, word in self._events(text):
                for start in range(order):
                    self._counts.setdefault(context[start:], Counter())[word] += 1
        self._totals = {context: sum(found.values()) for context, found in self._counts.items()}
        self.vocabulary = len(self._counts.get((), ()))
        self._known: dict[tuple[tuple[str, ...], str], float] = {}

    def probability(self, word: str, context: tuple[str, ...] = ()) -> float:
        """Probability of a word after a context of at most `order` - 1 words."""
        key = (context, word)
        if key not in self._known:
            self._known[key] = self._probability(word, context)
        return self._known[key]

    def _probability(self, word: str, context: tuple[str, ...]) -> float:
        shorter = self.probability(word, context[1:]) if context else 1 / (self.vocabulary + 1)
        followers = self._counts.get(context)
        if followers is None:
            return shorter
        kinds = len(followers)
        return (followers[word] + kinds * shorter) / (self._totals[context] + kinds)

    def log_likelihood(self, text: str, per_word: bool = False) -> float:
        """Log probability (nats) of a text with its end, in all or on average over its words."""
        logs = [math.log(self.probability(word, context)) for context, word in self._events(text)]
        total = math.fsum(logs)
        return total / len(logs) if per_word else total

    def _events(self, text: str) -> Iterable[tuple[tuple[str, ...], str]]:
        """Each word, and the end, with the words before it."""
        padded = [START] * (self.order - 1) + words_of(text) + [END]
        for place in range(self.order - 1, len(padded)):
            yield tuple(padded[place - self.order + 1 : place]), padded[place]
