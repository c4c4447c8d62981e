"""Choosers that never see the picture, on every benchmark that asks for one of several captions.

A blind chooser gives each caption a number of its own and takes the largest, whatever the picture.
Where several are largest it guesses among them, so an item counts with the share that guessing
gets: its expected accuracy. (A model with the picture is judged strictly, a tie is wrong.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from cae_lib.data.benchmarks.base import CHANCE_OF_PAIRS, Benchmark, Choice
from cae_lib.data.captions import Pairs
from cae_lib.evaluation.choice import keys, scored
from cae_lib.evaluation.embed import Encoder, ImageRef
from cae_lib.evaluation.ngram import CaptionModel

Chooser = Callable[[Sequence[str]], Sequence[float]]
"""Numbers of texts, the larger the better; the same text has the same number."""

DIGITS = 9
"""Numbers that agree to so many decimals tie: a reordered sum is no reason to choose."""

PICTURES = 500
"""Training pictures whose mean stands in for every picture, spread evenly over the set."""


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


def average_picture_chooser(
    texts: Callable[[Sequence[str]], np.ndarray], picture: np.ndarray
) -> Chooser:
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


def blind_answers(benchmarks: Sequence[Benchmark], choosers: Mapping[str, Chooser]) -> pd.DataFrame:
    """What every chooser gets on every benchmark of captions.

    Args:
        benchmarks: As for `choice.answers`, whose numbers of items and pictures are used.
        choosers: By name.

    Returns:
        `chooser`, `family`, `subset`, `item`, `picture`, and `share`, the expected accuracy.
    """
    parts = scored(benchmarks)
    applicable = [part for part in parts if applies_to(part)]
    chosen = [applies_to(part) for part in parts for _ in part.items]
    frame = keys(parts)[chosen].drop(columns="group")
    texts = list(dict.fromkeys(t for b in applicable for item in b.items for t in item.texts))
    found = []
    for name, chooser in choosers.items():
        numbers = dict(zip(texts, map(float, chooser(texts)), strict=True))
        among = np.array(
            [guesses(i, part.task, numbers) for part in applicable for i in part.items]
        )
        share = np.divide(1, among, out=np.zeros(len(among)), where=among > 0)
        found.append(frame.assign(chooser=name, share=share))
    columns = ["chooser", "family", "subset", "item", "picture", "share"]
    return pd.concat(found, ignore_index=True)[columns]


def average_picture_answers(
    encoder: Encoder, pairs: Pairs, benchmarks: Sequence[Benchmark]
) -> pd.DataFrame:
    """What a model gets if the mean of `PICTURES` training pictures stands in for every picture."""
    paths = pairs.image_paths
    rows = np.unique(np.linspace(0, len(paths) - 1, min(PICTURES, len(paths))).astype(int))
    picture = average_picture(encoder.images([ImageRef(paths[row]) for row in rows]))
    chooser = average_picture_chooser(encoder.texts, picture)
    return blind_answers(benchmarks, {"average picture": chooser})
