"""Choosers that never see the picture, on every benchmark that asks for one of several captions.

A blind chooser gives each caption a number of its own and takes the largest, whatever the picture.
Where several are largest it guesses among them, so an item counts with the share that guessing
gets: its expected accuracy. (A model with the picture is judged strictly, a tie is wrong.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from cae_lib.data.benchmarks.base import CHANCE_OF_PAIRS, Benchmark, Choice
from cae_lib.evaluation.bits import pack_bits, pack_numbers, unpack_bits
from cae_lib.evaluation.ngram import CaptionModel
from cae_lib.evaluation.results import group_order, item_key, picture_numbers

Chooser = Callable[[Sequence[str]], Sequence[float]]
"""Numbers of texts, the larger the better; the same text has the same number."""

DIGITS = 9
"""Numbers that agree to so many decimals tie: a reordered sum is no reason to choose."""


def length_choosers() -> dict[str, Chooser]:
    """The caption of fewer, or of more, words (divided by spaces)."""
    return {
        "shorter": lambda texts: [-len(text.split()) for text in texts],
        "longer": lambda texts: [len(text.split()) for text in texts],
    }


def likelihood_choosers(captions: Iterable[str]) -> dict[str, Chooser]:
    """The likelier caption by a trigram model of `captions`, in all and per word."""
    model = CaptionModel(captions)
    return {
        "likelihood": lambda texts: [model.log_likelihood(text) for text in texts],
        "likelihood_per_word": lambda texts: [model.log_likelihood(text, True) for text in texts],
    }


def average_picture(images: np.ndarray) -> np.ndarray:
    """The mean `(E,)` of unit vectors `(n, E)`, made a unit vector, float64."""
    mean = images.astype(np.float64).mean(axis=0)
    return mean / np.linalg.norm(mean)


def average_picture_chooser(texts: Callable[[Sequence[str]], np.ndarray],
                            picture: np.ndarray) -> Chooser:  # fmt: skip
    """The caption closest to one picture vector `(E,)` that stands in for every picture.

    Args:
        texts: Gives unit vectors `(n, E)` of texts.
        picture: See `average_picture`.
    """
    return lambda found: (texts(found) * picture).sum(axis=-1).tolist()


def applies_to(benchmark: Benchmark) -> bool:
    """Whether the items choose between texts; a choice between pictures cannot be made blindly."""
    if benchmark.task == "image" or not benchmark.items:
        return False
    return all(len(item.texts) > 1 for item in benchmark.items)


def guesses(item: Choice, task: str, numbers: Mapping[str, float]) -> int:
    """Among how many equal answers the chooser guesses; 0 if the right answer is not among them.

    A 2 x 2 item needs another caption for each of its pictures. A blind chooser takes the same
    one for both, so it is wrong unless the two tie.
    """
    values = [round(numbers[text], DIGITS) for text in item.texts]
    best = max(values)
    if task != "choice":
        return round(1 / CHANCE_OF_PAIRS[task]) if min(values) == best else 0
    return values.count(best) if values[item.truth] == best else 0


def measure_blind(
    benchmarks: Sequence[Benchmark], choosers: Mapping[str, Chooser]
) -> dict[str, dict[str, Any]]:
    """What every chooser gets on every benchmark, by `family/subset`.

    Returns:
        For each benchmark its facts, as `ChoiceResult` has them, and under `choosers` the items of
        each number of `guesses` but 0 as bits; `choosers` is empty where no texts are chosen.
    """
    applicable = [part for part in benchmarks if applies_to(part)]
    texts = list(dict.fromkeys(t for b in applicable for item in b.items for t in item.texts))
    numbers = {
        name: dict(zip(texts, map(float, chooser(texts)), strict=True))
        for name, chooser in choosers.items()
    }
    found, pictures = {}, {}
    for part in benchmarks:
        items = [part.items[row] for row in group_order(part.items)]
        marks = {
            name: _packed([guesses(item, part.task, by_text) for item in items])
            for name, by_text in numbers.items()
            if applies_to(part)
        }
        numbered = {"pictures": pack_numbers(picture_numbers(items, pictures))}
        found[part.key] = _facts(part, items) | numbered | {"choosers": marks}
    return found


def shares(marks: Mapping[str, str], n: int) -> np.ndarray:
    """Expected accuracy `(n,)` of each item from what `measure_blind` stores of a chooser."""
    values = np.zeros(n)
    for among, bits in marks.items():
        values += unpack_bits(bits, n) / int(among)
    return values


def _packed(among: Sequence[int]) -> dict[str, str]:
    found = np.asarray(among)
    return {str(number): pack_bits(found == number) for number in np.unique(found) if number}


def _facts(part: Benchmark, items: Sequence[Choice]) -> dict[str, Any]:
    return {
        "name": part.name,
        "subset": part.subset,
        "n_used": part.n_used,
        "n_expected": part.n_expected,
        "headline": part.headline,
        "rule": part.rule,
        "macro_groups": None if part.macro_groups is None else list(part.macro_groups),
        "chance": part.chance if part.items else None,
        "counts": dict(part.counts),
        "groups": [[name, n] for name, n in Counter(item.group for item in items).items()],
        "items": item_key(items),
    }
