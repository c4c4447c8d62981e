"""The score S that the methods explain, and the embeddings it is differentiated at."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.models.towers import text_tower


def matched_similarity(
    model: nn.Module, image_features: Tensor, text_features: Tensor, temperature: bool
) -> Tensor:
    """S(I, T) of matched pairs `(B,)`, in float32 or wider also under autocast.

    Args:
        model: its `logit_scale` is tau^-1 before the exponential.
        image_features: `(B, E)`, of any length.
        text_features: `(B, E)`, not normalised.
        temperature: multiply the cosine by tau^-1.
    """
    with torch.autocast(text_features.device.type, enabled=False):
        wide = torch.promote_types(text_features.dtype, torch.float32)
        images = F.normalize(image_features.to(wide), dim=-1)
        texts = F.normalize(text_features.to(wide), dim=-1)
        similarity = (images * texts).sum(dim=-1)
        return similarity * model.logit_scale.exp() if temperature else similarity


def input_embeddings(model: nn.Module, tokens: Tensor) -> Tensor:
    """Token embeddings `(B, T, D)` that a gradient can be taken at, even of a frozen model."""
    tower = text_tower(model)
    length = int(tower.eot(tokens).max()) + 1
    embeddings = tower.token_embedding(tokens[:, :length])
    return embeddings if embeddings.requires_grad else embeddings.requires_grad_()
