"""How a training run is executed: precision, memory, and workers that prepare batches ahead."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from cae_lib.errors import ConfigError, DataError
from cae_lib.runtime import end_with_parent

MAX_WORKERS = 16
"""Largest number of workers that a process starts if `ExecutionOptions.workers` is None."""

PREFETCH_FACTOR = 2
"""Number of batches that each worker holds ready."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Signals that only the main process handles: it finishes its step, saves, and ends its workers."""


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Return whether a run computes in bfloat16 (autocast) on a device.

    Args:
        precision: "fp32", "bf16", or "auto": bfloat16 on GPUs and on processors with instructions
            for it, otherwise float32, because other processors take several times as long in
            bfloat16.
        device: The device of the model.

    Raises:
        ConfigError: If the precision is unknown.
    """
    if precision not in ("fp32", "bf16", "auto"):
        raise ConfigError(f"unknown precision {precision!r}: expected fp32, bf16 or auto.")
    native = device.type != "cpu" or has_native_bf16()
    return precision == "bf16" or (precision == "auto" and native)


def has_native_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the processor has instructions for bfloat16 (AMX, AVX-512 or ARM).

    Args:
        cpuinfo: Linux's list of the processor's features. Without this file, as on other systems,
            the result is False.
    """
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return bool(flags and {"avx512_bf16", "amx_bf16", "bf16"} & set(flags[1].split()))


@dataclass(frozen=True)
class ExecutionOptions:
    """Options that change the speed and memory of a run, and its numbers only by rounding.

    Attributes:
        grad_checkpointing: Recompute activations in the backward pass: less memory, more time.
        workers: Number of processes that prepare batches ahead; 0 prepares them in the main
            process. None chooses the number; see `worker_count`.

    Raises:
        ConfigError: If `workers` is negative.
    """

    grad_checkpointing: bool = False
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise ConfigError(f"workers is {self.workers}; expected 0 or more, or None.")

    def worker_count(self, decodes_images: bool) -> int:
        """Return the number of worker processes that this process starts.

        This is `workers` if it is set. If it is None, the number is 0 if no images are decoded,
        otherwise the number of processor cores that this process may use, at least 1 and at most
        `MAX_WORKERS`. If `torchrun` has started several processes on this machine, each gets an
        equal share of the cores, rounded down.

        Args:
            decodes_images: Whether batches decode image files.
        """
        if self.workers is not None or not decodes_images:
            return self.workers or 0
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return max(1, min(MAX_WORKERS, (cores or 1) // processes))


@contextmanager
def prefetch(
    prepare: Callable[[int], Any], steps: range, workers: int, pin: bool = False
) -> Iterator[Iterator[Any]]:
    """Prepare the batch of each step ahead of time.

    Args:
        prepare: Function that returns the batch of a step, the same in any process.
        steps: Numbers of the steps.
        workers: Number of worker processes; 0 prepares each batch when it is requested.
        pin: Put the batches that workers prepare into pinned memory, which speeds up their copy to
            a GPU.

    Yields:
        An iterator over the batches. If `prepare` raises a DataError at a step, the iterator raises
        it at the same step. The workers end with the `with` block.
    """
    if workers == 0:
        yield map(prepare, steps)
        return
    loader = DataLoader(
        _StepDataset(prepare),
        sampler=steps,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=PREFETCH_FACTOR,
        pin_memory=pin,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),
    )
    resource_tracker.ensure_running()  # before the next line, since its start unblocks signals
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # workers inherit this
    try:
        batches: Any = iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    try:
        yield map(_raise_data_error, batches)
    finally:
        # Both attributes are private; they exist in PyTorch 2.9 to 2.13.
        batches._shutdown_workers()
        for worker in batches._workers:  # they ignore SIGTERM
            worker.kill()


class _StepDataset(Dataset):
    """Dataset whose item number `step` is the batch of that step.

    If `prepare` raises a DataError, the item is this error, since an error that is raised in a
    worker reaches the main process only as the text of a traceback.
    """

    def __init__(self, prepare: Callable[[int], Any]) -> None:
        self.prepare = prepare

    def __getitem__(self, step: int) -> Any:
        try:
            return self.prepare(step)
        except DataError as error:
            return error


def _raise_data_error(batch: Any) -> Any:
    if isinstance(batch, DataError):
        raise batch
    return batch


def _start_worker(worker: int) -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
