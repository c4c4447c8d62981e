"""Attribute similarity to tokens by its gradient at their embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cae_lib.attribution.base import Attribution, AttributionMethod, Captions


@dataclass(frozen=True)
class GradientAttribution(AttributionMethod):
    """Attribution by the similarity's gradient at each token's embedding.

    CAE, gradient instance: `a_j = ||dS/dx_j||_2`, where S is the similarity of image and caption,
    and x_j is the token embedding before the position embedding is added. Training differentiates S
    twice. The paper does not say which norm it takes.

    Attributes:
        reduction: "l2" or "l1" for that norm of `dS/dx_j`; "grad_x" for `dS/dx_j . x_j`; or
            "abs_grad_x" for the absolute value of `dS/dx_j . x_j`.
        use_temperature: Multiply S by 1/tau, the inverse temperature of the contrastive loss. The
            loss on the scores does not train tau.
    """

    reduction: Literal["l2", "l1", "abs_grad_x", "grad_x"] = "l2"
    use_temperature: bool = False

    def score(self, captions: Captions) -> Attribution:
        """Compute the similarity's gradient at each token, and reduce it as `reduction` says."""
        embeddings, create_graph = captions.embeddings(), captions.create_graph
        output = captions.encoder.encode(
            captions.tokens, embeddings=embeddings, second_order=create_graph
        )
        similarity = captions.similarity(output.features, self.use_temperature)
        # Captions do not interact: the gradient of the sum has each caption's own, (B, T, D).
        (gradient,) = torch.autograd.grad(similarity.sum(), embeddings, create_graph=create_graph)
        return Attribution(self._reduce(gradient, embeddings), output.features)

    def _reduce(self, gradient: Tensor, embeddings: Tensor) -> Tensor:
        # In float16, the squares of small derivatives would be 0.
        wide = torch.promote_types(gradient.dtype, torch.float32)
        gradient, embeddings = gradient.to(wide), embeddings.to(wide)
        if self.reduction == "l2":
            return torch.linalg.vector_norm(gradient, dim=-1)
        if self.reduction == "l1":
            return gradient.abs().sum(dim=-1)
        product = (gradient * embeddings).sum(dim=-1)
        return product.abs() if self.reduction == "abs_grad_x" else product
