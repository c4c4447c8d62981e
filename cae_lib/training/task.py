"""Composition attribution enhancement as a module for anybody's own training loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.attribution import get_method
from cae_lib.attribution.grouping import word_index
from cae_lib.errors import ConfigError, DataError
from cae_lib.models.towers import text_tower
from cae_lib.training.losses import SCOPES, attribution_loss, complete_groups


@dataclass(frozen=True)
class CompositionAttributionOutput:
    """Text features for the contrastive loss, and the attribution loss with its parts.

    Attributes:
        text_features: `(B, E)`, normalised.
        loss: weight * L_attr, to be added to the contrastive loss.
        objects: A_obj, detached.
        composition: A_comp, detached.
        n_objects: tokens (scope "word": words) behind A_obj.
        n_composition: tokens (scope "word": words) behind A_comp.
    """

    text_features: Tensor
    loss: Tensor
    objects: Tensor
    composition: Tensor
    n_objects: Tensor
    n_composition: Tensor


class CompositionAttributionLoss(nn.Module):
    """Encode a batch of captions once, for its features and for `lambda * L_attr` (CAE, section 3).

    The model is used, not owned: `parameters()` and `state_dict()` of this module are empty. In
    eval mode or under `torch.no_grad` the same numbers come without a graph. Text features have the
    dtype that `model.encode_text` gives them, loss and attributions are float32 or wider.

    Args:
        model: open_clip model with a causal text tower read at its end-of-text token.
        method: "attention", "gradcam", "perturbation" or "gradient".
        weight: lambda; the paper does not print its values.
        margin: eps of the hinge.
        scope: "batch", "caption" or "word"; see `attribution_loss`.
        stop_gradient: treat A_obj as a constant.
        complete_captions: leave out captions without object word or without composition word.
        all_sum: adds up a tensor, with gradient, over the processes that share a batch; A_obj and
            A_comp are then those of the whole batch.
        **method_parameters: parameters of the attribution method.

    Raises:
        ConfigError: for an unknown method, parameter or scope, or an unsupported text tower.
    """

    def __init__(
        self,
        model: nn.Module,
        method: str = "attention",
        weight: float = 1.0,
        margin: float = 0.0,
        scope: str = "batch",
        stop_gradient: bool = False,
        complete_captions: bool = True,
        all_sum: Callable[[Tensor], Tensor] | None = None,
        **method_parameters: Any,
    ) -> None:
        super().__init__()
        if scope not in SCOPES:
            raise ConfigError(f"unknown scope {scope!r}: expected one of {', '.join(SCOPES)}.")
        text_tower(model)
        self._model = (model,)  # in a tuple, so that it is not registered as a submodule
        self.method = get_method(method, **method_parameters)
        self.weight = weight
        self.margin = margin
        self.scope = scope
        self.stop_gradient = stop_gradient
        self.complete_captions = complete_captions
        self.all_sum = all_sum

    def forward(
        self,
        image_features: Tensor,
        tokens: Tensor,
        roles: Tensor,
        words: Tensor | None = None,
    ) -> CompositionAttributionOutput:
        """Score the captions against their images.

        Args:
            image_features: `(B, E)`, of any length; no gradient of L_attr flows into them.
            tokens: `(B, context_length)` token ids.
            roles: `(B, context_length)` int8, 0 other, 1 object, 2 attribute, 3 relation.
            words: `(B, context_length)` number of the word each token belongs to, 0 for none;
                found from CLIP's byte-pair encoding when left out.

        Raises:
            DataError: when these do not describe the same captions.
        """
        if len(image_features) != len(tokens) or tokens.shape != roles.shape:
            raise DataError(
                "image features, tokens and roles must describe the same captions, but have shapes "
                f"{tuple(image_features.shape)}, {tuple(tokens.shape)}, {tuple(roles.shape)}."
            )
        model = self._model[0]
        if words is None and (self.method.reads_words or self.scope == "word"):
            tower = text_tower(model)
            vocabulary_size = tower.token_embedding.num_embeddings
            words = word_index(tokens, tower.eot(tokens), vocabulary_size)
        attribution = self.method(
            model,
            tokens,
            image_features.detach(),
            create_graph=self.training and torch.is_grad_enabled(),
            words=self._scored_words(roles, words) if self.method.reads_words else None,
        )
        length = attribution.length
        parts = attribution_loss(
            attribution.scores,
            roles[:, :length],
            self.margin,
            self.scope,
            self.stop_gradient,
            words=None if words is None else words[:, :length],
            complete_captions=self.complete_captions,
            all_sum=self.all_sum,
        )
        return CompositionAttributionOutput(
            text_features=F.normalize(attribution.text_features, dim=-1),
            loss=self.weight * parts.loss,
            objects=parts.objects,
            composition=parts.composition,
            n_objects=parts.n_objects,
            n_composition=parts.n_composition,
        )

    def extra_repr(self) -> str:
        """The settings, for `print`."""
        names = ("weight", "margin", "scope", "stop_gradient", "complete_captions")
        return ", ".join([str(self.method), *(f"{name}={getattr(self, name)}" for name in names)])

    def _scored_words(self, roles: Tensor, words: Tensor) -> Tensor:
        """Words with a token the loss averages; the others become 0 and cost nothing."""
        complete = self.complete_captions or self.scope == "caption"
        objects, composition = complete_groups(roles) if complete else (roles == 1, roles >= 2)
        words = words.long()
        wanted = torch.zeros(len(words), int(words.max()) + 1, device=words.device)
        wanted = wanted.scatter_add(1, words, (objects | composition).float())
        return torch.where(wanted.gather(1, words) > 0, words, 0)
