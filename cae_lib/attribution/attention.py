"""Attention as attribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from cae_lib.attribution.base import Attribution
from cae_lib.errors import ConfigError
from cae_lib.models.towers import encode_text


@dataclass(frozen=True)
class AttentionAttribution:
    """Attention of the end-of-text token, averaged over layers and heads.

    CAE, attention instance: `a_j = mean over l, h of A^{l,h}[EOT, j]`. The image plays no part.

    Attributes:
        layers: indices of the layers averaged, negative ones from the top; None for all.
        renormalise: divide by the sum over the caption's words, start and end token left out, so
            that each caption's scores sum to 1 (ours).
    """

    reads_words: ClassVar[bool] = False

    layers: tuple[int, ...] | None = None
    renormalise: bool = False

    def __call__(
        self,
        model: nn.Module,
        tokens: Tensor,
        image_features: Tensor,
        *,
        create_graph: bool = False,
        words: Tensor | None = None,
    ) -> Attribution:
        """Score every token; see `AttributionMethod`."""
        with torch.set_grad_enabled(create_graph):
            output = encode_text(model, tokens, attention="row")
            rows = self._chosen(output.attention)
            scores = torch.stack([row.mean(dim=1) for row in rows]).mean(dim=0)
            if self.renormalise:
                scores = _over_words(scores, output.eot)
        return Attribution(scores, output.features)

    def _chosen(self, rows: list[Tensor]) -> list[Tensor]:
        if self.layers is None:
            return rows
        depth = len(rows)
        if not self.layers or not all(-depth <= layer < depth for layer in self.layers):
            raise ConfigError(f"layers={self.layers} does not fit a tower of {depth} layers.")
        return [rows[layer] for layer in self.layers]


def _over_words(scores: Tensor, eot: Tensor) -> Tensor:
    """Scores `(B, T)` as shares of the words' sum; 0 at the start and end token."""
    position = torch.arange(scores.shape[1], device=scores.device)
    scores = torch.where((position > 0) & (position < eot[:, None]), scores, 0)
    return scores / scores.sum(dim=1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)
