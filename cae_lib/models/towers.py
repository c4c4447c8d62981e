"""CLIP's text tower over open_clip's own parameters, trimmed, and with its attention in reach.

The tower is causal and read at the end-of-text token (EOT). So positions after the batch's last EOT
change nothing and are not computed, and the last block computes the EOT position only. Features and
gradients equal those of open_clip's `encode_text` up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from open_clip import CLIP, CustomTextCLIP
from open_clip.transformer import ResidualAttentionBlock, TextTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cae_lib.errors import ConfigError

AttentionRecord = Literal["row", "path", "full"]


@dataclass(frozen=True)
class TextTower:
    """The parts of a text tower, wherever the model keeps them."""

    token_embedding: nn.Embedding
    positional_embedding: Tensor
    transformer: nn.Module
    ln_final: nn.Module
    text_projection: nn.Module | Tensor | None
    pool_type: str
    eos_id: int

    def eot(self, tokens: Tensor) -> Tensor:
        """Position `(B,)` of the end-of-text token in tokens `(B, T)`."""
        if self.pool_type == "argmax":
            return tokens.argmax(dim=-1)
        return (tokens == self.eos_id).int().argmax(dim=-1)

    def project(self, pooled: Tensor) -> Tensor:
        """Map the state at EOT `(B, D)` to features `(B, E)`."""
        pooled = self.ln_final(pooled)
        if self.text_projection is None:
            return pooled
        if isinstance(self.text_projection, nn.Module):
            return self.text_projection(pooled)
        return pooled @ self.text_projection


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


def text_tower(model: nn.Module) -> TextTower:
    """Find the text tower of a `CLIP` or `CustomTextCLIP` and check that it is causal, read at EOT.

    Raises:
        ConfigError: when trimming or reading the EOT row would not be exact for this tower.
    """
    if isinstance(model, CLIP):
        parts, pool, eos = model, model.text_pool_type, model.text_eos_id
    elif isinstance(model, CustomTextCLIP) and isinstance(model.text, TextTransformer):
        parts, pool, eos = model.text, model.text.pool_type, model.text.eos_id
    else:
        raise _unsupported(model, "it is no CLIP or CustomTextCLIP with a TextTransformer")
    if getattr(parts, "cls_emb", None) is not None:
        raise _unsupported(model, "it reads an appended class token, not the end-of-text token")
    if parts.attn_mask is None:
        raise _unsupported(model, "it has no causal mask, so later tokens change earlier ones")
    if pool not in ("argmax", "eos"):
        raise _unsupported(model, f"it pools by {pool!r}, not at the end-of-text token")
    if not all(isinstance(b, ResidualAttentionBlock) for b in parts.transformer.resblocks):
        raise _unsupported(model, "its blocks are not open_clip's ResidualAttentionBlock")
    return TextTower(
        token_embedding=parts.token_embedding,
        positional_embedding=parts.positional_embedding,
        transformer=parts.transformer,
        ln_final=parts.ln_final,
        text_projection=parts.text_projection,
        pool_type=pool,
        eos_id=eos,
    )


def _unsupported(model: nn.Module, reason: str) -> ConfigError:
    return ConfigError(
        f"the text tower of {type(model).__name__} is not supported: {reason}. Use a model with a "
        "causal text tower read at its end-of-text token, such as ViT-B-32."
    )


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
        attention: maps to return. "row": the EOT's row `(B, H, T)` of every layer, computed beside
            the fused kernel. "path": the maps the features are computed from, `(B, H, T, T)`, and
            `(B, H, 1, T)` in the last layer, of which only the EOT's row is used. "full":
            `(B, H, T, T)` in every layer. All are float32 or wider, and differentiable.
        embeddings: `(B, T, D)` to use in place of the token embeddings.
        second_order: avoid the fused kernel, which cannot be differentiated twice.

    Raises:
        ConfigError: for a tower that `text_tower` does not support.
    """
    tower = text_tower(model)
    eot = tower.eot(tokens)
    length = int(eot.max()) + 1
    if embeddings is None:
        embeddings = tower.token_embedding(tokens[:, :length])
    dtype = tower.transformer.get_cast_dtype()
    x = embeddings.to(dtype) + tower.positional_embedding[:length].to(dtype)
    explicit = second_order or attention in ("path", "full")
    maps: list[Tensor] = []
    for index, block in enumerate(tower.transformer.resblocks):
        last = index == len(tower.transformer.resblocks) - 1 and attention != "full"
        step = _last_block if last else _block
        arguments = (block, x, eot) if last else (block, x, eot, explicit, attention)
        if tower.transformer.grad_checkpointing and torch.is_grad_enabled():
            x, weights = checkpoint(step, *arguments, use_reentrant=False)
        else:
            x, weights = step(*arguments)
        if attention is not None:
            maps.append(weights[:, :, 0] if last and attention == "row" else weights)
    pooled = x[:, 0] if x.shape[1] == 1 else x[torch.arange(len(x), device=x.device), eot]
    return TextOutput(tower.project(pooled), maps, embeddings, eot)


def _block(
    block: ResidualAttentionBlock,
    x: Tensor,
    eot: Tensor,
    explicit: bool,
    attention: AttentionRecord | None,
) -> tuple[Tensor, Tensor | None]:
    """One block at every position: states `(B, T, D)` and the map asked for."""
    heads = block.attn.num_heads
    projected = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
    q, k, v = (_split_heads(part, heads) for part in projected.chunk(3, dim=-1))
    weights = None
    if explicit:
        weights = attention_weights(q, k, _causal(x.shape[1], x.device))
        mixed = weights.to(v.dtype) @ v
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    if attention == "row":
        rows = torch.arange(len(x), device=x.device)
        eot_query = q[rows, :, eot].unsqueeze(2)
        weights = attention_weights(eot_query, k, _until(eot, x.shape[1]))[:, :, 0]
    return _residual(block, x, mixed), weights


def _last_block(block: ResidualAttentionBlock, x: Tensor, eot: Tensor) -> tuple[Tensor, Tensor]:
    """The last block at EOT only: state `(B, 1, D)` and the EOT's row `(B, H, 1, T)`."""
    heads, width = block.attn.num_heads, x.shape[-1]
    weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
    rows = torch.arange(len(x), device=x.device)
    normed = block.ln_1(x)
    q = F.linear(normed[rows, eot].unsqueeze(1), weight[:width], bias[:width])
    k, v = F.linear(normed, weight[width:], bias[width:]).chunk(2, dim=-1)
    q, k, v = (_split_heads(part, heads) for part in (q, k, v))
    weights = attention_weights(q, k, _until(eot, x.shape[1]))
    return _residual(block, x[rows, eot].unsqueeze(1), weights.to(v.dtype) @ v), weights


def _residual(block: ResidualAttentionBlock, x: Tensor, mixed: Tensor) -> Tensor:
    """Add the attention's output `(B, H, Q, D/H)` and the MLP to the states `(B, Q, D)`."""
    merged = mixed.transpose(1, 2).flatten(2)
    x = x + block.ls_1(block.attn.out_proj(merged))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def attention_weights(q: Tensor, k: Tensor, allowed: Tensor) -> Tensor:
    """Softmax attention of queries `(B, H, Q, d)` over keys `(B, H, T, d)`, in float32 or wider.

    Args:
        q: queries.
        k: keys.
        allowed: bool, broadcastable to `(B, H, Q, T)`: the keys each query may read.
    """
    with torch.autocast(q.device.type, enabled=False):
        wide = torch.promote_types(q.dtype, torch.float32)
        scores = (q.to(wide) * q.shape[-1] ** -0.5) @ k.to(wide).transpose(-1, -2)
        return scores.masked_fill(~allowed, float("-inf")).softmax(dim=-1)


def _split_heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, T, D) -> (B, H, T, D/H)


def _causal(length: int, device: torch.device) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def _until(eot: Tensor, length: int) -> Tensor:
    """Keys up to each caption's EOT, `(B, 1, 1, T)`."""
    return (torch.arange(length, device=eot.device) <= eot[:, None])[:, None, None]
