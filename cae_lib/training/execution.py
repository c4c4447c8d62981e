"""How a training run is executed: speed and memory, and workers that prepare batches ahead."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.util import Finalize
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils import signal_handling

from cae_lib.errors import ConfigError, DataError
from cae_lib.runtime import end_with_parent

# Worker processes chosen at most, and the batches that each of them holds ready.
MAX_WORKERS, AHEAD = 16, 2
# Left to the main process: it finishes its step, saves, and then ends its workers.
SIGNALS = (signal.SIGINT, signal.SIGTERM)
ImageEncoder = Callable[[nn.Module, Tensor], Tensor]


@dataclass(frozen=True)
class Execution:
    """Options that change a run's speed and memory; its numbers change by rounding at most.

    Attributes:
        checkpointing: recompute activations in the backward pass: less memory, more time.
        channels_last: store pictures and convolutions channel by channel last, as GPUs prefer.
        compile: backend of `torch.compile` for the image tower ("inductor"); None does without.
            Packed captions have another length in every batch, too many to compile.
        workers: processes that prepare batches ahead; 0 prepares each in the main process, None
            takes several where photographs are decoded, else 0.
    """
    checkpointing: bool = False
    channels_last: bool = False
    compile: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise ConfigError(f"workers is {self.workers}; expected 0 or more, or None.")
        if self.compile is not None:
            known = torch._dynamo.list_backends(exclude_tags=())
            if self.compile not in known:
                raise ConfigError(
                    f"unknown compile backend {self.compile!r}: expected one of {', '.join(known)}."
                )

    def prepare(self, model: nn.Module) -> None:
        if self.checkpointing:
            model.set_grad_checkpointing(True)
        if self.channels_last:
            model.to(memory_format=torch.channels_last)

    def image_encoder(self, encode: ImageEncoder) -> ImageEncoder:
        """`encode` with pictures laid out and compiled as asked for."""
        encoder = torch.compile(encode, backend=self.compile) if self.compile else encode
        if not self.channels_last:
            return encoder
        layout = torch.channels_last
        return lambda model, pixels: encoder(model, pixels.contiguous(memory_format=layout))

    def worker_count(self, decoding: bool, ranks: int) -> int:
        """Workers of each of the `ranks` that share this machine; `decoding` is their work."""
        if self.workers is not None:
            return self.workers
        if not decoding:
            return 0
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return max(1, min(MAX_WORKERS, (cores or 1) // ranks))


def feed(batches: Any, start: int, end: int, workers: int, pin: bool = False) -> Iterator[Any]:
    """What `batches.at(step)` gives for `start` to `end` (exclusive), the same for any `workers`:
    processes that prepare whole batches; 0 prepares each when it is asked for. `pin` puts theirs in
    pinned memory, from which a GPU copies faster. A broken picture is a DataError in its turn."""
    if workers == 0:
        yield from map(batches.at, range(start, end))
        return
    loader = DataLoader(
        _Loaded(batches), sampler=range(start, end), batch_size=None, num_workers=workers,
        prefetch_factor=AHEAD, pin_memory=pin, worker_init_fn=_start_worker,
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


class _Loaded(Dataset):
    """Step numbers to batches; an error in the data becomes its message."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches

    def __getitem__(self, step: int) -> Any:
        try:
            return self._batches.at(step)
        except DataError as error:
            return str(error)


def _start_worker(worker: int) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def _end(source: Any) -> None:
    """Dismiss the workers of a loader's iterator; Python would else wait for them for ever."""
    try:
        source._shutdown_workers()  # does nothing as Python exits
    finally:
        if source._worker_pids_set:
            signal_handling._remove_worker_pids(id(source))  # their end is no error
            source._worker_pids_set = False
        for worker in source._workers:
            worker.kill()
