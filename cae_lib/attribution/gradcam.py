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
    `R <- R + C^l R` from the bottom layer up, and reads `a_j = R[EOT, j]`. Only
    this row is computed, from the top layer down: `r <- r + r C^l`. EOT itself scores at least 1.

    Attributes:
        start_layer: First layer of the rule, negative from the top: 0 takes all layers, -1 the last
            one as in the authors' notebook.
        second_order: In training, differentiate through dS/dA as well; otherwise it is a constant.
        temperature: Let S include tau^-1, as in the authors' notebook.
        train_temperature: Let the loss change tau, which needs `temperature`. A smaller tau^-1
            reduces the difference of any two scores.
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
        """Propagate gradient-weighted attention to the token that the tower is read at."""
        tokens, graph = captions.tokens, captions.create_graph
        embeddings = captions.embeddings()
        output = captions.encoder.encode(tokens, attention="maps", embeddings=embeddings)
        maps = output.attention[resolve_start_layer(self.start_layer, len(output.attention)) :]
        similarity = captions.similarity(output.features, self.temperature, self.train_temperature)
        attention_grads = torch.autograd.grad(
            similarity.sum(), maps, create_graph=graph and self.second_order, retain_graph=graph
        )
        row = propagate_relevance(maps, attention_grads, output.readout)
        return Attribution(row[:, : tokens.shape[1]], output.features)


def resolve_start_layer(start_layer: int, depth: int) -> int:
    """Return the start layer counted from the bottom; ConfigError if there is no such layer."""
    if not -depth <= start_layer < depth:
        raise ConfigError(f"start_layer={start_layer} does not fit a tower of {depth} layers.")
    return start_layer % depth


def propagate_relevance(
    maps: Sequence[Tensor], attention_grads: Sequence[Tensor], readout: Tensor
) -> Tensor:
    """Return the row of R that is read `(B, T)`, computed from the top layer down.

    Args:
        maps: Attention of each layer `(B, H, T, T)`, or only the row that is read `(B, H, 1, T)`.
        attention_grads: dS/dA of each layer, of the same shapes.
        readout: Which row is read `(B, T)`, see `TextOutput`.
    """
    row = readout.to(maps[-1].dtype)
    with torch.autocast(row.device.type, enabled=False):
        for weights, grad in zip(reversed(maps), reversed(attention_grads), strict=True):
            relevance = (grad * weights).relu().mean(dim=1)
            update = relevance if relevance.shape[1] == 1 else row.unsqueeze(1) @ relevance
            row = row + update.squeeze(1)
    return row
