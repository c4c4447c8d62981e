"""CLIP's image tower, with access to its attention maps."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.timm_model import (
    AbsAttentionPool2d,  # pyright: ignore[reportPrivateImportUsage]
    TimmModel,
)
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from cae_lib.errors import ConfigError
from cae_lib.models.blocks import (
    OPEN_CLIP_MODELS,
    attend,
    find_modification,
    finish_block,
    project_heads,
    run_layer,
)
from cae_lib.models.recording import record_attention


@dataclass(frozen=True)
class ImageOutput:
    """Output of `encode_image`.

    Attributes:
        features: `(B, E)`, not normalised, equal to `model.encode_image(images)` up to rounding.
        attention: A map `(B, H, T, T)` for each layer, with T = 1 + the number of patches, or a
            single one for timm's attention pooling; empty unless requested. From functional blocks,
            the last map has only the row of the class token, `(B, H, 1, T)`.
    """

    features: Tensor
    attention: list[Tensor]


def encode_image(model: nn.Module, images: Tensor, *, attention: bool = False) -> ImageOutput:
    """Encode images `(B, 3, height, width)`, normalised, by the image tower of an open_clip model.

    With `attention`, also return the maps that the features are computed from, float32 or wider and
    differentiable twice: those of a vision transformer that is read at its class token, or the one
    of timm's attention pooling, whose first token is the mean of the patches. Any other tower
    raises ConfigError.
    """
    tower: Any = model.visual
    # Modified towers and other types are exact only in their own code.
    if (
        type(model) not in OPEN_CLIP_MODELS
        or not _reads_class_token(tower)
        or find_modification([tower]) is not None
    ):
        if attention and not (_reads_class_token(tower) or _pools_by_attention(tower)):
            raise ConfigError(
                f"no attention maps for the image tower {type(tower).__name__}: it is not a "
                "vision transformer read at its class token, such as that of ViT-B-32, nor does it "
                "end in timm's attention pooling."
            )
        encode: Any = model.encode_image
        with record_attention(tower) if attention else nullcontext([]) as maps:
            features = encode(images)
        # Recording replaces `scaled_dot_product_attention`, which this tower never called.
        if attention and not maps:
            raise ConfigError(
                f"no attention maps for the image tower {type(tower).__name__}: it does not call "
                "torch's scaled_dot_product_attention. For a timm network, unset TIMM_FUSED_ATTN."
            )
        return ImageOutput(features, maps)
    x, maps = _embed_patches(tower, images), []
    # Features are read at the class token alone, so the last block has one query.
    *blocks, last = tower.transformer.resblocks
    for block in (*blocks, last):
        x, weights = run_layer(tower.transformer, _run_block, block, x, block is last, attention)
        maps.append(weights)
    pooled = tower.ln_post(x[:, 0])
    features = pooled if tower.proj is None else pooled @ tower.proj
    return ImageOutput(features, maps if attention else [])


def _reads_class_token(tower: nn.Module) -> bool:
    return (
        isinstance(tower, VisionTransformer)
        and not tower.output_tokens
        and tower.attn_pool is None
        and tower.pool_type == "tok"
    )


def _pools_by_attention(tower: Any) -> bool:
    head = tower.head if isinstance(tower, TimmModel) else ()
    return any(isinstance(layer, AbsAttentionPool2d) for layer in head)


def _embed_patches(tower: VisionTransformer, images: Tensor) -> Tensor:
    """Return the states `(B, T, D)` of the class token and the patches before the first block."""
    batch, channels, height, width = images.shape
    conv, (patch_height, patch_width) = tower.conv1, tower.conv1.kernel_size
    is_patch_product = conv.bias is None and conv.stride == conv.kernel_size
    fits = height % patch_height == 0 and width % patch_width == 0
    # On a CPU, one matrix product over patches that do not overlap is faster than convolution.
    if images.is_cuda or not is_patch_product or not fits:
        return tower._embeds(images)
    size = (height // patch_height, patch_height, width // patch_width, patch_width)
    # (B, channels, rows, patch height, columns, patch width) to (B, rows * columns, values of a
    # patch), in the order of the convolution's weight
    cut = images.reshape(batch, channels, *size)
    patches = cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    x = F.linear(patches, conv.weight.flatten(1))
    class_token = tower.class_embedding.to(x.dtype).expand(batch, 1, -1)
    x = torch.cat([class_token, x], dim=1) + tower.positional_embedding.to(x.dtype)
    # In open_clip's order: patches are dropped after positions are added.
    return tower.ln_pre(tower.patch_dropout(x))


def _run_block(
    block: ResidualAttentionBlock, x: Tensor, is_last: bool, attention: bool
) -> tuple[Tensor, Tensor | None]:
    """Run a block and return its states and attention map; the last block has only the class token.

    States are `(B, T, D)` and the map is `(B, H, T, T)`, or `(B, 1, D)` and `(B, H, 1, T)` of the
    last block. The map is None if the fused kernel was used.
    """
    normed = block.ln_1(x)
    if is_last:
        x = x[:, :1]
        (q,) = project_heads(block, normed[:, :1], "q")
        k, v = project_heads(block, normed, "kv")
    else:
        q, k, v = project_heads(block, normed, "qkv")
    # On a CPU, the fused kernel is slower in training.
    fused_is_slower = not x.is_cuda and torch.is_grad_enabled()
    mixed, weights = attend(q, k, v, explicit=attention or fused_is_slower)
    return finish_block(block, x, mixed), weights
