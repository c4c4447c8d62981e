"""Faithfulness of word scores to a model, and their sensitivity to choices left open."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from book.studies import measures
from book.studies.measures import MaskedSimilarity, masked_similarity, rank_correlation
from book.studies.tables import NOTHING, long_table
from cae_bench.benchmarks.base import ImageRef
from cae_bench.datasets import retrieval_pairs
from cae_bench.encoder import Encoder, eval_mode
from cae_lab.attribution import CaptionSample, coco_pairs_and_alignment, sample_captions
from cae_lab.runs import Profile
from cae_lab.samples import SAMPLE_SIZES, evenly_spaced_indices
from cae_lib.attribution.base import ReplacementKind
from cae_lib.attribution.word_scores import merge_token_scores
from cae_lib.methods import PAPER_METHODS
from cae_lib.models.clip import load_clip
from cae_lib.models.text_tower import text_tower
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION

INTEGRATED = "integrated_gradients"
INTEGRATION_TOLERANCE = 0.01
"""Largest error of integrated gradients that is accepted, in units of the cosine."""

RANDOM = "random"
"""Stands among the methods for words in random order."""

CURVE_GRID = np.linspace(0, 1, 11)
RANDOMISED_CAPTIONS = 50
LONGEST_EXAMPLE = 12
REPLACEMENTS: tuple[ReplacementKind, ...] = ("zero", "token")
OTHER_ACTIVATION = {
    "gelu": ("quickgelu", "QuickGELU in place of GELU"),
    "quickgelu": ("gelu", "GELU in place of QuickGELU"),
}
"""For each activation the other one, and the label of that choice."""

ROLE_GROUPS = {"object": (OBJECT,), "composition": (ATTRIBUTE, RELATION)}
FAITHFULNESS_ROW: Mapping[str, Any] = {
    "measure": "",
    "method": "",
    "against": "",
    "caption": np.int32(-1),
    "place": NOTHING,
    "word": "",
    "role": "",
    "value": NOTHING,
}
"""The columns of `faithfulness_table` with their defaults: a value a row.

`against` is the other method, the curve, or the stage of randomisation; `caption` the number in the
set; `place` the share of masked words, the number of the stage, or that of the word.
"""

SENSITIVITY_ROW: Mapping[str, Any] = {
    "measure": "",
    "method": "",
    "choice": "",
    "against": "",
    "caption": np.int32(-1),
    "value": NOTHING,
}
"""The columns of `sensitivity_table` with their defaults: a value a row."""

Rows = Iterator[dict[str, Any]]
Curves = Mapping[tuple[str, str], np.ndarray]
"""Curves `(C, W + 1)` by method and "deletion" or "insertion"."""


def faithfulness_table(
    encoder: Encoder, profile: Profile, limit: int = SAMPLE_SIZES["faithfulness"]
) -> pd.DataFrame:
    """Measure curves, agreement and randomisation check of all methods on COCO's test captions."""
    sample, model = coco_word_sample(encoder, profile, limit), encoder.clip.model
    with eval_mode(model):
        scores = {method: sample.word_scores(model, method) for method in PAPER_METHODS}
        scores[INTEGRATED], error, points = integrated_gradients(model, sample)
        curves = score_curves(sample.n_words, similarity_of(model, sample), scores)
        parts = [*_areas(curves, sample), *_mean_curves(curves, sample)]
        for first, second in itertools.combinations(scores, 2):
            # (captions,), NaN where the rank correlation is not defined
            agreement = rank_correlation(scores[first], scores[second])
            parts.append(
                {
                    "measure": "agreement",
                    "method": first,
                    "against": second,
                    "caption": sample.caption_index,
                    "value": agreement,
                }
            )
        # Fewer captions, as every stage of the randomisation scores them again by all methods.
        some = sample.take(evenly_spaced_indices(len(error), RANDOMISED_CAPTIONS))
        parts += [*_randomisation(encoder, some), *_example(encoder, sample, scores)]
        for measure, value in (("integration error", error), ("integration points", points)):
            columns = {"method": INTEGRATED, "caption": sample.caption_index, "value": value}
            parts.append({"measure": measure, **columns})
        return long_table(FAITHFULNESS_ROW, parts)


def coco_word_sample(encoder: Encoder, profile: Profile, limit: int) -> CaptionSample:
    """Take `limit` of COCO's test captions evenly over the set, less those without a word."""
    return sample_captions(encoder, *coco_pairs_and_alignment(encoder, profile), limit)


def similarity_of(
    model: nn.Module, sample: CaptionSample, replacement: ReplacementKind = "mean"
) -> MaskedSimilarity:
    """Return the function that gives S of a sample's captions with some words masked."""
    return partial(
        masked_similarity,
        model,
        sample.tokens,
        sample.image_features,
        sample.words,
        replacement=replacement,
    )


def integrated_gradients(
    model: nn.Module, sample: CaptionSample, points: int = 8, max_points: int = 256
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score words by integrated gradients, with as many points as each caption needs.

    Returns scores `(C, W)`, and the error and number of points of each caption `(C,)`.
    """
    rows, similarity = np.arange(len(sample.tokens)), similarity_of(model, sample)
    is_word = np.arange(sample.n_words.max()) < sample.n_words[:, None]
    # Exact scores of a caption add up to S(I, T) - S(I, T with every word masked).
    drop = similarity(rows, np.zeros_like(is_word)) - similarity(rows, is_word)
    scores = np.full(is_word.shape, np.nan)
    error, used_points = np.full(len(rows), np.inf), np.zeros(len(rows), dtype=int)
    while len(rows) and points <= max_points:
        # summed over the tokens of a word, since the scores are shares of a whole
        some = sample.take(rows).word_scores(model, INTEGRATED, "sum", points=points)
        scores[rows, : some.shape[1]] = some
        error[rows], used_points[rows] = np.abs(np.nansum(some, axis=1) - drop[rows]), points
        # Captions that still miss the sum are scored again with twice the points.
        rows, points = np.flatnonzero(error > INTEGRATION_TOLERANCE), 2 * points
    return scores, error, used_points


def score_curves(
    n_words: np.ndarray, similarity: MaskedSimilarity, scores: Mapping[str, np.ndarray]
) -> Curves:
    """Return deletion and insertion curves by word scores `(C, W)`, and of `RANDOM` orders."""
    # The mean of two orders, as the curve of one order is noisy.
    orders = [measures.random_ranks(n_words, int(n_words.max()), seed) for seed in (0, 1)]
    random = measures.removal_curves(np.stack(orders), n_words, similarity).mean(axis=0)
    # (methods, C, W), in one call, since methods share masked captions that are then encoded once
    ranks = np.stack([measures.ranks(values) for values in scores.values()])
    pairs = measures.paired_curves(ranks, n_words, similarity)
    # Reversed, a random order is a random order: insertion needs no encoding of its own.
    pairs.append(measures.Curves(random, measures.reverse_curves(random, n_words)))
    return {
        (method, against): curve
        for method, both in zip((*scores, RANDOM), pairs, strict=True)
        for against, curve in vars(both).items()
    }


def _areas(curves: Curves, sample: CaptionSample) -> Rows:
    """Yield the areas under curves, and S of whole captions and of captions without words."""
    caption = sample.caption_index
    # The curves of all methods begin alike, so those of random orders stand for them.
    for measure, against in (("whole", "deletion"), ("empty", "insertion")):
        yield {"measure": measure, "caption": caption, "value": curves[RANDOM, against][:, 0]}
    for (method, against), curve in curves.items():
        area = measures.area(curve, sample.n_words)
        columns = {"method": method, "against": against, "caption": caption, "value": area}
        yield {"measure": "area", **columns}


def _mean_curves(curves: Curves, sample: CaptionSample) -> Rows:
    """Yield the mean over captions of each curve, and its standard error."""
    for (method, against), curve in curves.items():
        values = measures.on_grid(curve, sample.n_words, CURVE_GRID)
        n = len(values)
        # With a single caption the error is 0, not NaN.
        error = values.std(axis=0, ddof=min(1, n - 1)) / np.sqrt(n)
        columns = {"method": method, "against": against, "place": CURVE_GRID}
        yield {"measure": "curve", "value": values.mean(axis=0), **columns}
        yield {"measure": "curve error", "value": error, **columns}


def _randomisation(encoder: Encoder, sample: CaptionSample) -> Rows:
    """Yield rank correlations with the model's scores while its text tower alone is randomised."""
    clip = encoder.clip
    scores = {method: sample.word_scores(clip.model, method) for method in PAPER_METHODS}
    # The sample keeps its image features, so the image tower stays as it was trained.
    fresh = load_clip(clip.name, None, clip.activation, sample.tokens.device, seed=1)
    for number, (stage, mixed) in enumerate(measures.randomize_cascade(clip.model, fresh.model)):
        for method in PAPER_METHODS:
            yield {
                "measure": "randomisation",
                "method": method,
                "against": stage,
                "place": number,
                "caption": sample.caption_index,
                "value": rank_correlation(scores[method], sample.word_scores(mixed, method)),
            }


def _example(encoder: Encoder, sample: CaptionSample, scores: Mapping[str, np.ndarray]) -> Rows:
    """Yield scores of the first short caption with a word of every role."""
    # Words and roles alone choose it, so that all models show the same caption.
    every_role = {"object", "attribute", "relation"}
    short = np.flatnonzero(sample.n_words <= LONGEST_EXAMPLE)
    fitting = (row for row in short if every_role <= set(sample.word_roles(row)))
    row = next(fitting, int(np.argmax(sample.n_words)))
    words = sample.word_texts(row, encoder.clip.tokenizer)
    for method, values in scores.items():
        yield {
            "measure": "example",
            "method": method,
            "caption": sample.caption_index[row],
            "place": np.arange(len(words)),
            "word": words,
            "role": sample.word_roles(row),
            "value": values[row, : len(words)],
        }


def choices(depth: int, activation: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Return method, label and parameters of each choice in a text tower of `depth` layers.

    Without parameters a choice is the method's default on weights with the other activation.
    """
    upper_half = tuple(range(depth // 2, depth))
    # Attention's `renormalise` and the temperature of perturbation and gradient are left out: they
    # scale all scores of a caption, and change no rank.
    return [
        ("attention", "last layer", {"layers": (-1,)}),
        ("attention", "upper half of the layers", {"layers": upper_half}),
        ("gradcam", "last layer", {"start_layer": -1}),
        ("gradcam", "upper half of the layers", {"start_layer": depth // 2}),
        ("gradcam", "S without 1/τ", {"use_temperature": False}),
        ("perturbation", "zero vector as the mask", {"replacement": "zero"}),
        ("perturbation", "the token * as the mask", {"replacement": "token"}),
        ("perturbation", "a random other token as the mask", {"replacement": "random"}),
        ("perturbation", "one token at a time", {"unit": "token"}),
        ("gradient", "l1 norm", {"reduction": "l1"}),
        ("gradient", "|gradient · x|", {"reduction": "abs_grad_x"}),
        ("gradient", "gradient · x, with its sign", {"reduction": "grad_x"}),
        *((method, OTHER_ACTIVATION[activation][1], {}) for method in PAPER_METHODS),
    ]


def sensitivity_table(
    encoder: Encoder, profile: Profile, limit: int = SAMPLE_SIZES["faithfulness"]
) -> pd.DataFrame:
    """Compare every choice with its method's default, and curves under the masks `REPLACEMENTS`."""
    sample, clip = coco_word_sample(encoder, profile, limit), encoder.clip
    other = load_clip(clip.name, None, OTHER_ACTIVATION[clip.activation][0], encoder.device)
    other.model.load_state_dict(clip.model.state_dict())
    # The image tower has the activation, too, so its features are other ones.
    paths = retrieval_pairs(profile.datasets, "coco").image_paths
    features = Encoder(other).encode_images(
        [ImageRef(paths[number]) for number in sample.image_index]
    )
    in_other = replace(sample, image_features=torch.from_numpy(features).to(encoder.device))
    with eval_mode(clip.model):
        defaults = {method: sample.token_scores(clip.model, method) for method in PAPER_METHODS}
        words = {m: merge_token_scores(scores, sample.words) for m, scores in defaults.items()}
        parts = []
        for method, scores in defaults.items():
            parts += _compare(method, "default", scores, words[method], sample)
        depth = len(text_tower(clip.model).transformer.resblocks)
        for method, choice, parameters in choices(depth, clip.activation):
            if parameters:
                scores = sample.token_scores(clip.model, method, **parameters)
            else:
                scores = in_other.token_scores(other.model, method)
            parts += _compare(method, choice, scores, words[method], sample)
        for replacement in REPLACEMENTS:
            curves = score_curves(
                sample.n_words, similarity_of(clip.model, sample, replacement), words
            )
            parts += [{**part, "choice": replacement} for part in _areas(curves, sample)]
    return long_table(SENSITIVITY_ROW, parts)


def _compare(
    method: str, choice: str, scores: Tensor, default: np.ndarray, sample: CaptionSample
) -> Rows:
    """Yield how scores of tokens `(C, T)` compare with the default ones of words `(C, W)`."""
    columns = {"method": method, "choice": choice, "caption": sample.caption_index}
    correlation = rank_correlation(default, merge_token_scores(scores, sample.words))
    yield {"measure": "correlation", "value": correlation, **columns}
    for group, roles in ROLE_GROUPS.items():
        in_group = torch.isin(sample.roles.cpu(), torch.tensor(roles))
        # 0 / 0 is NaN: the caption has no such word.
        mean = (scores.cpu() * in_group).sum(dim=1) / in_group.sum(dim=1)
        yield {"measure": group, "value": mean, **columns}
