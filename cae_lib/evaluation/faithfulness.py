"""How faithful the word scores of every attribution method are to one model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from cae_lib.attribution import METHODS
from cae_lib.attribution.faithfulness import (
    Curves,
    area,
    cascade,
    on_grid,
    paired_curves,
    random_ranks,
    rank_correlation,
    ranks,
    removal_curves,
    turned,
)
from cae_lib.data.captions import Pairs
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.word_sample import WordSample, evaluating, even_rows, word_sample
from cae_lib.models.clip import load_clip
from cae_lib.words.alignment import Alignment

CAPTIONS = 120
INTEGRATED = "integrated_gradients"
RANDOM = "random"
"""Stands among the methods for words in random order."""

TOLERANCE = 0.01
"""Largest error of integrated gradients that is accepted, in units of the cosine."""

GRID = np.linspace(0, 1, 11)
RANDOM_ORDERS = 2
RANDOMISED_CAPTIONS = 50
LONGEST_EXAMPLE = 12

ROW: Mapping[str, Any] = {
    "measure": "",
    "method": "",
    "against": "",
    "caption": np.int32(-1),
    "place": np.float32("nan"),
    "word": "",
    "role": "",
    "value": np.float32("nan"),
}
"""What a row of `faithfulness_table` holds in columns that its measure does not use."""


def faithfulness_table(
    encoder: Encoder, pairs: Pairs, alignment: Alignment, limit: int = CAPTIONS
) -> pd.DataFrame:
    """Curves, agreement and randomisation check of all methods on one model.

    Args:
        encoder: Holds the model and gives the picture features.
        pairs: Captions with their pictures.
        alignment: Tokens and roles of these captions.
        limit: Number of captions, taken evenly over the set.

    Returns:
        A row a value, with the columns of `ROW`; caption is the number in `pairs`. By measure:

        - "area" under the deletion or insertion curve (against) of a method, "random" included;
        - "whole", "empty": similarity of the caption as it is, and with every word masked;
        - "curve", "curve error": mean over captions, and its standard error, at a fraction of the
          words (place);
        - "agreement": rank correlation of the words with another method (against), NaN where it is
          not defined;
        - "randomisation": rank correlation with a model randomised down to a stage (against; place
          is the stage's number);
        - "example": scores of one caption's words (place is the word's number);
        - "integration error", "integration points": of integrated gradients.
    """
    sample, model = word_sample(encoder, pairs, alignment, limit), encoder.clip.model
    with evaluating(model):
        scores = {method: sample.scores(model, method) for method in METHODS}
        scores[INTEGRATED], error, points = integrated_gradients(model, sample)
        curves = score_curves(model, sample, scores)
        parts = [
            *area_rows(curves, sample),
            *_mean_curves(curves, sample),
            *_agreement(scores, sample),
            *_randomisation(encoder, sample.rows(even_rows(len(error), RANDOMISED_CAPTIONS))),
            *_example(encoder, sample, scores),
        ]
    for name, value in (("error", error), ("points", points)):
        where = dict(method=INTEGRATED, caption=sample.captions)
        parts.append(dict(measure=f"integration {name}", value=value, **where))
    return long_table(ROW, parts)


def long_table(row: Mapping[str, Any], parts: list[dict[str, Any]]) -> pd.DataFrame:
    """Put parts together, each with some columns of `row`, arrays or single values."""
    table = pd.concat([pd.DataFrame({**row, **part}) for part in parts], ignore_index=True)
    return table.astype(pd.DataFrame(row, index=[0]).dtypes)


def integrated_gradients(
    model: nn.Module, sample: WordSample, points: int = 8, most_points: int = 256
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Integrated gradients of the words, each caption with as many points as its sum needs.

    The scores of a caption add up to S(I, T) - S(I, T with every word masked). Captions that miss
    this by more than `TOLERANCE` are scored again with twice the points.

    Returns:
        Scores `(C, W)`, NaN after a caption's last word; size of the error that is left `(C,)`;
        and points `(C,)`.
    """
    n_words, rows = sample.n_words, np.arange(len(sample.tokens))
    inside = np.arange(n_words.max()) < n_words[:, None]
    drop = sample.masked(model, rows, ~inside & inside) - sample.masked(model, rows, inside)
    scores = np.full(inside.shape, np.nan)
    error, used = np.full(len(rows), np.inf), np.zeros(len(rows), dtype=int)
    while len(rows) and points <= most_points:
        found = sample.rows(rows).scores(model, INTEGRATED, "sum", points=points)
        scores[rows, : found.shape[1]] = found
        error[rows], used[rows] = np.abs(np.nansum(found, axis=1) - drop[rows]), points
        rows, points = np.flatnonzero(error > TOLERANCE), 2 * points
    return scores, error, used


def score_curves(
    model: nn.Module, sample: WordSample, scores: Mapping[str, np.ndarray], mask: str = "mean"
) -> dict[str, Curves]:
    """Deletion and insertion curves of each method, and the mean of those in `RANDOM` order.

    Args:
        model: The model that is asked.
        sample: The captions.
        scores: Of the words `(C, W)`, by method.
        mask: What stands in for a masked token.
    """
    n_words = sample.n_words

    def similarity(captions: np.ndarray, masked: np.ndarray) -> np.ndarray:
        return sample.masked(model, captions, masked, mask)

    orders = [random_ranks(n_words, int(n_words.max()), seed) for seed in range(RANDOM_ORDERS)]
    random = removal_curves(np.stack(orders), n_words, similarity).mean(axis=0)
    places = np.stack([ranks(values) for values in scores.values()])
    found = dict(zip(scores, paired_curves(places, n_words, similarity), strict=True))
    return found | {RANDOM: Curves(random, turned(random, n_words))}


def area_rows(curves: Mapping[str, Curves], sample: WordSample) -> Iterator[dict[str, Any]]:
    """Areas under curves, and where they begin and end, as parts of a table."""
    random = curves[RANDOM]
    for measure, values in (("whole", random.deletion), ("empty", random.insertion)):
        yield dict(measure=measure, caption=sample.captions, value=values[:, 0])
    for method, both in curves.items():
        for against, curve in vars(both).items():
            where = dict(method=method, against=against, caption=sample.captions)
            yield dict(measure="area", value=area(curve, sample.n_words), **where)


def _mean_curves(curves: Mapping[str, Curves], sample: WordSample) -> Iterator[dict[str, Any]]:
    for method, both in curves.items():
        for against, curve in vars(both).items():
            values = on_grid(curve, sample.n_words, GRID)
            n = len(values)
            error = values.std(axis=0, ddof=min(1, n - 1)) / np.sqrt(n)
            where = dict(method=method, against=against, place=GRID)
            yield dict(measure="curve", value=values.mean(axis=0), **where)
            yield dict(measure="curve error", value=error, **where)


def _agreement(scores: Mapping[str, np.ndarray], sample: WordSample) -> Iterator[dict[str, Any]]:
    for first, second in itertools.combinations(scores, 2):
        where = dict(method=first, against=second, caption=sample.captions)
        value = rank_correlation(scores[first], scores[second])
        yield dict(measure="agreement", value=value, **where)


def _randomisation(encoder: Encoder, sample: WordSample) -> Iterator[dict[str, Any]]:
    """Rank correlation with the model's own scores while its text tower is randomised.

    The pictures' features stay those of the trained model. The random weights are those of a fresh
    model of the same architecture.
    """
    clip = encoder.clip
    own = {method: sample.scores(clip.model, method) for method in METHODS}
    fresh = load_clip(clip.name, None, clip.activation, sample.tokens.device, seed=1)
    for number, (stage, mixed) in enumerate(cascade(clip.model, fresh.model)):
        for method in METHODS:
            where = dict(method=method, against=stage, place=number, caption=sample.captions)
            value = rank_correlation(own[method], sample.scores(mixed, method))
            yield dict(measure="randomisation", value=value, **where)


def _example(
    encoder: Encoder, sample: WordSample, scores: Mapping[str, np.ndarray]
) -> Iterator[dict[str, Any]]:
    """The first caption of moderate length with a word of every role, scored by every method.

    The choice reads captions only, so it is the same for all models.
    """
    every, short = {"object", "attribute", "relation"}, sample.n_words <= LONGEST_EXAMPLE
    fitting = (row for row in np.flatnonzero(short) if every <= set(sample.word_roles(row)))
    row = next(fitting, int(np.argmax(sample.n_words)))
    words, roles = sample.word_texts(row, encoder.clip.tokenizer), sample.word_roles(row)
    place, caption = np.arange(len(words)), sample.captions[row]
    for method, values in scores.items():
        where = dict(method=method, caption=caption, place=place, word=words, role=roles)
        yield dict(measure="example", value=values[row, : len(words)], **where)
