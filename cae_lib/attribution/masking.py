"""What stands in for the embedding of a masked token."""

from __future__ import annotations

import torch
from torch import Tensor

from cae_lib.errors import ConfigError
from cae_lib.models.text_encoder import TextEncoder

MASKS = ("mean", "zero", "token")
STAR = 265
"""The token "*" in CLIP's vocabulary."""


def mask_vector(encoder: TextEncoder, mask: str = "mean") -> Tensor:
    """Embedding `(D,)` in the place of a masked token, as a constant without gradient.

    Args:
        encoder: whose token embeddings they are, as they are now.
        mask: "mean", the mean token embedding; "zero"; "token", that of "*".

    Raises:
        ConfigError: unknown mask.
    """
    table = encoder.table
    if mask == "mean":
        return table.mean(dim=0)
    if mask == "zero":
        return torch.zeros_like(table[0])
    if mask == "token":
        return table[STAR]
    raise ConfigError(f"unknown mask {mask!r}: expected one of {', '.join(MASKS)}.")
