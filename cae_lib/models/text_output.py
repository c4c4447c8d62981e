"""What every text encoder returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TextOutput:
    """What an encoder returns; T is the number of positions that it computes.

    Attributes:
        features: `(B, E)`, not normalised, equal to those of the model.
        attention: one map per layer, empty unless asked for; shapes under `TextEncoder.encode`.
        embeddings: token embeddings `(B, S, D)`, before the position is added; S <= T.
        readout: weight of each position's last state in the features `(B, T)`: 1 at the token
            that is read, or equal weights where a tower takes the mean.
    """

    features: Tensor
    attention: list[Tensor]
    embeddings: Tensor
    readout: Tensor


def one_hot(position: Tensor, length: int, like: Tensor) -> Tensor:
    """Readout `(B, length)` at one position of each row, in float32 or wider."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    return (torch.arange(length, device=position.device) == position[:, None]).to(dtype)
