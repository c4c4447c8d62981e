"""How faithful word scores are to a model, and how much they hang on choices left to us."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from cae_lib.attribution import measures
from cae_lib.attribution.measures import rank_correlation
from cae_lib.attribution.word_scores import scores_by_word
from cae_lib.evaluation.attribution import INTEGRATED, WordSample, captions_of
from cae_lib.evaluation.datasets import SAMPLES, even_rows, retrieval_pairs
from cae_lib.evaluation.encoder import Encoder, evaluating
from cae_lib.evaluation.tables import NOTHING, long_table
from cae_lib.methods import METHODS
from cae_lib.models.clip import load_clip
from cae_lib.models.text_tower import text_tower
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION

RANDOM = "random"
"""Stands among the methods for words in random order."""

GRID = np.linspace(0, 1, 11)
RANDOMISED_CAPTIONS = 50
LONGEST_EXAMPLE = 12
MASKS = ("zero", "token")
OTHER = {
    "gelu": ("quickgelu", "QuickGELU in place of GELU"),
    "quickgelu": ("gelu", "GELU in place of QuickGELU"),
}
"""For each activation the other one, and what it is to run weights with that."""

GROUPS = {"object": (OBJECT,), "composition": (ATTRIBUTE, RELATION)}
ROW: Mapping[str, Any] = {
    "measure": "",
    "method": "",
    "against": "",
    "caption": np.int32(-1),
    "place": NOTHING,
    "word": "",
    "role": "",
    "value": NOTHING,
}
"""The columns of `faithfulness_table`, with what stands where a measure does not use them."""

CHOICE_ROW: Mapping[str, Any] = {
    "measure": "",
    "method": "",
    "choice": "",
    "against": "",
    "caption": np.int32(-1),
    "value": NOTHING,
}
"""Likewise of `sensitivity_table`."""

Rows = Iterator[dict[str, Any]]


def faithfulness_table(
    encoder: Encoder, profile: str, limit: int = SAMPLES["faithfulness"]
) -> pd.DataFrame:
    """Curves, agreement and randomisation check of all methods on one model.

    `limit` of COCO's test captions are taken evenly. A row a value, with the columns of `ROW`;
    caption is the number in the set. By measure:

    - "area" under the deletion or insertion curve (against) of a method, "random" included;
    - "whole", "empty": similarity of the caption as it is, and with every word masked;
    - "curve", "curve error": mean over captions, its standard error, at a share of words (place);
    - "agreement": rank correlation of the words with another method (against), NaN if not defined;
    - "randomisation": that with a model randomised down to a stage (against; place is its number);
    - "example": scores of one caption's words (place is the word's number);
    - "integration error", "integration points": of integrated gradients.
    """
    sample, model = captions_of(encoder, profile, limit), encoder.clip.model
    with evaluating(model):
        scores = {method: sample.scores(model, method) for method in METHODS}
        scores[INTEGRATED], error, points = sample.integrated_gradients(model)
        curves = score_curves(model, sample, scores)
        where = dict(method=INTEGRATED, caption=sample.captions)
        return long_table(
            ROW,
            [
                *_areas(curves, sample),
                *_mean_curves(curves, sample),
                *(
                    dict(
                        measure="agreement",
                        method=first,
                        against=second,
                        caption=sample.captions,
                        value=rank_correlation(scores[first], scores[second]),
                    )
                    for first, second in itertools.combinations(scores, 2)
                ),
                *_randomisation(encoder, sample.rows(even_rows(len(error), RANDOMISED_CAPTIONS))),
                *_example(encoder, sample, scores),
                dict(measure="integration error", value=error, **where),
                dict(measure="integration points", value=points, **where),
            ],
        )


def score_curves(
    model: nn.Module, sample: WordSample, scores: Mapping[str, np.ndarray], mask: str = "mean"
) -> dict[tuple[str, str], np.ndarray]:
    """Curves by method, with the mean of `RANDOM` orders, and "deletion" or "insertion", from
    scores of the words `(C, W)`; `mask` is what stands in for a masked token."""
    n_words, similarity = sample.n_words, partial(sample.masked, model, mask=mask)
    orders = [measures.random_ranks(n_words, int(n_words.max()), seed) for seed in (0, 1)]
    random = measures.removal_curves(np.stack(orders), n_words, similarity).mean(axis=0)
    places = np.stack([measures.ranks(values) for values in scores.values()])
    pairs = measures.paired_curves(places, n_words, similarity)
    pairs.append(measures.Curves(random, measures.reverse_curves(random, n_words)))
    return {
        (method, against): curve
        for method, both in zip((*scores, RANDOM), pairs, strict=True)
        for against, curve in vars(both).items()
    }


def _areas(curves: Mapping[tuple[str, str], np.ndarray], sample: WordSample) -> Rows:
    """Areas under curves, and where they begin and end."""
    for measure, against in (("whole", "deletion"), ("empty", "insertion")):
        yield dict(measure=measure, caption=sample.captions, value=curves[RANDOM, against][:, 0])
    for (method, against), curve in curves.items():
        where = dict(method=method, against=against, caption=sample.captions)
        yield dict(measure="area", value=measures.area(curve, sample.n_words), **where)


def _mean_curves(curves: Mapping[tuple[str, str], np.ndarray], sample: WordSample) -> Rows:
    for (method, against), curve in curves.items():
        values = measures.on_grid(curve, sample.n_words, GRID)
        n = len(values)
        error = values.std(axis=0, ddof=min(1, n - 1)) / np.sqrt(n)
        where = dict(method=method, against=against, place=GRID)
        yield dict(measure="curve", value=values.mean(axis=0), **where)
        yield dict(measure="curve error", value=error, **where)


def _randomisation(encoder: Encoder, sample: WordSample) -> Rows:
    """Rank correlation with the model's own scores while its text tower, alone, is randomised."""
    clip = encoder.clip
    own = {method: sample.scores(clip.model, method) for method in METHODS}
    fresh = load_clip(clip.name, None, clip.activation, sample.tokens.device, seed=1)
    for number, (stage, mixed) in enumerate(measures.randomize_cascade(clip.model, fresh.model)):
        for method in METHODS:
            where = dict(method=method, against=stage, place=number, caption=sample.captions)
            value = rank_correlation(own[method], sample.scores(mixed, method))
            yield dict(measure="randomisation", value=value, **where)


def _example(encoder: Encoder, sample: WordSample, scores: Mapping[str, np.ndarray]) -> Rows:
    """The first caption of moderate length with a word of every role, the same for all models."""
    every, short = {"object", "attribute", "relation"}, sample.n_words <= LONGEST_EXAMPLE
    fitting = (row for row in np.flatnonzero(short) if every <= set(sample.word_roles(row)))
    row = next(fitting, int(np.argmax(sample.n_words)))
    words, roles = sample.word_texts(row, encoder.clip.tokenizer), sample.word_roles(row)
    place, caption = np.arange(len(words)), sample.captions[row]
    for method, values in scores.items():
        where = dict(method=method, caption=caption, place=place, word=words, role=roles)
        yield dict(measure="example", value=values[row, : len(words)], **where)


def choices(depth: int, activation: str) -> list[tuple[str, str, dict[str, Any]]]:
    """What is compared in a text tower of `depth` layers: method, choice, parameters (none: the
    default, run on weights with the other activation). Choices that only scale all scores of a
    caption are left out, since they change no rank: attention's `renormalise`, and the temperature
    of perturbation and gradient."""
    upper = tuple(range(depth // 2, depth))
    return [
        ("attention", "last layer", {"layers": (-1,)}),
        ("attention", "upper half of the layers", {"layers": upper}),
        ("gradcam", "last layer", {"start_layer": -1}),
        ("gradcam", "upper half of the layers", {"start_layer": depth // 2}),
        ("gradcam", "S without 1/τ", {"temperature": False}),
        ("perturbation", "zero vector as the mask", {"replacement": "zero"}),
        ("perturbation", "the token * as the mask", {"replacement": "token"}),
        ("perturbation", "a random other token as the mask", {"replacement": "random"}),
        ("perturbation", "one token at a time", {"unit": "token"}),
        ("gradient", "l1 norm", {"reduction": "l1"}),
        ("gradient", "|gradient · x|", {"reduction": "abs_grad_x"}),
        ("gradient", "gradient · x, with its sign", {"reduction": "grad_x"}),
        *((method, OTHER[activation][1], {}) for method in METHODS),
    ]


def sensitivity_table(
    encoder: Encoder, profile: str, limit: int = SAMPLES["faithfulness"]
) -> pd.DataFrame:
    """Compare every choice with the default, and the deletion curves under other masks.

    As `faithfulness_table`, with the columns of `CHOICE_ROW`. By measure:

    - "correlation": rank correlation of the words' scores by a method and choice with those by the
      method's default, NaN where it is not defined;
    - "object", "composition": mean score of the tokens of object words, and of attributes and
      relations, NaN where the caption has none;
    - "area", "whole", "empty": as in `faithfulness_table`, with a mask of `MASKS` (choice).
    """
    sample, clip = captions_of(encoder, profile, limit), encoder.clip
    changed = load_clip(clip.name, None, OTHER[clip.activation][0], encoder.device)
    changed.model.load_state_dict(clip.model.state_dict())
    pictures = sample.with_images_of(Encoder(changed), retrieval_pairs(profile, "coco"))
    with evaluating(clip.model):
        defaults = {method: sample.token_scores(clip.model, method) for method in METHODS}
        words = {m: scores_by_word(scores, sample.words) for m, scores in defaults.items()}
        parts = []
        for method, scores in defaults.items():
            parts += _described(method, "default", scores, words[method], sample)
        depth = len(text_tower(clip.model).transformer.resblocks)
        for method, name, parameters in choices(depth, clip.activation):
            where, model = sample, clip.model
            if not parameters:
                where, model = pictures, changed.model
            scores = where.token_scores(model, method, **parameters)
            parts += _described(method, name, scores, words[method], sample)
        for mask in MASKS:
            curves = score_curves(clip.model, sample, words, mask)
            parts += [{**part, "choice": mask} for part in _areas(curves, sample)]
    return long_table(CHOICE_ROW, parts)


def _described(
    method: str, choice: str, scores: Tensor, default: np.ndarray, sample: WordSample
) -> Rows:
    """Scores of the tokens by one choice, against the words' default ones."""
    where = dict(method=method, choice=choice, caption=sample.captions)
    correlation = rank_correlation(default, scores_by_word(scores, sample.words))
    yield dict(measure="correlation", value=correlation, **where)
    for measure, roles in GROUPS.items():
        chosen = torch.isin(sample.roles.cpu(), torch.tensor(roles))
        mean = (scores.cpu() * chosen).sum(dim=1) / chosen.sum(dim=1)  # 0 / 0 is NaN
        yield dict(measure=measure, value=mean, **where)
