"""The score S that the methods explain, and the inputs it is differentiated at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.errors import ConfigError
from cae_lib.models.text_encoder import TextEncoder, text_encoder


def matched_similarity(
    model: nn.Module,
    image_features: Tensor,
    text_features: Tensor,
    temperature: bool,
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


def scored_inputs(
    model: nn.Module | TextEncoder, tokens: Tensor, image_features: Tensor
) -> tuple[TextEncoder, Tensor, Tensor]:
    """The encoder of a model, and inputs that autograd may keep.

    Raises:
        ConfigError: for an unknown model, or inputs that are not on its device.
    """
    encoder = text_encoder(model)
    device = next(encoder.model.parameters()).device
    for name, value in (("tokens", tokens), ("image_features", image_features)):
        if value.device != device:
            raise ConfigError(
                f"{name} are on {value.device}, the model is on {device}: move one of them."
            )
    return encoder, _kept(tokens), _kept(image_features)


@contextmanager
def gradients() -> Iterator[None]:
    """Record gradients, also for a caller under `no_grad` or `inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def input_embeddings(encoder: TextEncoder, tokens: Tensor) -> Tensor:
    """Token embeddings `(B, S, D)` that a gradient can be taken at, even of a frozen model."""
    embeddings = encoder.embed(tokens)
    return embeddings if embeddings.requires_grad else embeddings.requires_grad_()


def _kept(value: Tensor) -> Tensor:
    """The tensor itself, or a copy of an inference tensor."""
    return value.clone() if value.is_inference() else value
