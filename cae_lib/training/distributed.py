"""Data-parallel training over the processes that `torchrun` starts, equal to one process: each
holds the whole batch's loss, gradients of what is gathered or summed are summed, and the averaging
of `DistributedDataParallel` then gives those of one process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Ranks:
    """The processes of a run: this one's number and how many there are. With one process nothing is
    communicated and all values pass through unchanged."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def gather(self, features: Tensor, counts: Sequence[int] | None = None) -> Tensor:
        """Features `(n, ...)` of all processes, in their order, with gradient; `counts` gives n in
        each, None when all are equal."""
        if self.size == 1:
            return features
        counts = counts or [len(features)] * self.size
        before = sum(counts[: self.rank])
        around = (before, sum(counts) - before - len(features))
        return self.sum(F.pad(features, (*(0, 0) * (features.ndim - 1), *around)))

    def sum(self, values: Tensor) -> Tensor:
        """Sum of `values` over all processes, with gradient."""
        return values if self.size == 1 else _AllSum.apply(values)

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether `flag` is true in some process, so that all take the same turn."""
        return bool(self.sum(torch.tensor(int(flag), device=device))) if self.size > 1 else flag

    def wait(self) -> None:
        """Return once all processes have come here."""
        if self.size > 1:
            dist.barrier()

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with its gradients averaged over all processes."""
        if self.size == 1:
            return module
        return DistributedDataParallel(module, gradient_as_bucket_view=True)


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that `torchrun` started with this one; alone, there is one rank. NCCL
    connects GPUs, gloo all else. A group that exists already is used and left open."""
    own = not (dist.is_available() and dist.is_initialized())
    if own and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    if own:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        if own:
            dist.destroy_process_group()


class _AllSum(torch.autograd.Function):
    """Sum over all processes; the gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _AllSum.apply(gradient)
