"""Attribute similarity to tokens by gradient-weighted attention, propagated through the layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cae_lib.attribution.base import Attribution, AttributionMethod, Captions
from cae_lib.errors import ConfigError


@dataclass(frozen=True)
class GradcamAttribution(AttributionMethod):
    """Attribution by gradient-weighted attention, by the rule of Chefer et al. (2021).

    CAE, GradCAM instance: S is the similarity of image and caption, and A^{l,h} holds the attention
    weights of head h in layer l. With `C^l = mean_h ReLU(dS/dA^{l,h} * A^{l,h})`, the rule starts
    from the identity matrix R, applies `R <- R + C^l R` from `start_layer` up, and takes
    `a_j = R[EOT, j]`, where EOT is the end-of-text token. Only this row r of R is computed, from
    the top layer down: `r <- r + r C^l`. EOT itself scores at least 1. If a text tower reads its
    features at another position, this position replaces EOT; if it reads their mean over positions,
    r is the mean of the rows of R at these positions.

    Attributes:
        start_layer: First layer of the rule; negative numbers count from the top. 0 uses all
            layers, and -1 only the last one, as the CLIP notebook of Chefer et al. does.
        second_order: In training, differentiate through dS/dA as well; if False, dS/dA is treated
            as a constant.
        use_temperature: Multiply S by 1/tau, the inverse temperature of the contrastive loss, as
            the CLIP notebook of Chefer et al. does.
        train_temperature: Let the loss on the scores train tau. This requires `use_temperature`,
            and `second_order`. A smaller 1/tau gives lower scores.
    """

    start_layer: int = 0
    second_order: bool = True
    use_temperature: bool = True
    train_temperature: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_temperature and not (self.use_temperature and self.second_order):
            raise ConfigError(
                "train_temperature moves tau^-1 through dS/dA: it needs use_temperature=True and "
                "second_order=True."
            )

    def score(self, captions: Captions) -> Attribution:
        """Compute the relevance of each token for the similarity."""
        tokens, graph = captions.tokens, captions.create_graph
        # Embeddings that require a gradient put the maps of a frozen model on a graph, too. Maps
        # are computed explicitly, and can be differentiated twice without `second_order`.
        embeddings = captions.embeddings()
        output = captions.encoder.encode(tokens, attention="maps", embeddings=embeddings)
        maps = output.attention[resolve_start_layer(self.start_layer, len(output.attention)) :]
        similarity = captions.similarity(
            output.features, self.use_temperature, self.train_temperature
        )
        # The loss runs backward through the graph of `similarity` again, also if dS/dA is a
        # constant in it.
        attention_grads = torch.autograd.grad(
            similarity.sum(), maps, create_graph=graph and self.second_order, retain_graph=graph
        )
        row = propagate_relevance(maps, attention_grads, output.readout)
        # The class token that CoCa appends is no token of the caption.
        return Attribution(row[:, : tokens.shape[1]], output.features)


def resolve_start_layer(start_layer: int, depth: int) -> int:
    """Convert the index of a start layer, which may be negative, to an index from 0."""
    if not -depth <= start_layer < depth:
        raise ConfigError(f"start_layer={start_layer} does not fit a tower of {depth} layers.")
    return start_layer % depth


def propagate_relevance(
    maps: Sequence[Tensor], attention_grads: Sequence[Tensor], readout: Tensor
) -> Tensor:
    """Return the relevance `(B, T)` of each position: the row `readout` of the matrix R.

    `GradcamAttribution` states the rule. `maps` are the attention weights from the start layer up
    and `attention_grads` the derivatives of S by them, both `(B, H, T, T)`, or `(B, H, 1, T)` for a
    top layer that computes only the position that is read. `readout` `(B, T)` weights the positions
    in the features: one-hot, or equal weights for a mean.
    """
    row = readout.to(maps[-1].dtype)
    with torch.autocast(row.device.type, enabled=False):
        # Only the row r = readout R is needed. From the top layer down it is a product of row and
        # matrix for each layer, where R itself takes products of T x T matrices.
        for weights, grad in zip(reversed(maps), reversed(attention_grads), strict=True):
            relevance = (grad * weights).relu().mean(dim=1)
            # The top map of a tower that is read at one position has this row alone, (B, 1, T);
            # with the one-hot r, that is r C.
            update = relevance if relevance.shape[1] == 1 else row.unsqueeze(1) @ relevance
            row = row + update.squeeze(1)
    return row
