"""Composition attribution enhancement as a module for anybody's own training loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.attribution import AttributionMethod, get_method
from cae_lib.attribution.grouping import check_roles, check_shapes, word_index
from cae_lib.errors import check_type
from cae_lib.models.text_encoder import EncoderPath, TextEncoder, text_encoder
from cae_lib.models.text_tower import CLIP_VOCABULARY
from cae_lib.training.losses import AttributionLoss, Hinge, caption_sums, hinge_of_sums


@dataclass(frozen=True)
class CompositionAttributionOutput(AttributionLoss):
    """An attribution loss whose `loss` is weight * L_attr, to be added to the contrastive loss of
    the `text_features (B, E)`, which are normalised."""
    text_features: Tensor


class CompositionAttributionLoss(nn.Module):
    """Encode a batch of captions once, for its features and for `lambda * L_attr` (CAE, section 3).

    The model is used, not owned: `parameters()` and `state_dict()` of this module are empty; a deep
    copy or a pickle holds a copy of it, one and the same where both are copied together. `eval()`
    changes no gradient; under `torch.no_grad` the same numbers come without a graph. Text features
    have the dtype that the model gives them, loss and attributions are float32 or wider.
    ConfigError for what `text_encoder`, `get_method` or `Hinge` refuses.

    Args:
        model: one that `text_encoder` knows, of open_clip or Hugging Face, or an encoder.
        method: a name, with its `method_parameters`, or an `AttributionMethod` of your own.
        weight: lambda; the paper does not print its values.
        margin: eps of the hinge.
        hinge, scope, stop_gradient, complete_captions: see `Hinge`, whose kind is `hinge`.
        image_gradient: let L_attr train the image tower too: S depends on both features, and no
            formula of the paper holds one of them. False: image features are a constant in it.
        all_sum: adds up a tensor, with gradient, over the processes that share a batch; A_obj and
            A_comp are then those of the whole batch.
        path: "packed", "reference", or "auto"; see `text_encoder`.
    """

    def __init__(
        self, model: nn.Module | TextEncoder, method: str | AttributionMethod = "attention",
        weight: float = 1.0, margin: float = 0.0, scope: str = "batch",
        stop_gradient: bool = False, complete_captions: bool = True,
        all_sum: Callable[[Tensor], Tensor] | None = None, path: EncoderPath = "auto",
        hinge: str = "difference", image_gradient: bool = True, **method_parameters: Any,
    ) -> None:
        super().__init__()
        text_encoder(model, path)
        self._model = (model,)  # in a tuple, so that it is not registered as a submodule
        self.method = get_method(method, **method_parameters)
        self.hinge = Hinge(hinge, margin, scope, stop_gradient, complete_captions)
        check_type("image_gradient", image_gradient, bool)
        check_type("weight", weight, float)
        self.weight, self.all_sum, self.path = weight, all_sum, path
        self.image_gradient = image_gradient

    @property
    def model(self) -> nn.Module | TextEncoder:
        """The model whose captions are scored."""
        return self._model[0]

    def forward(
        self, image_features: Tensor, tokens: Tensor, roles: Tensor, words: Tensor | None = None,
        arguments: Tensor | None = None,
    ) -> CompositionAttributionOutput:
        """Score the captions against their images; a DataError for arguments that do not fit.

        Args:
            image_features: `(B, E)`, of any length.
            tokens: ids `(B, C)`.
            roles: `(B, C)` int8, 0 other, 1 object, 2 attribute, 3 relation; 0 where no word is.
            words: number of each token's word `(B, C)`, 0 for none; None: by CLIP's tokens.
            arguments: words that a token's word is said of `(B, C, 2)`, as `token_roles` gives
                them, for the method "binding"; None: the nearest object words.
        """
        text_features, sums = self.rows(image_features, tokens, roles, words, arguments)
        parts = hinge_of_sums(sums, self.hinge, self.all_sum)
        weighed = {"loss": self.weight * parts.loss, "text_features": text_features}
        return CompositionAttributionOutput(**vars(parts) | weighed)

    def rows(
        self, image_features: Tensor, tokens: Tensor, roles: Tensor, words: Tensor | None = None,
        arguments: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Normalised text features `(B, E)`, and each caption's sums `(B, K)` (`caption_sums`), for
        loops that take the hinge elsewhere; see `forward`."""
        check_shapes(tokens, image_features, roles=roles, words=words)
        encoder = text_encoder(self.model, self.path)
        reads_words = self.method.reads_words or self.hinge.scope == "word"
        if words is None and (reads_words or encoder.vocabulary_size == CLIP_VOCABULARY):
            words = word_index(tokens, encoder.vocabulary_size)
        check_roles(roles, words)
        objects, composition = self.hinge.groups(roles)
        beside = {name: value for name, value in (("roles", roles), ("arguments", arguments))
                  if getattr(self.method, f"reads_{name}", False)}
        found = self.method(
            encoder, tokens, image_features if self.image_gradient else image_features.detach(),
            create_graph=torch.is_grad_enabled(), words=words, wanted=objects | composition,
            **beside,
        )
        roles = roles[:, : found.length]
        if found.scored is not None:
            roles = roles * found.scored
        words = None if words is None else words[:, : found.length]
        sums = caption_sums(found.scores, roles, self.hinge, words)
        return F.normalize(found.text_features, dim=-1), sums

    def extra_repr(self) -> str:
        return (f"{self.method}, weight={self.weight}, {self.hinge}, path={self.path}, "
                f"image_gradient={self.image_gradient}")
