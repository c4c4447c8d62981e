"""Attention maps of any model, read while it runs its own code.

open_clip, torch's `nn.MultiheadAttention`, timm and Hugging Face end in one function of torch,
`scaled_dot_product_attention`. While a recording lasts, this thread's calls of it are computed as
an explicit softmax, whose maps lie on the path to the output and can be differentiated twice; the
fused kernels give no maps and have no double backward. Modules with a softmax of their own that
return it, as BLIP's do, are read by a hook.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import get_ident
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.models.blocks import causal

_SWITCHES = ("grad_checkpointing", "gradient_checkpointing")
_lock = threading.RLock()
_local = threading.local()
_fused = F.scaled_dot_product_attention


@contextmanager
def recording(tower: nn.Module) -> Iterator[list[Tensor]]:
    """Compute a tower's attention explicitly; yields its maps `(B, H, T, T)`, float32 or wider.

    Maps that modules return are in the list once the recording is over. Gradient checkpointing is
    off meanwhile: the recomputation would run after the recording.
    """
    maps: list[Tensor] = []
    returned: list[Tensor] = []
    with ExitStack() as stack:
        stack.enter_context(alone())
        for module in tower.modules():
            stack.callback(module.register_forward_hook(_reader(returned)).remove)
            for name in _SWITCHES:
                if vars(module).get(name):
                    stack.enter_context(_set(module, name, False))
        for config in _configs(tower):
            stack.enter_context(_set(config, "_attn_implementation_internal", "sdpa"))
        stack.enter_context(_explicit(maps))
        yield maps
    if not maps:
        maps.extend(m for m in returned if bool((m >= 0).all()))  # T5 returns a bias as well


@contextmanager
def alone() -> Iterator[None]:
    """Let one thread at a time change how modules run; others run them as they are.

    Compiled code would not notice the change, so it runs eagerly.
    """
    with _lock, torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def _explicit(maps: list[Tensor]) -> Iterator[None]:
    """Put the explicit softmax in the place of the fused kernels, for this thread."""
    global _fused
    before, outer = F.scaled_dot_product_attention, getattr(_local, "maps", None)
    fast = torch.backends.mha.get_fastpath_enabled()  # it passes the function by
    if before is not _attend:
        _fused = before
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        F.scaled_dot_product_attention = _attend
        _local.maps = maps
        yield
    finally:
        _local.maps = outer
        F.scaled_dot_product_attention = before
        torch.backends.mha.set_fastpath_enabled(fast)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """torch's function of this name, by an explicit softmax in float32 or wider."""
    maps = getattr(_local, "maps", None)
    if maps is None:
        options = {"scale": scale, "enable_gqa": enable_gqa}
        return _fused(query, key, value, attn_mask, dropout_p, is_causal, **options)
    if enable_gqa:
        key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], -3) for t in (key, value))
    if is_causal:
        attn_mask = causal(query.shape[-2], query.device)
    with torch.autocast(query.device.type, enabled=False):
        wide = torch.promote_types(query.dtype, torch.float32)
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        scores = (query.to(wide) * factor) @ key.to(wide).transpose(-1, -2)
        if attn_mask is not None:
            hidden = attn_mask.dtype == torch.bool
            scores = scores.masked_fill(~attn_mask, float("-inf")) if hidden else scores + attn_mask
        weights = scores.softmax(dim=-1)
    maps.append(weights)
    dropped = F.dropout(weights, dropout_p) if dropout_p else weights
    return dropped.to(value.dtype) @ value


def _reader(returned: list[Tensor]) -> Any:
    """A hook that keeps maps which a module returns beside its states."""
    thread = get_ident()

    def read(module: nn.Module, arguments: Any, output: Any) -> None:
        beside = output[1:] if isinstance(output, tuple) and get_ident() == thread else ()
        for found in beside:
            if isinstance(found, Tensor) and found.ndim == 4 and found.shape[2] == found.shape[3]:
                if not any(found is known for known in returned):
                    returned.append(found)

    return read


def _configs(tower: nn.Module) -> list[Any]:
    """Hugging Face's configurations to set, which say how attention is computed."""
    modules = list(tower.modules())
    name = "_attn_implementation_internal"
    found = [getattr(module, "config", None) for module in modules]
    found = {id(config): config for config in found if hasattr(config, name)}.values()
    if any(getattr(module, "_supports_sdpa", False) for module in modules):
        return list(found)
    return [config for config in found if getattr(config, name) != "eager"]


@contextmanager
def _set(target: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(target, name)
    setattr(target, name, value)
    try:
        yield
    finally:
        setattr(target, name, before)
