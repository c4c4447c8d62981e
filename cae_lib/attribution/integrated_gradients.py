"""Attribute similarity to tokens by integrated gradients, which is not a method of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cae_lib.attribution.base import Attribution, AttributionMethod, Captions, mask_embedding


@dataclass(frozen=True)
class IntegratedGradientsAttribution(AttributionMethod):
    """Share of each token in S(I, T) - S(I, T with every word masked); not in the paper.

    S(I, T) is the cosine similarity of image I and caption T. Integrated gradients (Sundararajan et
    al., 2017) follow the straight line from x' to the token embeddings x of the caption. In x'
    every token of a word has the mean embedding of the vocabulary. The score is
    `a_j = (x_j - x'_j) . mean over t in [0, 1] of dS/dx_j (x' + t (x - x'))`, and 0 for tokens of
    no word. Gradients are computed with dropout disabled.

    Attributes:
        points: Number of values of t, the nodes of Gauss-Legendre quadrature, if
            `Captions.create_graph` is not set.
        training_points: Number of values of t if `Captions.create_graph` is set. The interval
            [0, 1] is cut into this many equal parts, and one t is drawn from each, the same for all
            captions.
        expected: Estimate expected gradients (Erion et al., 2021) instead. Then a single random t
            is used for each caption, and in x' every token of a word has the embedding of a random
            token of a word in the batch. `points` and `training_points` have no effect.
    """

    positive_parameters: ClassVar[tuple[str, ...]] = ("points", "training_points")
    points: int = 32
    training_points: int = 2
    expected: bool = False

    def score(self, captions: Captions) -> Attribution:
        """Integrate the gradient of S along the line from the masked caption to the caption."""
        # Features for the contrastive loss, with dropout; the integral below is without.
        output = captions.encoder.encode(captions.tokens, second_order=captions.create_graph)
        end = output.embeddings
        in_word = captions.word_numbers(end.shape[1]) > 0
        baseline = mask_embedding(captions.encoder).to(end)
        if self.expected and in_word.any():
            # (words' tokens of the batch, D); detached, since the baseline is a constant.
            word_embeddings = end.detach()[in_word]
            draws = torch.randint(len(word_embeddings), in_word.shape).to(in_word.device)
            baseline = word_embeddings[draws]
        # (B, T, D): tokens of no word are the same at both ends of the line, and score 0.
        start = torch.where(in_word.unsqueeze(-1), baseline, end)
        if self.expected:
            # One t for each caption, (B, 1, 1), which counts alone.
            quadrature = [(torch.rand(len(end), 1, 1).to(end), 1.0)]
        else:
            quadrature = self._quadrature(random=captions.create_graph)
        gradient = torch.zeros_like(end)
        # With dropout, each point of the line would have dropout masks of its own.
        with captions.encoder.dropout_disabled():
            for t, weight in quadrature:
                gradient = gradient + weight * _gradient(captions, start + t * (end - start))
        wide = torch.promote_types(end.dtype, torch.float32)
        scores = ((end - start).to(wide) * gradient.to(wide)).sum(dim=-1)
        return Attribution(scores, output.features)

    def _quadrature(self, random: bool) -> Sequence[tuple[float | Tensor, float]]:
        """Return values of t, random if `random` is set, each with its weight; weights sum to 1."""
        if random:
            n = self.training_points
            # Stratified: one draw from each of n equal parts varies less than n draws from [0, 1].
            return [((i + u) / n, 1 / n) for i, u in enumerate(torch.rand(n).tolist())]
        nodes, weights = np.polynomial.legendre.leggauss(self.points)
        # The nodes are meant for [-1, 1], an interval of twice the length of [0, 1].
        return list(zip(((nodes + 1) / 2).tolist(), (weights / 2).tolist(), strict=True))


def _gradient(captions: Captions, embeddings: Tensor) -> Tensor:
    """Return the gradient `(B, T, D)` of the similarity at the token embeddings `(B, T, D)`."""
    # In a frozen model nothing requires a gradient yet.
    embeddings = embeddings if embeddings.requires_grad else embeddings.requires_grad_()
    graph = captions.create_graph
    output = captions.encoder.encode(captions.tokens, embeddings=embeddings, second_order=graph)
    similarity = captions.similarity(output.features)
    return torch.autograd.grad(similarity.sum(), embeddings, create_graph=graph)[0]
