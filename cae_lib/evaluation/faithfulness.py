"""How faithful the word scores of every attribution method are to one model."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from cae_lib.attribution import METHODS
from cae_lib.attribution.faithfulness import (
    Curves,
    area,
    on_grid,
    paired_curves,
    random_ranks,
    ranks,
    removal_curves,
)
from cae_lib.attribution.randomisation import cascade
from cae_lib.attribution.ranking import rank_correlation
from cae_lib.data.captions import Pairs
from cae_lib.evaluation.attribution import ROLES
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.word_sample import WordSample, word_sample
from cae_lib.models.clip import load_clip
from cae_lib.words.alignment import Alignment

INTEGRATED = "integrated_gradients"
TOLERANCE = 0.01
"""Largest error of integrated gradients that is accepted, in units of the cosine."""

GRID = np.linspace(0, 1, 11)
RANDOM_ORDERS = 2
RANDOMISED_CAPTIONS = 50
LONGEST_EXAMPLE = 12
DIGITS = 6


def faithfulness(
    encoder: Encoder, pairs: Pairs, alignment: Alignment, limit: int = 120
) -> dict[str, Any]:
    """Curves, agreement and randomisation check of all methods on one model.

    Args:
        encoder: Holds the model and gives the picture features.
        pairs: Captions with their pictures.
        alignment: Tokens and roles of these captions.
        limit: Number of captions, taken evenly over the set.

    Returns:
        A record: areas under the curves and rank correlations by caption, mean curves, correlations
        with the scores of a randomised model by stage, and one caption with all its scores.
    """
    sample, model = word_sample(encoder, pairs, alignment, limit), encoder.clip.model
    was_training = model.training
    model.eval()
    scores = {method: sample.scores(model, method) for method in METHODS}
    scores[INTEGRATED], integrated = integrated_gradients(model, sample)
    result = {
        "n_captions": len(sample.tokens),
        "n_expected": sample.n_expected,
        "curves": curve_areas(model, sample, scores),
        "agreement": agreement(scores),
        "randomisation": randomisation(encoder, sample.first(RANDOMISED_CAPTIONS)),
        "example": example(encoder, sample, scores),
        "integrated": integrated,
    }
    model.train(was_training)
    return result


def integrated_gradients(
    model: nn.Module, sample: WordSample, points: int = 8, most_points: int = 256
) -> tuple[np.ndarray, dict[str, float | int]]:
    """Integrated gradients of the words, each caption with as many points as its sum needs.

    The scores of a caption add up to S(I, T) - S(I, T with every word masked). Captions that miss
    this by more than `TOLERANCE` are scored again with twice the points.

    Returns:
        Scores `(C, W)`, NaN after a caption's last word; what is left of the error, and points.
    """
    n_words, rows = sample.n_words, np.arange(len(sample.tokens))
    inside = np.arange(n_words.max()) < n_words[:, None]
    drop = sample.masked(model, rows, ~inside & inside) - sample.masked(model, rows, inside)
    scores = np.full(inside.shape, np.nan)
    error, used = np.full(len(rows), np.inf), np.zeros(len(rows), dtype=int)
    while len(rows) and points <= most_points:
        part = sample.rows(rows)
        found = part.scores(model, INTEGRATED, "sum", points=points)
        scores[rows, : found.shape[1]] = found
        error[rows], used[rows] = np.nansum(found, axis=1) - drop[rows], points
        rows, points = np.flatnonzero(np.abs(error) > TOLERANCE), 2 * points
    return scores, {
        "mean_delta": float(np.abs(error).mean()),
        "largest_delta": float(np.abs(error).max()),
        "most_steps": int(used.max()),
        "mean_steps": float(used.mean()),
    }


def curve_areas(
    model: nn.Module, sample: WordSample, scores: Mapping[str, np.ndarray], mask: str = "mean"
) -> dict[str, Any]:
    """Areas under the deletion and insertion curves of each method, and under random ones.

    Args:
        model: The model that is asked.
        sample: The captions.
        scores: Of the words `(C, W)`, by method.
        mask: What stands in for a masked token.
    """
    n_words = sample.n_words
    width = int(n_words.max())

    def similarity(captions: np.ndarray, masked: np.ndarray) -> np.ndarray:
        return sample.masked(model, captions, masked, mask)

    chance = np.stack([random_ranks(n_words, width, seed) for seed in range(RANDOM_ORDERS)])
    random = removal_curves(chance, n_words, similarity)
    places = np.stack([ranks(values) for values in scores.values()])
    found = dict(zip(scores, paired_curves(places, n_words, similarity), strict=True))
    ends = random[0][np.arange(len(n_words)), n_words]
    areas = np.mean([area(curve, n_words) for curve in random], axis=0)
    grid = np.mean([on_grid(curve, n_words, GRID) for curve in random], axis=0)
    return {
        "grid": _rounded(GRID),
        "whole": _rounded(random[0][:, 0]),
        "empty": _rounded(ends),
        "random": {"area": _rounded(areas), **_mean_curve(grid)},
        "methods": {name: _areas(curves, n_words) for name, curves in found.items()},
    }


def _areas(curves: Curves, n_words: np.ndarray) -> dict[str, Any]:
    both = {"deletion": curves.deletion, "insertion": curves.insertion}
    return {
        name: {"area": _rounded(area(part, n_words)), **_mean_curve(on_grid(part, n_words, GRID))}
        for name, part in both.items()
    }


def _mean_curve(values: np.ndarray) -> dict[str, Any]:
    """Mean over captions of curves `(C, G)`, with its standard error."""
    error = values.std(axis=0, ddof=min(1, len(values) - 1)) / np.sqrt(len(values))
    return {"mean": _rounded(values.mean(axis=0)), "error": _rounded(error)}


def agreement(scores: Mapping[str, np.ndarray]) -> dict[str, list[float | None]]:
    """Rank correlation of each caption's words between every two methods, by "first/second"."""
    return {
        f"{a}/{b}": _rounded(rank_correlation(scores[a], scores[b]))
        for a, b in itertools.combinations(scores, 2)
    }


def randomisation(encoder: Encoder, sample: WordSample) -> dict[str, Any]:
    """Rank correlation with the model's own scores while its text tower is randomised.

    The pictures' features stay those of the trained model. The random weights are those of a fresh
    model of the same architecture.
    """
    clip = encoder.clip
    own = {method: sample.scores(clip.model, method) for method in METHODS}
    fresh = load_clip(clip.name, None, clip.activation, sample.tokens.device, seed=1)
    stages: dict[str, dict[str, list[float | None]]] = {}
    for stage, mixed in cascade(clip.model, fresh.model):
        stages[stage] = {
            method: _rounded(rank_correlation(own[method], sample.scores(mixed, method)))
            for method in METHODS
        }
    names = list(stages)
    by_method = {m: {stage: stages[stage][m] for stage in names} for m in METHODS}
    return {"stages": names, "methods": by_method, "n_captions": len(sample.tokens)}


def example(
    encoder: Encoder, sample: WordSample, scores: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """The first caption of moderate length with a word of every role, scored by every method."""
    row = _example_row(sample)
    n = int(sample.n_words[row])
    return {
        "words": sample.word_texts(row, encoder.clip.tokenizer),
        "roles": sample.word_roles(row),
        "scores": {method: _rounded(values[row, :n]) for method, values in scores.items()},
    }


def _example_row(sample: WordSample) -> int:
    """The choice reads captions only, so it is the same for all models."""
    for row, n in enumerate(sample.n_words):
        if n <= LONGEST_EXAMPLE and set(ROLES.values()) <= set(sample.word_roles(row)):
            return row
    return int(np.argmax(sample.n_words))


def _rounded(values: np.ndarray) -> list[float | None]:
    return [round(float(v), DIGITS) if np.isfinite(v) else None for v in values]
