"""A pretend accelerator: tensors that compute on the CPU but keep the rules of a CUDA device.

Inside `with pretend_device() as device:` the code under test runs as it is, with real values, and
whatever is left on the wrong device raises, as it would on a GPU:

- a tensor of the device mixes with no CPU tensor. As on CUDA, pointwise operations take CPU numbers
  of no dimension, and a tensor of the device may be indexed by one of the CPU;
- it has no `.numpy()`, and no CPU generator fills it; `.cpu()`, `.item()` and `.tolist()` read it;
- `.to(device)` moves tensors and modules, `device=` makes new ones there, and autograd works.

A pretend tensor is a tensor without data, which torch takes for one of its meta device, around a
CPU tensor with them. The name of the device is one that torch knows and has no code for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("maia", 0)
HERE = (DEVICE.type, "meta")
aten = torch.ops.aten
COPIES = (aten.copy_, aten.copy)
INDEXED = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index)


@contextmanager
def pretend_device() -> Iterator[torch.device]:
    """Yield a device that exists inside the block; its tensors can be read after it."""
    with _Operations(), _Numbers():
        yield DEVICE


class PretendTensor(Tensor):
    """A tensor of the device; `inner` holds its values."""

    inner: Tensor
    is_cuda = True
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> PretendTensor:
        with torch.inference_mode(False):  # else a view of a parameter could not be made
            made = Tensor._make_wrapper_subclass(
                cls,
                inner.shape,
                inner.stride(),
                inner.storage_offset(),
                dtype=inner.dtype,
                layout=inner.layout,
                device="meta",
            )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})

    @property
    def device(self) -> torch.device:
        return DEVICE

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None  # its presence lets modules swap their parameters whole

    @staticmethod
    def __tensor_unflatten__(parts: dict[str, Tensor], *_: Any) -> PretendTensor:
        return PretendTensor(parts["inner"])

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self, **_: Any) -> str:
        return f"{self.inner!r} on {DEVICE}"


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class _Numbers(TorchFunctionMode):
    """Tensors made of Python's numbers, which reach no dispatcher."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.new_tensor and isinstance(args[0], PretendTensor):
            kwargs = {"dtype": args[0].dtype, "device": DEVICE} | kwargs
            func, args = torch.tensor, args[1:]
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == DEVICE:
            return func(*args, **kwargs | {"device": "cpu"}).to(DEVICE)
        return func(*args, **kwargs)


def _run(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the values, and give the device what belongs there."""
    arguments = [*_leaves(args), *_leaves(kwargs.values())]
    ours = {id(leaf.inner): leaf for leaf in arguments if isinstance(leaf, PretendTensor)}
    here, name = bool(ours), func.overloadpacket
    if name in COPIES:
        here = isinstance(args[0], PretendTensor)
    elif ours and name is not aten._to_copy:
        indexed = name in INDEXED and isinstance(args[0], PretendTensor)
        _refuse_cpu(func, [*_leaves(args[2:])] if indexed else arguments)
    if kwargs.get("device") is not None:
        here = torch.device(kwargs["device"]).type in HERE
        kwargs = kwargs | {"device": "cpu"}
    if here and any(isinstance(leaf, torch.Generator) for leaf in arguments):
        raise RuntimeError(f"Expected a generator of {DEVICE} but found one of cpu")
    result = func(*_each(_inner, args), **{key: _each(_inner, v) for key, v in kwargs.items()})
    if not here:
        return result
    return _each(lambda leaf: ours[id(leaf)] if id(leaf) in ours else PretendTensor(leaf), result)


def _refuse_cpu(func: Any, leaves: list[Any]) -> None:
    """Refuse CPU tensors beside those of the device, but for numbers where CUDA takes them."""
    for leaf in leaves:
        is_on_cpu = isinstance(leaf, Tensor) and not isinstance(leaf, PretendTensor)
        if is_on_cpu and (leaf.ndim or torch.Tag.pointwise not in func.tags):
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at "
                f"least two devices, {DEVICE} and cpu, in {func}"
            )


def _leaves(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        yield from value if isinstance(value, list | tuple) else (value,)


def _each(function: Callable[[Tensor], Any], value: Any) -> Any:
    """Apply a function to a tensor, or to those of a list or tuple."""
    if isinstance(value, list | tuple):
        return type(value)(_each(function, part) for part in value)
    return function(value) if isinstance(value, Tensor) else value


def _inner(leaf: Tensor) -> Tensor:
    return leaf.inner if isinstance(leaf, PretendTensor) else leaf
