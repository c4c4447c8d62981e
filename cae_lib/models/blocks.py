"""Functional versions of open_clip's residual attention block.

They read the parameters of the block's own modules. With explicit attention they return attention
maps and support double backward, which the fused kernel behind `nn.MultiheadAttention` does not.
Up to rounding, they are exact for towers in which `find_modification` finds nothing; other towers
run their own code.

Shapes: B images or texts, H heads, T positions, D the width of the states, d = D / H.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from open_clip import CLIP, CustomTextCLIP, transformer
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.utils.checkpoint import checkpoint

OPEN_CLIP_MODELS = (CLIP, CustomTextCLIP)
"""Classes whose towers may run as functional versions. Other classes, such as CoCa or subclasses of
these, are excluded, because they may encode in other ways."""

KNOWN_MODULES = (
    transformer.Attention,
    transformer.LayerNorm,
    transformer.LayerNormFp32,
    transformer.LayerScale,
    transformer.PatchDropout,
    QuickGELU,
    ResidualAttentionBlock,
    transformer.TextTransformer,
    transformer.Transformer,
    transformer.VisionTransformer,
    nn.Conv2d,
    nn.Dropout,
    nn.Embedding,
    nn.GELU,
    nn.Identity,
    nn.LayerNorm,
    nn.Linear,
    nn.ModuleList,
    nn.MultiheadAttention,
    nn.Sequential,
    NonDynamicallyQuantizableLinear,
)
"""Types of modules that the functional towers can replace. Adapters, parametrizations, quantized
and sharded layers have other types."""

HOOK_ATTRIBUTES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""Attributes in which `nn.Module` keeps the hooks that act in a forward or backward pass."""

QUICK_GELU_FACTOR = 1.702  # QuickGELU is `x * sigmoid(1.702 * x)`


def find_modification(roots: Iterable[nn.Module]) -> str | None:
    """Describe the first module that the functional towers cannot reproduce.

    Such a module has a type outside `KNOWN_MODULES`, a `forward` that was replaced on the instance,
    hooks, or a dropout rate above 0; or it computes attention in another way than by a plain
    softmax with biases.

    Args:
        roots: Modules to search, with all their submodules.

    Returns:
        A phrase for a message, such as "ln_final has hooks"; None if there is no such module.
    """
    for root in roots:
        for name, module in root.named_modules():
            name = name or type(root).__name__
            if type(module) not in KNOWN_MODULES:
                return f"{name} is a {type(module).__name__}"
            if "forward" in vars(module):
                return f"{name} has a replaced forward"
            if any(getattr(module, hooks) for hooks in HOOK_ATTRIBUTES):
                return f"{name} has hooks"
            if isinstance(module, nn.Dropout) and module.p:
                return f"{name} drops activations"
            attends = isinstance(module, (nn.MultiheadAttention, transformer.Attention))
            if attends and not _has_plain_softmax(module):
                return f"{name} has unusual settings of attention"
    return None


def _has_plain_softmax(attention: nn.MultiheadAttention | transformer.Attention) -> bool:
    """Return whether a module computes softmax attention with biases and nothing else."""
    if attention.in_proj_weight is None or attention.in_proj_bias is None:
        return False
    if isinstance(attention, nn.MultiheadAttention):
        adds_or_drops = attention.dropout or attention.add_zero_attn or attention.bias_k is not None
        return not adds_or_drops
    norms = (attention.ln_q, attention.ln_k, attention.ln_inner)
    scales = (attention.logit_scale, attention.head_scale)
    return all(type(norm) is nn.Identity for norm in norms) and scales == (None, None)


def project_heads(
    block: ResidualAttentionBlock,
    normed: Tensor,
    projections: str,
    pad_fn: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, ...]:
    """Project states to the queries, keys or values of each head.

    Args:
        block: The block with the projection.
        normed: States after the block's first layer norm: `(B, T, D)`, or N packed states `(N, D)`.
        projections: The projections to compute: "qkv", "q" or "kv".
        pad_fn: For packed states, a function from packed tensors `(N, ...)` to `(B, T, ...)`; None
            for states `(B, T, D)`.

    Returns:
        A tensor `(B, H, T, D / H)` for each letter of `projections`, with H heads.
    """
    attn = block.attn
    width = attn.out_proj.in_features
    start = "qkv".index(projections) * width
    rows = slice(start, start + len(projections) * width)
    projected = F.linear(normed, attn.in_proj_weight[rows], attn.in_proj_bias[rows])
    if pad_fn is not None:
        projected = pad_fn(projected)
    heads = projected.unflatten(-1, (len(projections), attn.num_heads, -1))
    return heads.permute(2, 0, 3, 1, 4).unbind(0)


def attention_weights(
    q: Tensor, k: Tensor, attn_mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Return softmax attention `(B, H, Q, T)` in float32 or wider, also under autocast.

    Args:
        q: Queries at Q positions, by H heads of width d, `(B, H, Q, d)`.
        k: Keys `(B, H, T, d)`.
        attn_mask: Bool, True where a query may read a key, or a float tensor that is added to the
            scores. Its shape broadcasts to `(B, H, Q, T)`. None allows all keys. The weights of a
            query that may read no key are NaN.
        scale: Factor of the scores; None for `d ** -0.5`.
    """
    with torch.autocast(q.device.type, enabled=False):
        wide = torch.promote_types(q.dtype, torch.float32)
        factor = q.shape[-1] ** -0.5 if scale is None else scale
        scores = (q.to(wide) * factor) @ k.to(wide).transpose(-1, -2)
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, float("-inf"))
        elif attn_mask is not None:
            scores = scores + attn_mask
        return scores.softmax(dim=-1)


def attend(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, *, explicit: bool
) -> tuple[Tensor, Tensor | None]:
    """Compute scaled dot-product attention and concatenate the heads.

    Args:
        q: Queries at Q positions, by H heads of width d, `(B, H, Q, d)`.
        k: Keys `(B, H, T, d)`.
        v: Values `(B, H, T, d)`.
        attn_mask: Bool, True where a query may read a key, in a shape that broadcasts to
            `(B, H, Q, T)`. None allows all keys. If `explicit` is False, the causal mask is used in
            place of any mask.
        explicit: Compute and return the attention weights. If False, the fused kernel is used,
            which returns no weights.

    Returns:
        Weighted sums of the values `(B, Q, H * d)`, before the output projection; and the attention
        weights `(B, H, Q, T)`, float32 or wider, or None if `explicit` is False.
    """
    if explicit:
        weights = attention_weights(q, k, attn_mask)
        mixed = weights.to(v.dtype) @ v
    else:
        weights = None
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=attn_mask is not None)
    return mixed.transpose(1, 2).flatten(2), weights


def finish_block(block: ResidualAttentionBlock, x: Tensor, attention_output: Tensor) -> Tensor:
    """Run the rest of a block after its attention: output projection, MLP and both residuals.

    Args:
        block: The block.
        x: States before the block `(..., D)`.
        attention_output: Weighted sums of the values at these positions `(..., D)`, as `attend`
            returns them.

    Returns:
        States after the block `(..., D)`.
    """
    x = x + block.ls_1(block.attn.out_proj(attention_output))
    return x + block.ls_2(_apply_mlp(block.mlp, block.ln_2(x)))


def _apply_mlp(mlp: Any, x: Tensor) -> Tensor:
    """Apply a block's MLP.

    QuickGELU is computed by one kernel, as `x * sigmoid(a * x) = silu(a * x) / a` with the factor
    a = `QUICK_GELU_FACTOR`. An MLP with other layers runs its own code.
    """
    if [type(layer) for layer in mlp] != [nn.Linear, QuickGELU, nn.Linear]:
        return mlp(x)
    first, _, second = mlp
    bias = None if first.bias is None else QUICK_GELU_FACTOR * first.bias
    hidden = F.linear(x, QUICK_GELU_FACTOR * first.weight, bias)
    return F.linear(F.silu(hidden), second.weight / QUICK_GELU_FACTOR, second.bias)


def run_layer(tower: nn.Module, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function that runs a layer, with gradient checkpointing if the tower enables it.

    The tower enables it by its attribute `grad_checkpointing`, which has no effect while gradients
    are disabled.
    """
    if tower.grad_checkpointing and torch.is_grad_enabled():
        return checkpoint(function, *arguments, use_reentrant=False)
    return function(*arguments)
