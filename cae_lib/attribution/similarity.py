"""The score S that the methods explain, and what stands in for a masked token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.errors import ConfigError
from cae_lib.models.text_encoder import TextEncoder

MASKS = ("mean", "zero", "token")
STAR = 265
"""The token "*" in CLIP's vocabulary."""


def matched_similarity(
    model: nn.Module, image_features: Tensor, text_features: Tensor, temperature: bool,
    train_temperature: bool = False,
) -> Tensor:
    """S(I, T) of matched pairs `(B,)`, in float32 or wider also under autocast.

    Args:
        model: its `logit_scale` is tau^-1 before the exponential; 1 for a model without one.
        image_features: `(B, E)`, of any length.
        text_features: `(B, E)`, not normalised.
        temperature: multiply the cosine by tau^-1.
        train_temperature: let gradients flow into the temperature.
    """
    with torch.autocast(text_features.device.type, enabled=False):
        wide = torch.promote_types(text_features.dtype, torch.float32)
        images = F.normalize(image_features.to(wide), dim=-1)
        texts = F.normalize(text_features.to(wide), dim=-1)
        similarity = (images * texts).sum(dim=-1)
        scale = getattr(model, "logit_scale", None)
        if not temperature or scale is None:
            return similarity
        return similarity * (scale if train_temperature else scale.detach()).exp()


@contextmanager
def gradients() -> Iterator[None]:
    """Record gradients, also for a caller under `no_grad` or `inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


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
