"""Integrated gradients as attribution: a fifth method, and the example of how to add one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from cae_lib.attribution.base import Attribution
from cae_lib.attribution.grouping import words_or_own
from cae_lib.attribution.masking import mask_vector
from cae_lib.attribution.similarity import gradients, matched_similarity, scored_inputs
from cae_lib.errors import ConfigError
from cae_lib.models.text_encoder import TextEncoder


@dataclass(frozen=True)
class IntegratedGradientsAttribution:
    """Share of each token in S(I, T) - S(I, T with every word masked).

    Integrated gradients (Sundararajan et al., 2017) along the straight line from x', where every
    word has the mean token embedding, to the caption x:
    `a_j = (x_j - x'_j) . mean over t of dS/dx_j (x' + t (x - x'))`. Not one of the paper's methods.

    Attributes:
        points: values of t without a graph, those of Gauss and Legendre's rule.
        training_points: values of t with a graph, one at random in each of so many equal parts, by
            torch's generator: an unbiased estimate of the integral (expected gradients; Erion et
            al., 2021).
    """

    reads_words: ClassVar[bool] = True

    points: int = 32
    training_points: int = 2

    def __post_init__(self) -> None:
        if min(self.points, self.training_points) < 1:
            raise ConfigError("integrated gradients need at least one point.")

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
        """Score every token; see `AttributionMethod`. Tokens of no word score 0."""
        with gradients():
            encoder, tokens, image_features = scored_inputs(model, tokens, image_features)
            output = encoder.encode(tokens, second_order=create_graph)
            end = output.embeddings
            inside = words_or_own(words, tokens, encoder)[:, : end.shape[1]] > 0
            start = torch.where(inside.unsqueeze(-1), mask_vector(encoder).to(end), end.detach())
            wide = torch.promote_types(end.dtype, torch.float32)
            slope = sum(
                weight * self._slope(encoder, tokens, image_features, start, end, t, create_graph)
                for t, weight in self._rule(create_graph)
            )
            scores = ((end - start).to(wide) * slope.to(wide)).sum(dim=-1)
        if create_graph:
            return Attribution(scores, output.features)
        return Attribution(scores.detach(), output.features.detach())

    def _rule(self, random: bool) -> list[tuple[float, float]]:
        """Values of t with their weights, which sum to 1."""
        if random:
            n = self.training_points
            return [((i + u) / n, 1 / n) for i, u in enumerate(torch.rand(n).tolist())]
        nodes, weights = np.polynomial.legendre.leggauss(self.points)
        return list(zip(((nodes + 1) / 2).tolist(), (weights / 2).tolist(), strict=True))

    def _slope(
        self,
        encoder: TextEncoder,
        tokens: Tensor,
        image_features: Tensor,
        start: Tensor,
        end: Tensor,
        t: float,
        create_graph: bool,
    ) -> Tensor:
        """dS/dx `(B, T, D)` at one point of the line."""
        at = start + t * (end - start)
        at = at if at.requires_grad else at.requires_grad_()
        features = encoder.encode(tokens, embeddings=at, second_order=create_graph).features
        similarity = matched_similarity(encoder.model, image_features, features, temperature=False)
        (slope,) = torch.autograd.grad(similarity.sum(), at, create_graph=create_graph)
        return slope
