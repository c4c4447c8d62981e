"""CLIP's text tower over open_clip's own parameters, without work that cannot reach its output.

The tower is causal and read at the end-of-text token (EOT). So nothing after a caption's EOT is
computed, and the last block computes the EOT position only. Features and gradients equal those of
open_clip's `encode_text` up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cae_lib.models.blocks import (
    AttentionRecord,
    attention_weights,
    causal,
    finish_block,
    merge_heads,
    project_heads,
    split_heads,
    until,
)
from cae_lib.models.packing import Packing, pack_rows
from cae_lib.models.text_tower import TextTower, text_tower


@dataclass(frozen=True)
class TextOutput:
    """What `encode_text` returns; T is the length of the batch's longest caption.

    Attributes:
        features: `(B, E)`, not normalised, equal to `model.encode_text(tokens)`.
        attention: one map per layer, empty unless asked for; shapes under `encode_text`.
        embeddings: token embeddings `(B, T, D)`, before the position is added.
        eot: position of the end-of-text token `(B,)`.
    """

    features: Tensor
    attention: list[Tensor]
    embeddings: Tensor
    eot: Tensor


def encode_text(
    model: nn.Module,
    tokens: Tensor,
    *,
    attention: AttentionRecord | None = None,
    embeddings: Tensor | None = None,
    second_order: bool = False,
) -> TextOutput:
    """Encode captions, computing only what reaches the end-of-text token.

    Args:
        model: open_clip `CLIP` or `CustomTextCLIP`.
        tokens: `(B, context_length)` token ids, or fewer columns that still hold every EOT.
        attention: maps to return, float32 or wider and differentiable. "row": the EOT's row
            `(B, H, T)` of every layer. "path": the maps the features are computed from,
            `(B, H, T, T)`, and `(B, H, 1, T)` in the last layer, of which only the EOT's row is
            used; rows after a caption's EOT repeat it. "full": `(B, H, T, T)` in every layer, 0 in
            rows and columns after EOT.
        embeddings: `(B, T, D)` to use in place of the token embeddings.
        second_order: avoid the fused kernel, which cannot be differentiated twice.

    Raises:
        ConfigError: for a tower that `text_tower` does not support.
    """
    tower = text_tower(model)
    packing = pack_rows(tower.eot(tokens))
    if embeddings is None:
        embeddings = tower.token_embedding(tokens[:, : packing.length])
    features, maps = encode_packed(
        tower,
        packing.pack(embeddings),
        packing,
        attention=attention,
        second_order=second_order,
    )
    if attention == "full":
        kept = until(packing.eot, packing.length)
        maps = [m * kept * kept.transpose(-1, -2) for m in maps]
    return TextOutput(features, maps, embeddings, packing.eot)


def encode_packed(
    tower: TextTower,
    embeddings: Tensor,
    packing: Packing,
    *,
    attention: AttentionRecord | None = None,
    second_order: bool = False,
) -> tuple[Tensor, list[Tensor]]:
    """Run the tower over packed token embeddings `(N, D)`.

    Returns:
        Features `(R, E)`, not normalised, and the attention maps asked for (see `encode_text`).
    """
    dtype = tower.transformer.get_cast_dtype()
    x = embeddings.to(dtype) + tower.positional_embedding[packing.positions].to(dtype)
    explicit = second_order or attention in ("path", "full") or not _fused_is_faster(x.device)
    blocks = tower.transformer.resblocks
    maps: list[Tensor] = []
    for index, block in enumerate(blocks):
        if index == len(blocks) - 1 and attention != "full":
            step, arguments = _last_block, (block, x, packing)
        else:
            step, arguments = _block, (block, x, packing, explicit, attention)
        if tower.transformer.grad_checkpointing and torch.is_grad_enabled():
            x, weights = checkpoint(step, *arguments, use_reentrant=False)
        else:
            x, weights = step(*arguments)
        if attention == "row":
            weights = weights.flatten(2)
        maps.append(weights)
    if attention == "full":
        x = x.index_select(0, packing.ends)
    return tower.project(x), maps if attention else []


def _fused_is_faster(device: torch.device) -> bool:
    """Whether to prefer the fused kernel; on a CPU it loses in training at a caption's length."""
    return device.type != "cpu" or not torch.is_grad_enabled()


def _block(
    block: ResidualAttentionBlock,
    x: Tensor,
    packing: Packing,
    explicit: bool,
    attention: AttentionRecord | None,
) -> tuple[Tensor, Tensor | None]:
    """One block at every position: states `(N, D)` and the map asked for."""
    projected = packing.spread(project_heads(block, block.ln_1(x), "qkv"))
    q, k, v = split_heads(projected, 3, block.attn.num_heads)
    weights = None
    if explicit:
        weights = attention_weights(q, k, causal(packing.length, x.device))
        mixed = weights.to(v.dtype) @ v
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    if attention == "row":
        rows = torch.arange(len(q), device=x.device)
        if weights is not None:
            weights = weights[rows, :, packing.eot]
        else:
            eot_query = q[rows, :, packing.eot].unsqueeze(2)
            weights = attention_weights(eot_query, k, until(packing.eot, packing.length))
    return finish_block(block, x, packing.pack(merge_heads(mixed))), weights


def _last_block(
    block: ResidualAttentionBlock, x: Tensor, packing: Packing
) -> tuple[Tensor, Tensor]:
    """The last block at EOT only: states `(R, D)` and the EOT's row `(R, H, 1, T)`."""
    heads = block.attn.num_heads
    normed = block.ln_1(x)
    ends = normed.index_select(0, packing.ends).unsqueeze(1)
    (q,) = split_heads(project_heads(block, ends, "q"), 1, heads)
    k, v = split_heads(packing.spread(project_heads(block, normed, "kv")), 2, heads)
    weights = attention_weights(q, k, until(packing.eot, packing.length))
    mixed = merge_heads(weights.to(v.dtype) @ v).squeeze(1)
    return finish_block(block, x.index_select(0, packing.ends), mixed), weights
