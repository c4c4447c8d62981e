"""Compute heat maps: the relevance of image patches for the similarity with a caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.attribution.base import enable_gradients, matched_similarity
from cae_lib.attribution.gradcam import propagate_relevance, resolve_start_layer
from cae_lib.errors import DataError
from cae_lib.models.image_tower import encode_image

LAST_LAYER = -1
"""Start layer that the CLIP notebook of Chefer et al. uses: the last block alone."""


class ImageRelevances(NamedTuple):
    """Relevance of the patches of images; all tensors are detached.

    Attributes:
        maps: For each start layer, a tensor `(B, rows, columns)` over the grid of patches.
        image_features: `(B, E)`, normalised.
    """

    maps: list[Tensor]
    image_features: Tensor


def image_relevances(
    model: nn.Module,
    images: Tensor,
    text_features: Tensor,
    start_layers: Sequence[int] = (LAST_LAYER,),
) -> ImageRelevances:
    """Compute the relevance of each patch for the similarity of matched pairs.

    The rule is that of Chefer et al. (2021), applied to the image tower. S is the similarity,
    multiplied by exp(logit_scale) as in the CLIP notebook of these authors, and A^{l,h} holds the
    attention weights of head h in layer l. With `C^l = mean_h ReLU(dS/dA^{l,h} * A^{l,h})`, the
    rule starts from the identity matrix R and applies `R <- R + C^l R` from the start layer up. The
    map is `R[CLS, 1:]` on the grid of patches, where CLS is the class token or, in attention
    pooling, the mean of the patches. Its values are not negative, and float32 or wider.

    Args:
        model: A model of open_clip whose image tower is a vision transformer with a class token, or
            a timm network that ends in attention pooling.
        images: `(B, 3, height, width)`, normalised as the model's preprocessing does it.
        text_features: `(B, E)`, not necessarily normalised; row i belongs to image i.
        start_layers: First layers of the rule, one for each map; negative numbers count from the
            top, and 0 uses all layers.

    Raises:
        ConfigError: If the attention of the image tower cannot be read, or a layer in
            `start_layers` does not exist.
        DataError: If images and captions differ in number, or their features in width.
    """
    if len(images) != len(text_features):
        raise DataError(f"{len(images)} images with {len(text_features)} captions: need pairs.")
    with enable_gradients():
        # The images need a gradient so that the maps have one even in a frozen model.
        output = encode_image(model, images.detach().clone().requires_grad_(), attention=True)
        features = F.normalize(output.features, dim=-1)
        texts = text_features.detach().clone()
        similarity = matched_similarity(model, features, texts, use_temperature=True)
        attention_grads = torch.autograd.grad(similarity.sum(), output.attention)
    weights = [weight.detach() for weight in output.attention]
    readout = weights[-1].new_zeros(len(images), weights[-1].shape[-1])
    readout[:, 0] = 1  # the class token
    maps = []
    for start in start_layers:
        first = resolve_start_layer(start, len(weights))
        row = propagate_relevance(weights[first:], attention_grads[first:], readout)
        maps.append(row[:, 1:].unflatten(1, patch_grid(model.visual)))
    return ImageRelevances(maps, features.detach())


def patch_grid(tower: Any) -> tuple[int, int]:
    """Return the numbers of rows and columns in the grid of patches of an image tower.

    Args:
        tower: A vision transformer of open_clip, or a timm network that ends in attention pooling.
    """
    return tower.grid_size if hasattr(tower, "grid_size") else tower.head.pool.feat_size


def upsample(relevance: Tensor, height: int, width: int) -> Tensor:
    """Upsample maps `(B, rows, columns)` to `(B, height, width)`.

    Values are interpolated bilinearly between the centres of patches.
    """
    return F.interpolate(relevance.unsqueeze(1), (height, width), mode="bilinear").squeeze(1)


def relevance_shares(relevance: Tensor) -> Tensor:
    """Divide each map of `(B, rows, columns)` by its sum.

    A map whose sum is not positive, such as a map of zeros, becomes uniform, with the sum 1. A map
    with NaN becomes NaN everywhere.
    """
    total = relevance.sum(dim=(1, 2), keepdim=True)
    uniform = torch.full_like(relevance, 1 / relevance[0].numel())
    return torch.where(total <= 0, uniform, relevance / total.clamp(min=1e-30))
