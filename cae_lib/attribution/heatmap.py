"""Where in the picture a caption's similarity comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.attribution.gradcam import propagated
from cae_lib.attribution.similarity import gradients, matched_similarity
from cae_lib.errors import ConfigError, DataError
from cae_lib.models.image_tower import encode_image

LAST_LAYER = -1
"""First layer of the rule in the CLIP notebook of Chefer et al.: the last block alone."""


def image_relevance(
    model: nn.Module,
    images: Tensor,
    text_features: Tensor,
    *,
    start_layer: int = LAST_LAYER,
    temperature: bool = True,
) -> Tensor:
    """Relevance of each patch for the similarity of matched pairs, by Chefer et al. (2021).

    With `C^l = mean_h ReLU(dS/dA^{l,h} * A^{l,h})` in the image tower, `R <- R + C^l R` from
    `R = I`, the map is `R[CLS, 1:]` on the patch grid. S is the similarity of each picture with its
    own caption, `exp(logit_scale)` included, as in the authors' CLIP notebook.

    Args:
        model: open_clip model whose image tower is a plain vision transformer.
        images: `(B, 3, H, W)`, normalised.
        text_features: `(B, E)`; row i belongs to picture i.
        start_layer: first layer of the rule, negative ones from the top; 0 takes all layers.
        temperature: let S include exp(logit_scale), which scales a map but not its shape in the
            last layer.

    Returns:
        `(B, rows, columns)`, detached, not negative, float32 or wider.

    Raises:
        ConfigError: for a layer that the tower does not have, or a tower without such maps.
        DataError: when pictures and captions differ in number.
    """
    return image_relevances(model, images, text_features, (start_layer,), temperature).maps[0]


@dataclass(frozen=True)
class ImageRelevances:
    """Maps of several start layers, with what was computed on the way.

    Attributes:
        maps: for each start layer `(B, rows, columns)`.
        image_features: `(B, E)`, normalised, detached.
    """

    maps: list[Tensor]
    image_features: Tensor


def image_relevances(
    model: nn.Module,
    images: Tensor,
    text_features: Tensor,
    start_layers: Sequence[int],
    temperature: bool = True,
) -> ImageRelevances:
    """The maps of `image_relevance` for several start layers, from one pass."""
    if len(images) != len(text_features):
        raise DataError(f"{len(images)} pictures with {len(text_features)} captions: need pairs.")
    with gradients():
        # The pictures need a gradient so that the maps have one even in a frozen model.
        output = encode_image(model, images.detach().clone().requires_grad_(), attention=True)
        features = F.normalize(output.features, dim=-1)
        texts = text_features.detach().clone()
        similarity = matched_similarity(model, features, texts, temperature)
        slopes = torch.autograd.grad(similarity.sum(), output.attention)
    weights = [weight.detach() for weight in output.attention]
    grid = model.visual.grid_size
    rows = [_class_row(weights, slopes, start) for start in start_layers]
    return ImageRelevances([row[:, 1:].unflatten(1, grid) for row in rows], features.detach())


def upsampled(relevance: Tensor, height: int, width: int) -> Tensor:
    """Maps `(B, rows, columns)` at a picture's size `(B, height, width)`, bilinear as in CLIP's
    notebook; a patch's value stands at its centre."""
    return F.interpolate(relevance.unsqueeze(1), (height, width), mode="bilinear").squeeze(1)


def shares(relevance: Tensor) -> Tensor:
    """Maps `(B, rows, columns)` divided by their sums; a map of zeros becomes uniform."""
    total = relevance.sum(dim=(1, 2), keepdim=True)
    uniform = torch.full_like(relevance, 1 / relevance[0].numel())
    return torch.where(total > 0, relevance / total.clamp(min=1e-30), uniform)


def _class_row(maps: Sequence[Tensor], slopes: Sequence[Tensor], start_layer: int) -> Tensor:
    """Row of R `(B, T)` at the class token."""
    depth = len(maps)
    if not -depth <= start_layer < depth:
        raise ConfigError(f"start_layer={start_layer} does not fit a tower of {depth} layers.")
    first = start_layer % depth
    readout = maps[-1].new_zeros(len(maps[-1]), maps[-1].shape[-1])
    readout[:, 0] = 1
    return propagated(maps[first:], slopes[first:], readout)
