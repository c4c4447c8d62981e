"""Gradient-weighted attention, propagated through the layers, as attribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.attribution.base import Attribution
from cae_lib.attribution.similarity import input_embeddings, matched_similarity
from cae_lib.errors import ConfigError
from cae_lib.models.towers import TextOutput, encode_text


@dataclass(frozen=True)
class GradcamAttribution:
    """Relevance of each token for S, by the rule of Chefer et al. (2021).

    CAE, GradCAM instance. With `C^l = mean_h ReLU(dS/dA^{l,h} * A^{l,h})`, the rule starts from
    `R = I`, applies `R <- R + C^l R` from the bottom layer up, and reads `a_j = R[EOT, j]`. Only
    one row of R is wanted, so it is computed alone, from the top layer down: `r <- r + r C^l`.

    Attributes:
        start_layer: first layer of the rule, negative ones from the top. 0 takes all layers;
            the authors' CLIP notebook takes the last one only (-1).
        second_order: differentiate through dS/dA as well when trained; otherwise it is a constant.
        temperature: let S include tau^-1, as in that notebook.
    """

    reads_words: ClassVar[bool] = False

    start_layer: int = 0
    second_order: bool = True
    temperature: bool = True

    def __call__(
        self,
        model: nn.Module,
        tokens: Tensor,
        image_features: Tensor,
        *,
        create_graph: bool = False,
        words: Tensor | None = None,
    ) -> Attribution:
        """Score every token; see `AttributionMethod`. The EOT itself scores 1 or more."""
        with torch.enable_grad():
            output = encode_text(
                model, tokens, attention="path", embeddings=input_embeddings(model, tokens)
            )
            depth = len(output.attention)
            if not -depth <= self.start_layer < depth:
                raise ConfigError(
                    f"start_layer={self.start_layer} does not fit a tower of {depth} layers."
                )
            maps = output.attention[self.start_layer :]
            similarity = matched_similarity(
                model, image_features, output.features, self.temperature
            )
            gradients = torch.autograd.grad(
                similarity.sum(),
                maps,
                create_graph=create_graph and self.second_order,
                retain_graph=create_graph,
            )
            scores = _propagate_row(maps, gradients, output)
        if create_graph:
            return Attribution(scores, output.features)
        return Attribution(scores.detach(), output.features.detach())


def _propagate_row(
    maps: list[Tensor], gradients: tuple[Tensor, ...], output: TextOutput
) -> Tensor:
    """EOT's row of R `(B, T)`; the top layer's map holds that row only, `(B, H, 1, T)`."""
    row = F.one_hot(output.eot, output.embeddings.shape[1]).to(maps[-1].dtype)
    row = row + contribution(maps[-1], gradients[-1]).squeeze(1)
    for weights, gradient in zip(maps[-2::-1], gradients[-2::-1], strict=True):
        row = row + (row.unsqueeze(1) @ contribution(weights, gradient)).squeeze(1)
    return row


def contribution(weights: Tensor, gradient: Tensor) -> Tensor:
    """C `(B, Q, T)`: positive part of gradient times attention, averaged over heads."""
    return (gradient * weights).relu().mean(dim=1)
