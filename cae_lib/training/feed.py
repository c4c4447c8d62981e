"""Batches prepared ahead by worker processes, so that a GPU need not wait for its pictures."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing import resource_tracker
from multiprocessing.util import Finalize
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils import signal_handling

from cae_lib.errors import DataError
from cae_lib.runtime import end_with_parent
from cae_lib.training.batch import Batch, Batches

AHEAD = 2
"""Batches that each worker holds ready: memory is bounded by workers * AHEAD batches."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Left to the main process: it finishes its step, saves, and then ends its workers."""


def feed(
    batches: Batches, start: int, end: int, workers: int, pin: bool = False
) -> Iterator[Batch]:
    """The batches of steps `start` to `end` (exclusive), in order, the same for any `workers`.

    Args:
        batches: the batches of a run.
        start: first step.
        end: step after the last one.
        workers: processes that prepare whole batches; 0 prepares each when it is asked for.
        pin: put batches of workers in pinned memory, from which a GPU copies faster.

    Raises:
        DataError: a picture is missing or broken; raised in its step's turn.
    """
    if workers == 0:
        yield from map(batches.at, range(start, end))
        return
    loader = DataLoader(
        _Steps(batches),
        sampler=range(start, end),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=AHEAD,
        pin_memory=pin,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),
    )
    with ExitStack() as stack:
        resource_tracker.ensure_running()  # when it starts, it lets signals through
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # for the workers, too
        try:
            source = iter(loader)
            stack.callback(Finalize(None, _end, (source,), exitpriority=0))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for batch in source:
            if isinstance(batch, str):
                raise DataError(batch)
            yield batch


class _Steps(Dataset):
    """Step numbers to batches; an error in the data becomes its message."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __getitem__(self, step: int) -> Batch | str:
        try:
            return self._batches.at(step)
        except DataError as error:
            return str(error)


def _start_worker(worker: int) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def _end(source: Any) -> None:
    """Dismiss the workers of a loader's iterator, and kill those that stay.

    As Python exits, it would else wait for them for ever: they ignore the signal to end.
    """
    try:
        source._shutdown_workers()  # does nothing as Python exits
    finally:
        if source._worker_pids_set:
            signal_handling._remove_worker_pids(id(source))  # their end is no error
            source._worker_pids_set = False
        for worker in source._workers:
            worker.kill()
