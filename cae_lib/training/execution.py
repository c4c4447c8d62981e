"""How a training run is executed: its memory, and workers that prepare batches ahead."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from cae_lib.errors import ConfigError, DataError
from cae_lib.runtime import available_cores, end_with_parent

MAX_WORKERS = 16
"""Largest number of workers that a process starts if `ExecutionOptions.workers` is None."""

PREFETCH_FACTOR = 2
"""Number of batches that each worker holds ready."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Signals that only the main process handles: it finishes its step, saves, and ends its workers."""


@dataclass(frozen=True)
class ExecutionOptions:
    """Options that change the speed and memory of a run, and its numbers only by rounding.

    Attributes:
        workers: Number of processes that prepare batches ahead, 0 for none; None chooses it.
    """

    grad_checkpointing: bool = False
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise ConfigError(f"workers is {self.workers}; expected 0 or more, or None.")

    def worker_count(self, decodes_images: bool) -> int:
        """Return `workers`, or if it is None one for each core if batches decode image files."""
        if self.workers is not None or not decodes_images:
            return self.workers or 0
        # `torchrun` says how many of its processes share this machine.
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return max(1, min(MAX_WORKERS, available_cores() // processes))


@contextmanager
def prefetch(
    prepare: Callable[[int], Any], steps: range, workers: int, pin: bool = False
) -> Iterator[Iterator[Any]]:
    """Yield an iterator over the batches of steps, prepared ahead by workers if there are any.

    `pin` puts what workers prepare into pinned memory. A DataError of `prepare` is raised at the
    step that it concerns. The workers end with the `with` block.
    """
    if workers == 0:
        yield map(prepare, steps)
        return
    loader = DataLoader(
        _StepDataset(prepare),
        sampler=steps,
        # An item of the dataset is a whole batch, which must not be collated again.
        batch_size=None,
        num_workers=workers,
        prefetch_factor=PREFETCH_FACTOR,
        pin_memory=pin,
        worker_init_fn=_start_worker,
        # Otherwise the loader draws the workers' seed from the global generator.
        generator=torch.Generator(),
    )
    # The start of the resource tracker unblocks signals, so it has to come before they are blocked.
    resource_tracker.ensure_running()
    # Workers inherit the block, so that no signal ends them before `_start_worker` ignores it.
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        batches: Any = iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    try:
        yield map(_raise_data_error, batches)
    finally:
        # Both attributes are private; they exist in PyTorch 2.9 to 2.13.
        batches._shutdown_workers()
        # A worker that is still busy gets SIGTERM from the line above, and ignores it.
        for worker in batches._workers:
            worker.kill()


class _StepDataset(Dataset):
    """Dataset whose item number `step` is the batch of that step, or the DataError it raises."""

    def __init__(self, prepare: Callable[[int], Any]) -> None:
        self.prepare = prepare

    def __getitem__(self, step: int) -> Any:
        try:
            return self.prepare(step)
        except DataError as error:
            # Raised in a worker, it would reach the main process as the text of a traceback.
            return error


def _raise_data_error(batch: Any) -> Any:
    if isinstance(batch, DataError):
        raise batch
    return batch


def _start_worker(worker: int) -> None:
    # Ctrl-C reaches all processes of a terminal, but only the main process decides when to stop.
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # A main process that is killed cannot end its workers.
    end_with_parent()
