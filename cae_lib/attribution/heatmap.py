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

    The rule is that of `GradcamAttribution`, applied to the image tower; a map is `R[CLS, 1:]` on
    the grid of patches. CLS is the class token or, in attention pooling, the mean of the patches.
    There is one map for each of `start_layers`. `images` are `(B, 3, height, width)`, normalised.
    """
    if len(images) != len(text_features):
        raise DataError(f"{len(images)} images with {len(text_features)} captions: need pairs.")
    with enable_gradients():
        # The images need a gradient so that the maps have one even in a frozen model.
        output = encode_image(model, images.detach().clone().requires_grad_(), attention=True)
        features = F.normalize(output.features, dim=-1)
        # A clone, because autograd cannot save a tensor that was made in inference mode.
        texts = text_features.detach().clone()
        # S includes the factor exp(logit_scale), as in the CLIP notebook of Chefer et al.
        similarity = matched_similarity(model, features, texts, use_temperature=True)
        # dS/dA does not depend on the start layer, so one backward pass serves all maps.
        attention_grads = torch.autograd.grad(similarity.sum(), output.attention)
    weights = [weight.detach() for weight in output.attention]
    readout = weights[-1].new_zeros(len(images), weights[-1].shape[-1])
    # The features are read at the class token, which is the first.
    readout[:, 0] = 1
    maps = []
    for start in start_layers:
        first = resolve_start_layer(start, len(weights))
        row = propagate_relevance(weights[first:], attention_grads[first:], readout)
        # The class token is no patch.
        maps.append(row[:, 1:].unflatten(1, patch_grid(model.visual)))
    return ImageRelevances(maps, features.detach())


def patch_grid(tower: Any) -> tuple[int, int]:
    """Return the numbers of rows and columns in the grid of patches of an image tower."""
    # A vision transformer of open_clip has `grid_size`; else it is timm's attention pooling.
    return tower.grid_size if hasattr(tower, "grid_size") else tower.head.pool.feat_size


def upsample(relevance: Tensor, height: int, width: int) -> Tensor:
    """Upsample maps `(B, rows, columns)` bilinearly to `(B, height, width)`."""
    return F.interpolate(relevance.unsqueeze(1), (height, width), mode="bilinear").squeeze(1)


def relevance_shares(relevance: Tensor) -> Tensor:
    """Divide each map of `(B, rows, columns)` by its sum; a map of zeros becomes uniform."""
    total = relevance.sum(dim=(1, 2), keepdim=True)
    uniform = torch.full_like(relevance, 1 / relevance[0].numel())
    # A comparison with NaN is False, so that a map with NaN becomes NaN and not uniform.
    return torch.where(total <= 0, uniform, relevance / total.clamp(min=1e-30))
