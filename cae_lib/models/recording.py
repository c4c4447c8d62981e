"""Attention maps of any model, read while it runs its own code: a softmax takes the place of
torch's attention, and modules that return maps of their own are hooked."""

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

_CHOICE = "_attn_implementation_internal"  # in the configurations of Hugging Face
_SWITCHES = ("grad_checkpointing", "gradient_checkpointing")
_lock = threading.RLock()
_fused = F.scaled_dot_product_attention


@contextmanager
def recording(tower: nn.Module) -> Iterator[list[Tensor]]:
    """Compute a tower's attention explicitly; yields its maps `(B, H, T, T)`, float32 or wider,
    those that modules return only at its end. Checkpointing is off meanwhile: it computes later."""
    maps: list[Tensor] = []
    returned: list[Tensor] = []
    thread = threading.get_ident()
    in_sdpa = any(getattr(module, "_supports_sdpa", False) for module in tower.modules())
    with ExitStack() as stack:
        stack.enter_context(alone())
        _switch_off(stack, tower.modules(), _SWITCHES)
        for module in tower.modules():
            hook = partial(_keep_returned, returned, thread)
            stack.callback(module.register_forward_hook(hook).remove)
            config = getattr(module, "config", None)
            if in_sdpa and hasattr(config, _CHOICE):
                _set(stack, config, _CHOICE, "sdpa")
        stack.callback(mha.set_fastpath_enabled, mha.get_fastpath_enabled())
        mha.set_fastpath_enabled(False)  # it passes the function by
        _set(stack, F, "scaled_dot_product_attention", partial(_attend, maps, thread))
        yield maps
    if not maps:
        maps.extend(m for m in returned if bool((m >= 0).all()))  # T5 returns a bias as well


@contextmanager
def still(modules: list[nn.Module]) -> Iterator[None]:
    """Modules in evaluation mode, without checkpointing, which computes later, in another mode."""
    with ExitStack() as stack:
        stack.enter_context(alone())
        _switch_off(stack, modules, ("training", *_SWITCHES))
        yield


def drops(module: nn.Module) -> bool:
    """Whether a module, by its numbers or its configuration's, drops anything in training."""
    numbers = {**vars(module), **getattr(getattr(module, "config", None), "__dict__", {})}
    return (
        isinstance(module, _DropoutNd)
        and module.p > 0
        or any(
            "drop" in name and isinstance(value, int | float) and value > 0
            for name, value in numbers.items()
        )
    )


@contextmanager
def alone() -> Iterator[None]:
    """Let one thread at a time change how modules run; others run them as they are. Compiled code
    would not notice the change, so it runs eagerly."""
    with _lock, torch.compiler.set_stance("force_eager"):
        yield


def _attend(
    maps: list[Tensor],
    thread: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """torch's attention, in one thread by an explicit softmax that adds its map to `maps`."""
    if threading.get_ident() != thread:
        options = {"scale": scale, "enable_gqa": enable_gqa}
        return _fused(query, key, value, attn_mask, dropout_p, is_causal, **options)
    if enable_gqa:
        key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], -3) for t in (key, value))
    if is_causal:
        attn_mask = query.new_ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
    weights = attention_weights(query, key, attn_mask, scale)
    maps.append(weights)
    dropped = F.dropout(weights, dropout_p) if dropout_p else weights
    return dropped.to(value.dtype) @ value


def _keep_returned(
    returned: list[Tensor], thread: int, module: nn.Module, arguments: Any, output: Any
) -> None:
    """As a hook: keep maps which a module returns beside its states."""
    beside = output[1:] if isinstance(output, tuple) and threading.get_ident() == thread else ()
    for each in beside:
        if isinstance(each, Tensor) and each.ndim == 4 and each.shape[2] == each.shape[3]:
            if not any(each is known for known in returned):
                returned.append(each)


def _switch_off(stack: ExitStack, modules: Iterable[nn.Module], names: tuple[str, ...]) -> None:
    for module in modules:
        for name in names:
            if vars(module).get(name):
                _set(stack, module, name, False)


def _set(stack: ExitStack, target: Any, name: str, value: Any) -> None:
    """Set an attribute until the stack is left."""
    stack.callback(setattr, target, name, getattr(target, name))
    setattr(target, name, value)
