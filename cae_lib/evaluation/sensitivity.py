"""How much the scores of one model hang on choices that the paper leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cae_lib.attribution import METHODS
from cae_lib.attribution.ranking import rank_correlation, scores_by_word
from cae_lib.data.captions import Pairs
from cae_lib.evaluation.attribution import by_role
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.faithfulness import curve_areas
from cae_lib.evaluation.word_sample import WordSample, word_sample
from cae_lib.models.clip import ACTIVATIONS, Clip, load_clip
from cae_lib.models.text_tower import text_tower
from cae_lib.words.alignment import Alignment
from cae_lib.words.roles import ATTRIBUTE, RELATION

MASKS = ("zero", "token")
SPELLED = {"gelu": "GELU", "quickgelu": "QuickGELU"}
DIGITS = 6


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


def sensitivity(
    encoder: Encoder, pairs: Pairs, alignment: Alignment, limit: int = 120
) -> dict[str, Any]:
    """Compare every choice with the default, and the deletion curves under other masks.

    Args:
        encoder: Holds the model and gives the picture features.
        pairs: Captions with their pictures.
        alignment: Tokens and roles of these captions.
        limit: Number of captions, taken evenly over the set.

    Returns:
        A record: for each method and choice the rank correlation with the default, and the means of
        object and of composition words (attributes and relations), by caption; and the areas of the
        curves for each mask.
    """
    sample, model = word_sample(encoder, pairs, alignment, limit), encoder.clip.model
    was_training = model.training
    model.eval()
    defaults = {method: sample.token_scores(model, method) for method in METHODS}
    words = {m: scores_by_word(scores, sample.words) for m, scores in defaults.items()}
    found: dict[str, list[dict[str, Any]]] = {
        m: [_described("default", {}, words[m], words[m], defaults[m], sample)] for m in METHODS
    }
    swapped = other_activation(encoder, sample, pairs, alignment, limit)
    for choice in choices(_depth(model), encoder.clip.activation):
        where, net = swapped if choice.activation else (sample, model)
        scores = where.token_scores(net, choice.method, **choice.parameters)
        changed = scores_by_word(scores, sample.words)
        found[choice.method].append(
            _described(choice.name, choice.parameters, words[choice.method], changed, scores,
                       sample)
        )  # fmt: skip
    masks = {mask: curve_areas(model, sample, words, mask) for mask in MASKS}
    model.train(was_training)
    return {
        "n_captions": len(sample.tokens),
        "n_expected": sample.n_expected,
        "choices": found,
        "masks": masks,
    }


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


def _depth(model: nn.Module) -> int:
    return len(text_tower(model).transformer.resblocks)


def _described(
    name: str,
    parameters: Mapping[str, Any],
    default: np.ndarray,
    changed: np.ndarray,
    scores: Tensor,
    sample: WordSample,
) -> dict[str, Any]:
    """One choice as part of a record; `scores` are those of the tokens."""
    composition = (sample.roles == ATTRIBUTE) | (sample.roles == RELATION)
    joined = torch.where(composition, ATTRIBUTE, sample.roles)
    captions = by_role(scores, joined).captions
    return {
        "name": name,
        "parameters": {key: str(value) for key, value in parameters.items()},
        "correlation": _rounded(rank_correlation(default, changed)),
        "object": _rounded(captions["object"]),
        "composition": _rounded(captions["attribute"]),
    }


def _rounded(values: np.ndarray) -> list[float | None]:
    return [round(float(v), DIGITS) if np.isfinite(v) else None for v in values]
