"""open_clip's residual attention block, written out over its own parameters, if it is unaltered.

Its attention, up to 3.3 `nn.MultiheadAttention`, then open_clip's own `Attention`, has no maps on
the path to its output, and its kernel no double backward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from open_clip import CLIP, CustomTextCLIP
from open_clip import transformer as own
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.utils.checkpoint import checkpoint

METHODS = ("forward", "attention", "_embeds", "_pool", "_global_pool")
# Types whose methods are known; a subclass, a wrapper or a parametrised layer has another type.
PLAIN = {
    kind: [getattr(kind, name, None) for name in METHODS]
    for kind in (
        own.Attention,
        own.LayerNorm,
        own.LayerNormFp32,
        own.LayerScale,
        own.PatchDropout,
        QuickGELU,
        ResidualAttentionBlock,
        own.TextTransformer,
        own.Transformer,
        own.VisionTransformer,
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
}
# Models that are open_clip's own, and their methods that encode; after 3.3 one calls another.
ENCODERS = {
    kind: {
        name: getattr(kind, name, None)
        for side in ("text", "image")
        for name in (f"encode_{side}", f"_encode_{side}")
    }
    for kind in (CLIP, CustomTextCLIP)
}
PARAMETERS = {nn.Parameter}
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
QUICK = 1.702  # the factor of QuickGELU, `x * sigmoid(1.702 * x)`


def alteration(parts: Iterable[Any]) -> str | None:
    """What was changed in parts of a model (modules, parameters, None), in words; None if nothing:
    layers of other types (adapters, parametrised, quantised, sharded), hooks, replaced methods, and
    attention with unusual settings."""
    if any(getattr(torch_modules, f"_global{name}", None) for name in HOOKS):
        return "hooks are registered for all modules"
    for part in parts:
        if isinstance(part, nn.Module):
            for name, module in part.named_modules():
                if what := _of_module(module):
                    return f"{name or type(part).__name__} {what}"
        elif part is not None and type(part) not in PARAMETERS:
            return f"a parameter is a {type(part).__name__}"
    return None


def encodes_by_own(model: nn.Module, side: str) -> bool:
    """Whether the methods of `ENCODERS` of a side are still those that open_clip came with."""
    kind = type(model)
    return kind in ENCODERS and all(
        getattr(kind, name, None) is own and name not in vars(model)
        for name, own in ENCODERS[kind].items()
        if name.endswith(side)
    )


def _of_module(module: nn.Module) -> str | None:
    kind = type(module)
    if kind not in PLAIN:
        return f"is a {kind.__name__}"
    if any(getattr(module, name) for name in HOOKS):
        return "has hooks"
    replaced = any(name in vars(module) for name in METHODS)
    if replaced or PLAIN[kind] != [getattr(kind, name, None) for name in METHODS]:
        return "has a replaced method"
    for parameter in module.parameters(recurse=False):
        if type(parameter) not in PARAMETERS:
            return f"has a parameter of type {type(parameter).__name__}"
    return None if _is_usual(module) else "has unusual settings"


def _is_usual(module: nn.Module) -> bool:
    """Whether a module, if it attends, does so by softmax alone, and drops nothing."""
    if isinstance(module, nn.Dropout):
        return not module.p
    if not isinstance(module, (nn.MultiheadAttention, own.Attention)):
        return True
    if module.in_proj_weight is None or module.in_proj_bias is None:
        return False
    if isinstance(module, nn.MultiheadAttention):
        return not (module.dropout or module.add_zero_attn) and module.bias_k is None
    norms = {type(norm) for norm in (module.ln_q, module.ln_k, module.ln_inner)}
    scale = (module.out_proj.in_features // module.num_heads) ** -0.5
    factors = module.logit_scale is None and module.head_scale is None
    return norms == {nn.Identity} and factors and module.scale == scale


def heads_of(
    block: ResidualAttentionBlock,
    normed: Tensor,
    parts: str,
    spread: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, ...]:
    """The parts "qkv", "q" or "kv" `(B, H, T, D/H)` of states; `spread` lays packed ones out."""
    attn = block.attn
    width = attn.out_proj.in_features
    start = "qkv".index(parts) * width
    rows = slice(start, start + len(parts) * width)
    projected = F.linear(normed, attn.in_proj_weight[rows], attn.in_proj_bias[rows])
    if spread is not None:
        projected = spread(projected)
    heads = projected.unflatten(-1, (len(parts), attn.num_heads, -1))
    return heads.permute(2, 0, 3, 1, 4).unbind(0)


def attention_weights(
    q: Tensor, k: Tensor, allowed: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Softmax attention `(B, H, Q, T)` in float32 or wider, also under autocast; `allowed` is bool,
    or is added to the scores; `scale` None stands for `d ** -0.5`."""
    with torch.autocast(q.device.type, enabled=False):
        wide = torch.promote_types(q.dtype, torch.float32)
        factor = q.shape[-1] ** -0.5 if scale is None else scale
        scores = (q.to(wide) * factor) @ k.to(wide).transpose(-1, -2)
        if allowed is not None and allowed.dtype == torch.bool:
            scores = scores.masked_fill(~allowed, float("-inf"))
        elif allowed is not None:
            scores = scores + allowed
        return scores.softmax(dim=-1)


def attend(
    q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None = None, *, explicit: bool
) -> tuple[Tensor, Tensor | None]:
    """Mixed values `(B, Q, D)` and their map; None of the kernel, whose `allowed` is causal."""
    weights = attention_weights(q, k, allowed) if explicit else None
    if explicit:
        mixed = weights.to(v.dtype) @ v
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=allowed is not None)
    return mixed.transpose(1, 2).flatten(2), weights


def finish_block(block: ResidualAttentionBlock, x: Tensor, mixed: Tensor) -> Tensor:
    """Add the attention's output and the MLP to the states `(..., D)`."""
    x = x + block.ls_1(block.attn.out_proj(mixed))
    return x + block.ls_2(_mlp(block.mlp, block.ln_2(x)))


def _mlp(mlp: nn.Sequential, x: Tensor) -> Tensor:
    """The MLP of a block, its QuickGELU by one kernel: `x * sigmoid(a * x) = silu(a * x) / a`."""
    if [type(layer) for layer in mlp] != [nn.Linear, QuickGELU, nn.Linear]:
        return mlp(x)
    first, _, second = mlp
    bias = None if first.bias is None else QUICK * first.bias
    hidden = F.linear(x, QUICK * first.weight, bias)
    return F.linear(F.silu(hidden), second.weight / QUICK, second.bias)


def run(transformer: nn.Module, step: Callable[..., Any], *arguments: Any) -> Any:
    """Call a step, to be computed anew in the backward pass if the transformer checkpoints."""
    if transformer.grad_checkpointing and torch.is_grad_enabled():
        return checkpoint(step, *arguments, use_reentrant=False)
    return step(*arguments)
