"""Heat maps: which patches of an image a caption's similarity comes from."""

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
"""First layer of the rule in the CLIP notebook of Chefer et al.: the last block alone."""


class ImageRelevances(NamedTuple):
    """Relevance of the patches of images.

    Attributes:
        maps: One tensor `(B, rows, columns)` for each start layer.
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

    By the rule of Chefer et al. (2021) with `C^l = mean_h ReLU(dS/dA^{l,h} * A^{l,h})` in the image
    tower and `R <- R + C^l R` from `R = I`, the map is `R[CLS, 1:]` on the patch grid: not
    negative, float32 or wider, detached. S includes exp(logit_scale), as in the authors' notebook.

    Args:
        model: A model of open_clip, its image tower a plain vision transformer.
        images: `(B, 3, H, W)`, normalised.
        text_features: `(B, E)`, of any length; row i belongs to image i.
        start_layers: First layers of the rule, negative ones from the top; 0 takes all layers.

    Raises:
        ConfigError: The tower has no such maps or layers.
        DataError: Images and captions differ in number.
    """
    if len(images) != len(text_features):
        raise DataError(f"{len(images)} images with {len(text_features)} captions: need pairs.")
    with enable_gradients():
        # The images need a gradient so that the maps have one even in a frozen model.
        output = encode_image(model, images.detach().clone().requires_grad_(), attention=True)
        features = F.normalize(output.features, dim=-1)
        texts = text_features.detach().clone()
        similarity = matched_similarity(model, features, texts, temperature=True)
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
    """Return the rows and columns of patches of a vision transformer, or of timm's pooling."""
    return tower.grid_size if hasattr(tower, "grid_size") else tower.head.pool.feat_size


def upsample(relevance: Tensor, height: int, width: int) -> Tensor:
    """Scale maps `(B, rows, columns)` to an image's size, bilinearly between patch centres."""
    return F.interpolate(relevance.unsqueeze(1), (height, width), mode="bilinear").squeeze(1)


def shares(relevance: Tensor) -> Tensor:
    """Divide maps `(B, rows, columns)` by their sums; a map of zeros becomes uniform."""
    total = relevance.sum(dim=(1, 2), keepdim=True)
    uniform = torch.full_like(relevance, 1 / relevance[0].numel())
    return torch.where(total > 0, relevance / total.clamp(min=1e-30), uniform)
