"""Gradient-weighted attention, propagated through the layers, as attribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cae_lib.attribution.base import Attribution, AttributionMethod, Captions
from cae_lib.errors import ConfigError


@dataclass(frozen=True)
class GradcamAttribution(AttributionMethod):
    """Relevance of each token for S, by the rule of Chefer et al. (2021); CAE, GradCAM instance.

    With `C^l = mean_h ReLU(dS/dA^{l,h} * A^{l,h})`, the rule starts from `R = I`, applies
    `R <- R + C^l R` from the bottom layer up, and reads `a_j = R[EOT, j]`. That row is computed
    alone, from the top layer down: `r <- r + r C^l`. The token that is read scores 1 or more.

    Attributes:
        start_layer: of the rule, negative from the top; 0 takes all, -1 as the authors' notebook.
        second_order: differentiate through dS/dA as well when trained; else it is a constant.
        temperature: let S include tau^-1, as in that notebook.
        train_temperature: let the loss move it, though a smaller scale levels any two scores; a
            ConfigError without `temperature`.
    """

    start_layer: int = 0
    second_order: bool = True
    temperature: bool = True
    train_temperature: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_temperature and not self.temperature:
            raise ConfigError("train_temperature moves tau^-1: it needs temperature=True.")

    def score(self, captions: Captions) -> Attribution:
        tokens, graph = captions.tokens, captions.create_graph
        at = captions.embeddings()
        output = captions.encoder.encode(tokens, attention="maps", embeddings=at)
        maps = output.attention[first_layer(self.start_layer, len(output.attention)) :]
        similarity = captions.similarity(output.features, self.temperature, self.train_temperature)
        slopes = torch.autograd.grad(
            similarity.sum(), maps, create_graph=graph and self.second_order, retain_graph=graph
        )
        row = propagated(maps, slopes, output.readout)
        return Attribution(row[:, : tokens.shape[1]], output.features)


def first_layer(start_layer: int, depth: int) -> int:
    """The first layer of the rule counted from the bottom, or an error if there is none such."""
    if not -depth <= start_layer < depth:
        raise ConfigError(f"start_layer={start_layer} does not fit a tower of {depth} layers.")
    return start_layer % depth


def propagated(maps: Sequence[Tensor], slopes: Sequence[Tensor], readout: Tensor) -> Tensor:
    """The row of R `(B, T)` that is read (`readout`, see `TextOutput`), from the top layer down.
    `maps` and `slopes`, dS/dA, are `(B, H, T, T)`, or `(B, H, 1, T)` of that row alone."""
    row = readout.to(maps[-1].dtype)
    with torch.autocast(row.device.type, enabled=False):
        for weights, slope in zip(reversed(maps), reversed(slopes), strict=True):
            part = (slope * weights).relu().mean(dim=1)
            step = part if part.shape[1] == 1 else row.unsqueeze(1) @ part
            row = row + step.squeeze(1)
    return row
