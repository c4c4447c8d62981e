"""Batches prepared ahead by worker processes, so that a GPU need not wait for its pictures."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset

from cae_lib.errors import DataError
from cae_lib.training.batch import Batch, Batches

AHEAD = 2
"""Batches that each worker holds ready: memory is bounded by workers * AHEAD batches."""


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
        worker_init_fn=_ignore_signals,
        generator=torch.Generator(),
    )
    for batch in loader:
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


def _ignore_signals(worker: int) -> None:
    """Let the main process decide: it finishes its step, saves, and then ends its workers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
