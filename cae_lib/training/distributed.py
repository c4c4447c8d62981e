"""Data-parallel training: processes started by `torchrun` share each batch.

Each process computes the loss of the whole batch. The backward passes of `gather` and `sum` add up
the gradients of all processes, so the average that `DistributedDataParallel` takes is the gradient
that one process would compute.
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
    """The processes of a run, and communication between them.

    With several processes, all of them have to call each method, in the same order. With one, all
    values stay as they are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process with rank 0, which writes the files of the run."""
        return self.rank == 0

    def gather(self, features: Tensor, counts: Sequence[int] | None = None) -> Tensor:
        """Concatenate features `(n, ...)` of all processes by rank, with gradient.

        `counts` holds n of each process; None if all are equal.
        """
        if self.size == 1:
            return features
        counts = counts or [len(features)] * self.size
        before = sum(counts[: self.rank])
        after = sum(counts) - before - len(features)
        # Each process pads its rows to their place among all rows, so that a sum concatenates, with
        # the gradient of `sum`. `F.pad` takes the last dimension first, so the rows come last.
        return self.sum(F.pad(features, (*(0, 0) * (features.ndim - 1), before, after)))

    def sum(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes, element by element and with gradient."""
        return values if self.size == 1 else _AllSum.apply(values)

    def any(self, flag: bool, device: torch.device) -> bool:
        """Return whether `flag` is true in any process; they exchange it on `device`."""
        return bool(self.sum(torch.tensor(int(flag), device=device))) if self.size > 1 else flag

    def barrier(self) -> None:
        """Block until all processes have called this method."""
        if self.size > 1:
            dist.barrier()

    def wrap(self, module: nn.Module) -> nn.Module:
        """Wrap a module in `DistributedDataParallel`, to average its gradients over processes."""
        if self.size == 1:
            return module
        # Gradients are views of the buckets that are exchanged, which saves a copy of each.
        return DistributedDataParallel(module, gradient_as_bucket_view=True)


@contextmanager
def init_distributed(device: torch.device) -> Iterator[Ranks]:
    """Yield the processes of a run, and initialise torch.distributed if there are several.

    If torch.distributed is initialised already, its default group is used and not destroyed at the
    end. If it is not, but `torchrun` has started several processes, a group is made, which is
    destroyed at the end; its backend is NCCL for GPUs and gloo for other devices. Otherwise this
    process is the only one.

    Args:
        device: The device of the model in this process. If a group is made for GPUs, the device
            needs an index, such as "cuda:1", and becomes the current one.

    Yields:
        The processes of the run.
    """
    # `torchrun` sets WORLD_SIZE for a single process, too, which needs no group.
    opens_group = not (dist.is_available() and dist.is_initialized())
    if opens_group and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    if opens_group:
        # Without this, GPU 0 would be the current device of every process.
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        if opens_group:
            dist.destroy_process_group()


class _AllSum(torch.autograd.Function):
    """Sum over all processes; the backward pass sums the gradients of all processes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        # `all_reduce` changes its argument, and NCCL needs it to be contiguous.
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Each process's values enter the losses of all processes, whose gradients add up.
        return _AllSum.apply(gradient)
