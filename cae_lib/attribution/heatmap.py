"""Where in the picture a caption's similarity comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.attribution.base import gradients, matched_similarity
from cae_lib.attribution.gradcam import first_layer, propagated
from cae_lib.errors import DataError
from cae_lib.models.image_tower import encode_image

# First layer of the rule in the CLIP notebook of Chefer et al.: the last block alone.
LAST_LAYER = -1


class ImageRelevances(NamedTuple):
    """Maps `(B, rows, columns)` of each start layer, and normalised image features `(B, E)`."""

    maps: list[Tensor]
    image_features: Tensor


def image_relevances(
    model: nn.Module,
    images: Tensor,
    text_features: Tensor,
    start_layers: Sequence[int] = (LAST_LAYER,),
) -> ImageRelevances:
    """Relevance of each patch for the similarity of matched pairs, by Chefer et al. (2021).

    With `C^l = mean_h ReLU(dS/dA^{l,h} * A^{l,h})` in the image tower, `R <- R + C^l R` from
    `R = I`, the map is `R[CLS, 1:]` on the patch grid: not negative, float32 or wider, detached. S
    includes exp(logit_scale), as in the authors' CLIP notebook. ConfigError for a tower without
    such maps or layers, DataError when pictures and captions differ in number.

    Args:
        model: of open_clip, its image tower a plain vision transformer.
        images: `(B, 3, H, W)`, normalised.
        text_features: `(B, E)`, of any length; row i belongs to picture i.
        start_layers: first layers of the rule, negative ones from the top; 0 takes all layers.
    """
    if len(images) != len(text_features):
        raise DataError(f"{len(images)} pictures with {len(text_features)} captions: need pairs.")
    with gradients():
        # The pictures need a gradient so that the maps have one even in a frozen model.
        output = encode_image(model, images.detach().clone().requires_grad_(), attention=True)
        features = F.normalize(output.features, dim=-1)
        texts = text_features.detach().clone()
        similarity = matched_similarity(model, features, texts, temperature=True)
        slopes = torch.autograd.grad(similarity.sum(), output.attention)
    weights = [weight.detach() for weight in output.attention]
    readout = weights[-1].new_zeros(len(images), weights[-1].shape[-1])
    readout[:, 0] = 1  # the class token
    maps = []
    for start in start_layers:
        first = first_layer(start, len(weights))
        row = propagated(weights[first:], slopes[first:], readout)
        maps.append(row[:, 1:].unflatten(1, patch_grid(model.visual)))
    return ImageRelevances(maps, features.detach())


def patch_grid(tower: nn.Module) -> tuple[int, int]:
    """Rows and columns of patches of open_clip's transformer, or of the attention pooling that a
    network of timm ends in."""
    return tower.grid_size if hasattr(tower, "grid_size") else tower.head.pool.feat_size


def upsampled(relevance: Tensor, height: int, width: int) -> Tensor:
    """Maps `(B, rows, columns)` at a picture's size, bilinear, a patch's value at its centre."""
    return F.interpolate(relevance.unsqueeze(1), (height, width), mode="bilinear").squeeze(1)


def shares(relevance: Tensor) -> Tensor:
    """Maps `(B, rows, columns)` divided by their sums; a map of zeros becomes uniform."""
    total = relevance.sum(dim=(1, 2), keepdim=True)
    uniform = torch.full_like(relevance, 1 / relevance[0].numel())
    return torch.where(total > 0, relevance / total.clamp(min=1e-30), uniform)
