"""How much the scores of one model hang on choices that the paper leaves open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from cae_lib.attribution import METHODS
from cae_lib.attribution.faithfulness import rank_correlation
from cae_lib.attribution.word_scores import scores_by_word
from cae_lib.data.captions import Pairs
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.faithfulness import CAPTIONS, area_rows, long_table, score_curves
from cae_lib.evaluation.word_sample import WordSample, evaluating, word_sample
from cae_lib.models.clip import ACTIVATIONS, Clip, load_clip
from cae_lib.models.text_tower import text_tower
from cae_lib.words.alignment import Alignment
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION

MASKS = ("zero", "token")
SPELLED = {"gelu": "GELU", "quickgelu": "QuickGELU"}
DEFAULT = "default"
ROW: Mapping[str, Any] = {
    "measure": "",
    "method": "",
    "choice": "",
    "against": "",
    "caption": np.int32(-1),
    "value": np.float32("nan"),
}
"""The columns of `sensitivity_table`, with what stands where a measure does not use them."""

GROUPS: Mapping[str, tuple[int, ...]] = {"object": (OBJECT,), "composition": (ATTRIBUTE, RELATION)}


@dataclass(frozen=True)
class Choice:
    """One way to compute a method's scores that is not the default.

    Attributes:
        method: Name of the attribution method.
        name: What is different, for the reader.
        parameters: Of the method.
        activation: Run the weights with the activation that they were not trained with.
    """

    method: str
    name: str
    parameters: Mapping[str, Any]
    activation: bool = False


def choices(depth: int, activation: str) -> list[Choice]:
    """The choices that are compared, for a text tower of `depth` layers.

    Those that only scale all scores of a caption are left out, since they change no rank:
    attention's `renormalise`, and the temperature of perturbation and gradient.

    Args:
        depth: Layers of the text tower.
        activation: That the weights were trained with.
    """
    upper = tuple(range(depth // 2, depth))
    found = [
        Choice("attention", "last layer", {"layers": (-1,)}),
        Choice("attention", "upper half of the layers", {"layers": upper}),
        Choice("gradcam", "last layer", {"start_layer": -1}),
        Choice("gradcam", "upper half of the layers", {"start_layer": depth // 2}),
        Choice("gradcam", "S without 1/τ", {"temperature": False}),
        Choice("perturbation", "zero vector as the mask", {"replacement": "zero"}),
        Choice("perturbation", "the token * as the mask", {"replacement": "token"}),
        Choice("perturbation", "a random other token as the mask", {"replacement": "random"}),
        Choice("perturbation", "one token at a time", {"unit": "token"}),
        Choice("gradient", "l1 norm", {"reduction": "l1"}),
        Choice("gradient", "|gradient · x|", {"reduction": "abs_grad_x"}),
        Choice("gradient", "gradient · x, with its sign", {"reduction": "grad_x"}),
    ]
    name = f"{SPELLED[_other(activation)]} in place of {SPELLED[activation]}"
    return found + [Choice(method, name, {}, True) for method in METHODS]


def sensitivity_table(
    encoder: Encoder, pairs: Pairs, alignment: Alignment, limit: int = CAPTIONS
) -> pd.DataFrame:
    """Compare every choice with the default, and the deletion curves under other masks.

    Args:
        encoder: Holds the model and gives the picture features.
        pairs: Captions with their pictures.
        alignment: Tokens and roles of these captions.
        limit: Number of captions, taken evenly over the set.

    Returns:
        A row a value, with the columns of `ROW`; caption is the number in `pairs`. By measure:

        - "correlation": rank correlation of the words' scores by a method and choice with those by
          the method's default, NaN where it is not defined;
        - "object", "composition": mean score of the tokens of object words, and of attributes and
          relations, NaN where the caption has none;
        - "area", "whole", "empty": as in `faithfulness_table`, with a mask of `MASKS` (choice).
    """
    sample, model = word_sample(encoder, pairs, alignment, limit), encoder.clip.model
    with evaluating(model):
        defaults = {method: sample.token_scores(model, method) for method in METHODS}
        words = {m: scores_by_word(scores, sample.words) for m, scores in defaults.items()}
        parts = []
        for method, scores in defaults.items():
            parts += _described(method, DEFAULT, scores, words[method], sample)
        swapped = other_activation(encoder, sample, pairs, alignment, limit)
        depth = len(text_tower(model).transformer.resblocks)
        for choice in choices(depth, encoder.clip.activation):
            where, net = swapped if choice.activation else (sample, model)
            scores = where.token_scores(net, choice.method, **choice.parameters)
            parts += _described(choice.method, choice.name, scores, words[choice.method], sample)
        for mask in MASKS:
            curves = score_curves(model, sample, words, mask)
            parts += [{**part, "choice": mask} for part in area_rows(curves, sample)]
    return long_table(ROW, parts)


def other_activation(
    encoder: Encoder, sample: WordSample, pairs: Pairs, alignment: Alignment, limit: int
) -> tuple[WordSample, nn.Module]:
    """The same captions and weights with the activation that the weights were not trained with.

    Both towers change, so the pictures are encoded anew.
    """
    clip: Clip = encoder.clip
    changed = load_clip(clip.name, None, _other(clip.activation), sample.tokens.device)
    changed.model.load_state_dict(clip.model.state_dict())
    pictures = word_sample(Encoder(changed), pairs, alignment, limit).image_features
    return replace(sample, image_features=pictures), changed.model


def _other(activation: str) -> str:
    return next(name for name in ACTIVATIONS if name != activation)


def _described(
    method: str, choice: str, scores: Tensor, default: np.ndarray, sample: WordSample
) -> Iterator[dict[str, Any]]:
    """Parts of the table on one choice: scores of the tokens against the words' default ones."""
    where = dict(method=method, choice=choice, caption=sample.captions)
    correlation = rank_correlation(default, scores_by_word(scores, sample.words))
    yield dict(measure="correlation", value=correlation, **where)
    for measure, roles in GROUPS.items():
        chosen = torch.isin(sample.roles.cpu(), torch.tensor(roles))
        mean = (scores.cpu() * chosen).sum(dim=1) / chosen.sum(dim=1)  # 0 / 0 is NaN
        yield dict(measure=measure, value=mean, **where)
