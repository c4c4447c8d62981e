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
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.models.blocks import causal

_SWITCHES = {"grad_checkpointing": False, "gradient_checkpointing": False}
_local = threading.local()
_lock = threading.Lock()
_recordings = 0
_fast: list[bool] = []
_fused = F.scaled_dot_product_attention


@contextmanager
def recording(tower: nn.Module) -> Iterator[list[Tensor]]:
    """Compute a tower's attention explicitly; yields its maps `(B, H, T, T)`, float32 or wider.

    Gradient checkpointing is off meanwhile: the recomputation would run after the recording.
    """
    maps: list[Tensor] = []
    with ExitStack() as stack:
        for module in tower.modules():
            stack.callback(module.register_forward_hook(_reader(maps)).remove)
            for name, value in _SWITCHES.items():
                if vars(module).get(name):
                    stack.enter_context(_set(module, name, value))
        for config in {id(c): c for c in _configs(tower)}.values():
            stack.enter_context(_set(config, "_attn_implementation_internal", "sdpa"))
        stack.enter_context(_explicit(maps))
        yield maps


@contextmanager
def _explicit(maps: list[Tensor]) -> Iterator[None]:
    """Put the explicit softmax in place for this thread, and the function for all that records."""
    global _recordings
    outer = getattr(_local, "maps", None)
    with _lock:
        if not _recordings:  # the fast path of nn.MultiheadAttention passes that function by
            _fast.append(torch.backends.mha.get_fastpath_enabled())
            torch.backends.mha.set_fastpath_enabled(False)
        _recordings += 1
        F.scaled_dot_product_attention = _attend
    _local.maps = maps
    try:
        yield
    finally:
        _local.maps = outer
        with _lock:
            _recordings -= 1
            if not _recordings:
                F.scaled_dot_product_attention = _fused
                torch.backends.mha.set_fastpath_enabled(_fast.pop())


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
        return _fused(query, key, value, attn_mask, dropout_p, is_causal, scale=scale,
                      enable_gqa=enable_gqa)  # fmt: skip
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


def _reader(maps: list[Tensor]) -> Any:
    """A hook that keeps maps which a module returns beside its states."""

    def read(module: nn.Module, arguments: Any, output: Any) -> None:
        second = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if isinstance(second, Tensor) and second.ndim == 4 and second.shape[2] == second.shape[3]:
            if not any(second is known for known in maps):
                maps.append(second)

    return read


def _configs(tower: nn.Module) -> Iterator[Any]:
    """Hugging Face's configurations, which say how attention is computed."""
    for module in tower.modules():
        config = getattr(module, "config", None)
        if hasattr(config, "_attn_implementation_internal"):
            yield config


@contextmanager
def _set(target: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(target, name)
    setattr(target, name, value)
    try:
        yield
    finally:
        setattr(target, name, before)
