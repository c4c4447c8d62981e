"""Record the attention maps of a tower while it runs its own code."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.backends import mha
from torch.nn.modules.dropout import _DropoutNd

from cae_lib.models.blocks import attention_weights

_IMPLEMENTATION = "_attn_implementation_internal"  # in configurations of Hugging Face
_CHECKPOINTING = ("grad_checkpointing", "gradient_checkpointing")
# Reentrant, because a context of this module may be entered inside another.
_lock = threading.RLock()


@contextmanager
def record_attention(tower: nn.Module) -> Iterator[list[Tensor]]:
    """Record the attention maps that a tower computes inside this context.

    Yields a list that receives the maps `(B, H, T, T)`, float32 or wider and before dropout, in the
    order of their computation. Nothing but the tower should run: the function is replaced in the
    whole process. The list stays empty if nothing calls `scaled_dot_product_attention`.
    """
    maps: list[Tensor] = []
    supports_sdpa = any(getattr(module, "_supports_sdpa", False) for module in tower.modules())
    with exclusive_patching(), ExitStack() as stack:
        # Checkpointing would recompute layers in the backward pass, after the recording.
        _switch_off(stack, tower.modules(), _CHECKPOINTING)
        for module in tower.modules():
            config = getattr(module, "config", None)
            # Eager attention and other kernels of Hugging Face do not call the replaced function.
            if supports_sdpa and hasattr(config, _IMPLEMENTATION):
                _set_attribute(stack, config, _IMPLEMENTATION, "sdpa")
        # The fast path of PyTorch's transformer layers does not call the replaced function, either.
        stack.callback(mha.set_fastpath_enabled, mha.get_fastpath_enabled())
        mha.set_fastpath_enabled(False)
        _set_attribute(stack, F, "scaled_dot_product_attention", partial(_attend, maps))
        yield maps


@contextmanager
def eval_without_checkpointing(modules: list[nn.Module]) -> Iterator[None]:
    """Put modules, but not their children, into eval mode without gradient checkpointing."""
    with exclusive_patching(), ExitStack() as stack:
        # A backward pass after this context would recompute checkpointed layers in training mode.
        _switch_off(stack, modules, ("training", *_CHECKPOINTING))
        yield


def has_dropout(module: nn.Module) -> bool:
    """Return whether a module, apart from its children, has a dropout rate above 0."""
    # Modules of Hugging Face pass rates from their attributes or configuration to a function, and
    # have no dropout layer for some of them.
    numbers = {**vars(module), **getattr(getattr(module, "config", None), "__dict__", {})}
    return (isinstance(module, _DropoutNd) and module.p > 0) or any(
        "drop" in name and isinstance(value, int | float) and value > 0
        for name, value in numbers.items()
    )


@contextmanager
def exclusive_patching() -> Iterator[None]:
    """Let only one thread at a time run code that changes how modules compute."""
    # Compiled code would ignore the changes.
    with _lock, torch.compiler.set_stance("force_eager"):
        yield


def _attend(
    maps: list[Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Stand in for torch's `scaled_dot_product_attention`, and add the map to `maps`."""
    if enable_gqa:
        # Grouped queries: each head of keys and values serves several heads of queries.
        key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], -3) for t in (key, value))
    if is_causal:
        attn_mask = query.new_ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
    weights = attention_weights(query, key, attn_mask, scale)
    # Before dropout, whose mask is no part of the attention.
    maps.append(weights)
    dropped = F.dropout(weights, dropout_p) if dropout_p else weights
    return dropped.to(value.dtype) @ value


def _switch_off(stack: ExitStack, modules: Iterable[nn.Module], names: tuple[str, ...]) -> None:
    for module in modules:
        for name in names:
            if vars(module).get(name):
                _set_attribute(stack, module, name, False)


def _set_attribute(stack: ExitStack, target: Any, name: str, value: Any) -> None:
    """Set an attribute until the stack is closed."""
    stack.callback(setattr, target, name, getattr(target, name))
    setattr(target, name, value)
