"""Gradient-weighted attention, propagated through the layers, as attribution."""

from __future__ import annotations

from collections.abc import Sequence
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
        train_temperature: let the loss move the temperature as well; without it tau^-1 is a
            constant of S, since a smaller scale would level any two scores.
    """

    reads_words: ClassVar[bool] = False

    start_layer: int = 0
    second_order: bool = True
    temperature: bool = True
    train_temperature: bool = False

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
        """Score every token; see `AttributionMethod`. The token that is read scores 1 or more."""
        with gradients():
            encoder, tokens, image_features = scored_inputs(model, tokens, image_features)
            output = encoder.encode(
                tokens, attention="maps", embeddings=input_embeddings(encoder, tokens)
            )
            depth = len(output.attention)
            if not -depth <= self.start_layer < depth:
                raise ConfigError(
                    f"start_layer={self.start_layer} does not fit a tower of {depth} layers."
                )
            maps = output.attention[self.start_layer :]
            similarity = matched_similarity(
                encoder.model, image_features, output.features, self.temperature,
                self.train_temperature,
            )
            slopes = torch.autograd.grad(
                similarity.sum(),
                maps,
                create_graph=create_graph and self.second_order,
                retain_graph=create_graph,
            )
            row = propagated(maps, slopes, output.readout)[:, : tokens.shape[1]]
        if create_graph:
            return Attribution(row, output.features)
        return Attribution(row.detach(), output.features.detach())


def propagated(maps: Sequence[Tensor], slopes: Sequence[Tensor], readout: Tensor) -> Tensor:
    """The row of R `(B, T)` that is read, from the top layer down.

    Args:
        maps: of each layer `(B, H, T, T)`, or `(B, H, 1, T)` where only that row is used.
        slopes: dS/dA, of the same shapes.
        readout: where R is read `(B, T)`; see `TextOutput`.
    """
    row = readout.to(maps[-1].dtype)
    with torch.autocast(row.device.type, enabled=False):
        for weights, slope in zip(reversed(maps), reversed(slopes), strict=True):
            part = contribution(weights, slope)
            step = part if part.shape[1] == 1 else row.unsqueeze(1) @ part
            row = row + step.squeeze(1)
    return row


def contribution(weights: Tensor, gradient: Tensor) -> Tensor:
    """C `(B, Q, T)`: positive part of gradient times attention, averaged over heads."""
    return (gradient * weights).relu().mean(dim=1)
