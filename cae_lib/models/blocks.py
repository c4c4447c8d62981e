"""One residual attention block over open_clip's own parameters, with its attention in reach.

`nn.MultiheadAttention` returns maps that are not on the path to its output (their gradient is
None), and the fused kernel has no double backward. So the block is written out here; its layers and
weights stay those of `open_clip.transformer.ResidualAttentionBlock`.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn

AttentionRecord = Literal["row", "maps"]

QUICK = 1.702
"""The factor of QuickGELU, `x * sigmoid(1.702 * x)`."""


def project_heads(block: ResidualAttentionBlock, normed: Tensor, parts: str) -> Tensor:
    """Queries, keys and values of normed states `(..., D)`, side by side.

    Args:
        block: the block whose projection is used.
        normed: states after `ln_1`.
        parts: "qkv", "q" or "kv".

    Returns:
        `(..., n * D)` for n parts.
    """
    width = block.attn.embed_dim
    start, stop = {"qkv": (0, 3), "q": (0, 1), "kv": (1, 3)}[parts]
    rows = slice(start * width, stop * width)
    return F.linear(normed, block.attn.in_proj_weight[rows], block.attn.in_proj_bias[rows])


def split_heads(projected: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """`(B, T, n * D)` as n tensors `(B, H, T, D/H)`."""
    return projected.unflatten(-1, (parts, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def merge_heads(mixed: Tensor) -> Tensor:
    """`(B, H, T, D/H)` as `(B, T, D)`."""
    return mixed.transpose(1, 2).flatten(2)


def attention_weights(q: Tensor, k: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Softmax attention in float32 or wider, also under autocast.

    Args:
        q: queries `(B, H, Q, d)`.
        k: keys `(B, H, T, d)`.
        allowed: bool, broadcastable to `(B, H, Q, T)`: the keys each query may read; None for all.
    """
    with torch.autocast(q.device.type, enabled=False):
        wide = torch.promote_types(q.dtype, torch.float32)
        scores = (q.to(wide) * q.shape[-1] ** -0.5) @ k.to(wide).transpose(-1, -2)
        if allowed is not None:
            scores = scores.masked_fill(~allowed, float("-inf"))
        return scores.softmax(dim=-1)


def finish_block(block: ResidualAttentionBlock, x: Tensor, merged: Tensor) -> Tensor:
    """Add the attention's output and the MLP to the states `(..., D)`."""
    x = x + block.ls_1(block.attn.out_proj(merged))
    return x + block.ls_2(_mlp(block.mlp, block.ln_2(x)))


def _mlp(mlp: nn.Sequential, x: Tensor) -> Tensor:
    """The MLP of a block; QuickGELU by one kernel in place of the eight of its two directions.

    `x * sigmoid(a * x) = silu(a * x) / a`, and a is put into the weights before and after.
    """
    if [type(layer) for layer in mlp] != [nn.Linear, QuickGELU, nn.Linear]:
        return mlp(x)
    first, _, second = mlp
    hidden = F.linear(x, QUICK * first.weight, QUICK * first.bias)
    return F.linear(F.silu(hidden), second.weight / QUICK, second.bias)


def causal(length: int, device: torch.device) -> Tensor:
    """Keys up to each query, `(T, T)`."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def until(last: Tensor, length: int) -> Tensor:
    """Keys up to position `last` of each row, `(B, 1, 1, T)`."""
    return (torch.arange(length, device=last.device) <= last[:, None])[:, None, None]
