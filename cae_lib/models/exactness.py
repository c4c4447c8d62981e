"""Whether a module is open_clip's own, unaltered, so that its computation can be written anew."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from open_clip.transformer import (
    LayerNorm,
    LayerNormFp32,
    LayerScale,
    PatchDropout,
    QuickGELU,
    ResidualAttentionBlock,
    TextTransformer,
    Transformer,
    VisionTransformer,
)
from torch import nn
from torch.nn.modules import module as torch_modules
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

OPEN_CLIP = {LayerNorm, LayerNormFp32, LayerScale, PatchDropout, QuickGELU, Transformer}
OPEN_CLIP |= {ResidualAttentionBlock, TextTransformer, VisionTransformer}
TORCH = {nn.Conv2d, nn.Embedding, nn.GELU, nn.Identity, nn.LayerNorm, nn.Linear, nn.ModuleList}
TORCH |= {nn.MultiheadAttention, nn.Sequential, NonDynamicallyQuantizableLinear}
METHODS = ("forward", "attention", "_embeds", "_pool", "_global_pool")
PLAIN = {kind: [getattr(kind, name, None) for name in METHODS] for kind in OPEN_CLIP | TORCH}
"""Types whose methods are known; a subclass, a wrapper or a parametrised layer has another type."""

PARAMETERS = {nn.Parameter}
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def alteration(parts: Iterable[Any]) -> str | None:
    """What was changed in some parts of a model, in words; None if nothing was.

    Layers of other types (adapters, parametrisations, quantised or sharded layers), hooks,
    replaced methods, and attention with unusual settings count as changes.

    Args:
        parts: modules, looked through with all their children; parameters and None.
    """
    if any(getattr(torch_modules, f"_global{name}", None) for name in HOOKS):
        return "hooks are registered for all modules"
    for part in parts:
        if isinstance(part, nn.Module):
            for name, module in part.named_modules():
                found = _of_module(module)
                if found:
                    return f"{name or type(part).__name__} {found}"
        elif part is not None and type(part) not in PARAMETERS:
            return f"a parameter is a {type(part).__name__}"
    return None


def _of_module(module: nn.Module) -> str | None:
    kind = type(module)
    if kind not in PLAIN:
        return f"is a {kind.__name__}"
    if any(getattr(module, name) for name in HOOKS):
        return "has hooks"
    replaced = any(name in vars(module) for name in METHODS)
    if replaced or PLAIN[kind] != [getattr(kind, name, None) for name in METHODS]:
        return "has a replaced method"
    others = [p for p in module.parameters(recurse=False) if type(p) not in PARAMETERS]
    if others:
        return f"has a parameter of type {type(others[0]).__name__}"
    if isinstance(module, nn.MultiheadAttention):
        usual = module.in_proj_weight is not None and module.in_proj_bias is not None
        if not usual or module.dropout or module.bias_k is not None or module.add_zero_attn:
            return "has unusual settings"
    return None
