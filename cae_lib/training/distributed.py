"""Data-parallel training over the processes that `torchrun` starts, equal to one process.

Each process computes the loss of the whole batch. The backward passes of `gather` and `sum` add up
the gradients of all processes, so the average of `DistributedDataParallel` is the gradient that one
process would compute.
"""

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
    """The processes of a run; with a single process, all methods return values unchanged.

    Attributes:
        rank: Number of this process.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def gather(self, features: Tensor, counts: Sequence[int] | None = None) -> Tensor:
        """Concatenate features `(n, ...)` of all processes, in their order, with gradient.

        Args:
            features: Features of this process.
            counts: n of each process; None if all are equal.
        """
        if self.size == 1:
            return features
        counts = counts or [len(features)] * self.size
        before = sum(counts[: self.rank])
        after = sum(counts) - before - len(features)
        return self.sum(F.pad(features, (*(0, 0) * (features.ndim - 1), before, after)))

    def sum(self, values: Tensor) -> Tensor:
        """Sum values over all processes, with gradient."""
        return values if self.size == 1 else _AllSum.apply(values)

    def any(self, flag: bool, device: torch.device) -> bool:
        """Return whether `flag` is true in any process."""
        return bool(self.sum(torch.tensor(int(flag), device=device))) if self.size > 1 else flag

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.size > 1:
            dist.barrier()

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module with its gradients averaged over all processes."""
        if self.size == 1:
            return module
        return DistributedDataParallel(module, gradient_as_bucket_view=True)


@contextmanager
def init_distributed(device: torch.device) -> Iterator[Ranks]:
    """Initialise torch.distributed when launched by `torchrun`; otherwise yield one rank.

    NCCL connects GPUs, gloo everything else. A group that exists already is used and left open.
    """
    opens_group = not (dist.is_available() and dist.is_initialized())
    if opens_group and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    if opens_group:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        if opens_group:
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
