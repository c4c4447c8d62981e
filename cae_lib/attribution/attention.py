"""Score the tokens of a caption by the attention that they receive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cae_lib.attribution.base import Attribution, AttributionMethod, Captions
from cae_lib.errors import ConfigError


@dataclass(frozen=True)
class AttentionAttribution(AttributionMethod):
    """Attribution by the attention from the end-of-text token, averaged over layers and heads.

    CAE, attention instance: `a_j = mean over l, h of A^{l,h}[EOT, j]`, where A^{l,h} holds the
    attention weights of head h in layer l, and EOT is the end-of-text token. If a text tower reads
    its features at another position, this position replaces EOT; if it reads their mean over
    positions, the mean attention of these positions counts. The scores do not depend on the image.

    Attributes:
        layers: Indices of the layers to average: 0 is the bottom layer, and -1 the top layer. None
            averages all layers.
        renormalise: Set the scores of tokens of no word (start, end and padding) to 0 and divide
            the others by their sum over the caption; not in the paper.
    """

    differentiates: ClassVar[bool] = False
    layers: tuple[int, ...] | None = None
    renormalise: bool = False

    def score(self, captions: Captions) -> Attribution:
        """Average the attention from the end-of-text token over layers and heads."""
        # The row of one query is enough; whole maps would take T times the memory.
        output = captions.encoder.encode(captions.tokens, attention="row")
        rows = self._select_layers(output.attention)
        # (captions, heads, tokens) in each layer, (captions, tokens) after both means
        scores = torch.stack([row.mean(dim=1) for row in rows]).mean(dim=0)
        # A tower may append a class token, as CoCa does. It belongs to no column of the tokens.
        scores = scores[:, : captions.tokens.shape[1]]
        if self.renormalise:
            scores = torch.where(captions.word_numbers(scores.shape[1]) > 0, scores, 0)
            # A caption without words has the sum 0: its scores stay 0 and do not become NaN.
            tiny = torch.finfo(scores.dtype).tiny
            scores = scores / scores.sum(dim=1, keepdim=True).clamp(min=tiny)
        return Attribution(scores, output.features)

    def _select_layers(self, rows: list[Tensor]) -> list[Tensor]:
        depth = len(rows)
        layers = range(depth) if self.layers is None else self.layers
        if not layers or not all(-depth <= layer < depth for layer in layers):
            raise ConfigError(f"layers={self.layers} does not fit a tower of {depth} layers.")
        return [rows[layer] for layer in layers]
