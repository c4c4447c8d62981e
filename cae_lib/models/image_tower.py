"""CLIP's image tower over open_clip's own parameters, read at the class token."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from open_clip.timm_model import AbsAttentionPool2d, TimmModel
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from cae_lib.errors import ConfigError
from cae_lib.models.blocks import alteration, attend, encodes_by_own, finish_block, heads_of, run
from cae_lib.models.recording import recording


@dataclass(frozen=True)
class ImageOutput:
    """What `encode_image` returns; T is 1 + the number of patches.

    Attributes:
        features: `(B, E)`, not normalised, equal to `model.encode_image(images)`.
        attention: if asked for, a map of each layer `(B, H, T, T)`, of the last one `(B, H, 1, T)`.
    """

    features: Tensor
    attention: list[Tensor]


def encode_image(model: nn.Module, images: Tensor, *, attention: bool = False) -> ImageOutput:
    """Encode images `(B, 3, H, W)`, normalised, by the model's own code unless it has open_clip's
    unaltered transformer; of that the last block computes the class token only.

    `attention` also returns the maps the features are computed from, float32 or wider, which can be
    differentiated twice; a ConfigError for a tower that is not read at such a token. A network of
    timm that ends in "abs_attn" has one, of its pooling, whose first token is the patches' mean.
    """
    tower = model.visual
    plain = _reads_class_token(tower) and encodes_by_own(model, "image")
    if not plain or alteration([tower]) is not None:
        if attention and not (_reads_class_token(tower) or _pools_by_attention(tower)):
            raise ConfigError(
                f"no attention maps for the image tower {type(tower).__name__}: it is not a "
                "vision transformer read at its class token, such as that of ViT-B-32, nor does it "
                "end in timm's attention pooling."
            )
        with recording(tower) if attention else nullcontext([]) as maps:
            return ImageOutput(model.encode_image(images), maps)
    x, maps = _embed(tower, images), []
    *blocks, last = tower.transformer.resblocks
    for block in (*blocks, last):
        x, weights = run(tower.transformer, _block, block, x, block is last, attention)
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


def _pools_by_attention(tower: nn.Module) -> bool:
    head = tower.head if isinstance(tower, TimmModel) else ()
    return any(isinstance(layer, AbsAttentionPool2d) for layer in head)


def _embed(tower: VisionTransformer, images: Tensor) -> Tensor:
    """States `(B, T, D)` before the first block; the patches by one product, which is faster."""
    batch, channels, height, width = images.shape
    conv, (high, wide) = tower.conv1, tower.conv1.kernel_size
    usual = conv.bias is None and conv.stride == conv.kernel_size
    if images.is_cuda or not usual or height % high or width % wide:
        return tower._embeds(images)
    cut = images.reshape(batch, channels, height // high, high, width // wide, wide)
    patches = cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    x = F.linear(patches, conv.weight.flatten(1))
    first = tower.class_embedding.to(x.dtype).expand(batch, 1, -1)
    x = torch.cat([first, x], dim=1) + tower.positional_embedding.to(x.dtype)
    return tower.ln_pre(tower.patch_dropout(x))


def _block(
    block: ResidualAttentionBlock, x: Tensor, last: bool, attention: bool
) -> tuple[Tensor, Tensor | None]:
    """One block: states `(B, T, D)`, in the last block `(B, 1, D)`, and its map if asked for."""
    normed = block.ln_1(x)
    if last:
        x = x[:, :1]
        (q,) = heads_of(block, normed[:, :1], "q")
        k, v = heads_of(block, normed, "kv")
    else:
        q, k, v = heads_of(block, normed, "qkv")
    fused_is_slower = not x.is_cuda and torch.is_grad_enabled()
    mixed, weights = attend(q, k, v, explicit=attention or fused_is_slower)
    return finish_block(block, x, mixed), weights
