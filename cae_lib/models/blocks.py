"""Functional versions of open_clip's residual attention block, on the parameters of its modules.

Explicit attention gives attention maps and double backward; the fused kernel behind
`nn.MultiheadAttention` has neither. Exact up to rounding where `find_modification` finds nothing.
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

# Models whose towers may run as functional versions. CoCa and subclasses may encode in other ways.
OPEN_CLIP_MODELS = (CLIP, CustomTextCLIP)

# Adapters, parametrizations, quantized and sharded layers have other types, and are not replaced.
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

# Where `nn.Module` keeps the hooks of a forward or backward pass.
HOOK_ATTRIBUTES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

QUICK_GELU_FACTOR = 1.702  # QuickGELU is `x * sigmoid(1.702 * x)`


def find_modification(roots: Iterable[nn.Module]) -> str | None:
    """Describe the first module that the functional towers cannot reproduce; None without one."""
    for root in roots:
        for name, module in root.named_modules():
            name = name or type(root).__name__
            # The exact type, since a subclass may compute something else.
            if type(module) not in KNOWN_MODULES:
                return f"{name} is a {type(module).__name__}"
            # accelerate replaces `forward` on the instance to move weights between devices.
            if "forward" in vars(module):
                return f"{name} has a replaced forward"
            if any(getattr(module, hooks) for hooks in HOOK_ATTRIBUTES):
                return f"{name} has hooks"
            # Functional blocks apply no dropout, not even in training mode.
            if isinstance(module, nn.Dropout) and module.p:
                return f"{name} drops activations"
            attends = isinstance(module, (nn.MultiheadAttention, transformer.Attention))
            if attends and not _has_plain_softmax(module):
                return f"{name} has unusual settings of attention"
    return None


def _has_plain_softmax(attention: nn.MultiheadAttention | transformer.Attention) -> bool:
    """Return whether a module computes softmax attention with biases and nothing else."""
    # `project_heads` reads one matrix for queries, keys and values, and its bias.
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
    """Return the queries, keys or values `(B, H, T, d)` of a block, one for each letter.

    `projections` is "qkv", "q" or "kv", and `normed` are states after the first layer norm: `(B, T,
    D)`, or packed `(N, D)`, which `pad_fn` turns into `(B, T, ...)`.
    """
    attn = block.attn
    width = attn.out_proj.in_features
    start = "qkv".index(projections) * width
    # The weight (3 D, D) holds the matrices of queries, keys and values one below the other.
    rows = slice(start, start + len(projections) * width)
    projected = F.linear(normed, attn.in_proj_weight[rows], attn.in_proj_bias[rows])
    # Padded after the product, which then runs on the N packed states alone.
    if pad_fn is not None:
        projected = pad_fn(projected)
    # (B, T, letters, H, d), then (B, H, T, d) for each letter
    heads = projected.unflatten(-1, (len(projections), attn.num_heads, -1))
    return heads.permute(2, 0, 3, 1, 4).unbind(0)


def attention_weights(
    q: Tensor, k: Tensor, attn_mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Return softmax attention `(B, H, Q, T)` in float32 or wider, also under autocast.

    `attn_mask` broadcasts to this shape: bool, True where a query may read a key, or a float tensor
    that is added. A query that may read no key has the weights NaN.
    """
    # Methods differentiate the weights, some of them twice, which needs more than half precision.
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
    """Return attention, heads concatenated `(B, Q, H * d)`, and its weights `(B, H, Q, T)` or None.

    `attn_mask` is bool, True where a query may read a key. The fused kernel (`explicit` False)
    returns no weights, and takes any mask for the causal one.
    """
    if explicit:
        weights = attention_weights(q, k, attn_mask)
        # The output is computed from the weights, so that it can be differentiated by them.
        mixed = weights.to(v.dtype) @ v
    else:
        weights = None
        # `is_causal` is cheaper for the kernel than a mask. Only causal masks come here.
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=attn_mask is not None)
    return mixed.transpose(1, 2).flatten(2), weights


def finish_block(block: ResidualAttentionBlock, x: Tensor, attention_output: Tensor) -> Tensor:
    """Run the rest of a block after its attention: output projection, MLP and both residuals."""
    x = x + block.ls_1(block.attn.out_proj(attention_output))
    return x + block.ls_2(_apply_mlp(block.mlp, block.ln_2(x)))


def _apply_mlp(mlp: Any, x: Tensor) -> Tensor:
    # An MLP with other layers, such as GELU or a norm, runs its own code.
    if [type(layer) for layer in mlp] != [nn.Linear, QuickGELU, nn.Linear]:
        return mlp(x)
    first, _, second = mlp
    # QuickGELU is x * sigmoid(a x) = silu(a x) / a. With both factors in the weights, one kernel
    # computes it on the states instead of three.
    bias = None if first.bias is None else QUICK_GELU_FACTOR * first.bias
    hidden = F.linear(x, QUICK_GELU_FACTOR * first.weight, bias)
    return F.linear(F.silu(hidden), second.weight / QUICK_GELU_FACTOR, second.bias)


def run_layer(tower: nn.Module, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function that runs a layer, with gradient checkpointing if the tower enables it."""
    if tower.grad_checkpointing and torch.is_grad_enabled():
        # The reentrant variant does not support `torch.autograd.grad`, which attribution calls.
        return checkpoint(function, *arguments, use_reentrant=False)
    return function(*arguments)
