"""Integrated gradients as attribution: a fifth method, and the example of how to add one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cae_lib.attribution.base import Attribution, AttributionMethod, Captions, mask_vector


@dataclass(frozen=True)
class IntegratedGradientsAttribution(AttributionMethod):
    """Share of each token in S(I, T) - S(I, T with every word masked); not the paper's.

    Integrated gradients (Sundararajan et al., 2017) along the straight line from x', where every
    word has the mean token embedding, to the caption x; tokens of no word score 0:
    `a_j = (x_j - x'_j) . mean over t of dS/dx_j (x' + t (x - x'))`.

    Attributes:
        points: values of t without a graph, those of Gauss and Legendre's rule.
        training_points: values of t with a graph, one at random in each of so many equal parts.
        expected: always take for each caption one random t, and in x' for each token of a word that
            of a random word of the batch: expected gradients (Erion et al., 2021), without bias.
    """

    reads_words: ClassVar[bool] = True
    counts: ClassVar[tuple[str, ...]] = ("points", "training_points")
    points: int = 32
    training_points: int = 2
    expected: bool = False

    def score(self, captions: Captions) -> Attribution:
        output = captions.encoder.encode(captions.tokens, second_order=captions.create_graph)
        end = output.embeddings
        inside = captions.words(end.shape[1]) > 0
        baseline = mask_vector(captions.encoder).to(end)
        if self.expected and inside.any():
            known = end.detach()[inside]
            baseline = known[torch.randint(len(known), inside.shape).to(inside.device)]
        start = torch.where(inside.unsqueeze(-1), baseline, end)
        wide = torch.promote_types(end.dtype, torch.float32)
        rule = self._rule(captions.create_graph)
        if self.expected:
            rule = [(torch.rand(len(end), 1, 1).to(end), 1.0)]
        with captions.encoder.steady():
            slope = sum(weight * _slope(captions, start + t * (end - start)) for t, weight in rule)
        scores = ((end - start).to(wide) * slope.to(wide)).sum(dim=-1)
        return Attribution(scores, output.features)

    def _rule(self, random: bool) -> list[tuple[float, float]]:
        """Values of t with their weights, which sum to 1."""
        if random:
            n = self.training_points
            return [((i + u) / n, 1 / n) for i, u in enumerate(torch.rand(n).tolist())]
        nodes, weights = np.polynomial.legendre.leggauss(self.points)
        return list(zip(((nodes + 1) / 2).tolist(), (weights / 2).tolist(), strict=True))


def _slope(captions: Captions, at: Tensor) -> Tensor:
    """dS/dx `(B, T, D)` at token embeddings."""
    at = at if at.requires_grad else at.requires_grad_()
    graph = captions.create_graph
    output = captions.encoder.encode(captions.tokens, embeddings=at, second_order=graph)
    similarity = captions.similarity(output.features)
    return torch.autograd.grad(similarity.sum(), at, create_graph=graph)[0]
