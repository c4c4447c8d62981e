"""Gradient at the token embeddings as attribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from cae_lib.attribution.base import Attribution
from cae_lib.attribution.similarity import (
    gradients,
    input_embeddings,
    matched_similarity,
    scored_inputs,
)
from cae_lib.errors import ConfigError
from cae_lib.models.text_encoder import TextEncoder

REDUCTIONS = ("l2", "l1", "abs_grad_x", "grad_x")


@dataclass(frozen=True)
class GradientAttribution:
    """Size of the similarity's gradient at each token's embedding.

    CAE, gradient instance: `a_j = ||dS/dx_j||_2` with x_j the token embedding, before the position
    is added. Trained through, it is differentiated twice. Which norm the paper takes is not known.

    Attributes:
        reduction: "l2", "l1", "abs_grad_x" for `|dS/dx_j . x_j|`, or "grad_x" for `dS/dx_j . x_j`.
        temperature: let S include tau^-1, as a constant.
    """

    reads_words: ClassVar[bool] = False

    reduction: str = "l2"
    temperature: bool = False

    def __post_init__(self) -> None:
        if self.reduction not in REDUCTIONS:
            raise ConfigError(
                f"unknown reduction {self.reduction!r}: expected one of {', '.join(REDUCTIONS)}."
            )

    def __call__(
        self,
        model: nn.Module | TextEncoder,
        tokens: Tensor,
        image_features: Tensor,
        *,
        create_graph: bool = False,
        words: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> Attribution:
        """Score every token; see `AttributionMethod`."""
        with gradients():
            encoder, tokens, image_features = scored_inputs(model, tokens, image_features)
            embeddings = input_embeddings(encoder, tokens)
            output = encoder.encode(tokens, embeddings=embeddings, second_order=create_graph)
            similarity = matched_similarity(
                encoder.model, image_features, output.features, self.temperature
            )
            (gradient,) = torch.autograd.grad(
                similarity.sum(), embeddings, create_graph=create_graph
            )
            scores = self._reduce(gradient, embeddings)
        if create_graph:
            return Attribution(scores, output.features)
        return Attribution(scores.detach(), output.features.detach())

    def _reduce(self, gradient: Tensor, embeddings: Tensor) -> Tensor:
        wide = torch.promote_types(gradient.dtype, torch.float32)
        gradient, embeddings = gradient.to(wide), embeddings.to(wide)
        if self.reduction == "l2":
            return torch.linalg.vector_norm(gradient, dim=-1)
        if self.reduction == "l1":
            return gradient.abs().sum(dim=-1)
        product = (gradient * embeddings).sum(dim=-1)
        return product.abs() if self.reduction == "abs_grad_x" else product
