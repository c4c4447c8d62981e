"""How a training run is executed: speed and memory, and workers that prepare batches ahead."""

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
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cae_lib.errors import ConfigError, DataError
from cae_lib.runtime import end_with_parent

# Worker processes chosen at most, and the batches that each of them holds ready.
MAX_WORKERS, AHEAD = 16, 2
# Left to the main process: it finishes its step, saves, and then ends its workers.
SIGNALS = (signal.SIGINT, signal.SIGTERM)
ImageEncoder = Callable[[nn.Module, Tensor], Tensor]


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Return whether a run computes in bfloat16 (autocast) on a device.

    "auto" takes it on GPUs and on processors that have it: others take several times as long in it
    as in float32. ConfigError for another name than "fp32", "bf16" or "auto".
    """
    if precision not in ("fp32", "bf16", "auto"):
        raise ConfigError(f"unknown precision {precision!r}: expected fp32, bf16 or auto.")
    native = device.type != "cpu" or native_bf16()
    return precision == "bf16" or precision == "auto" and native


def native_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether Linux says that the processor computes in bfloat16 (AMX, AVX-512 or ARM)."""
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return bool(flags and {"avx512_bf16", "amx_bf16", "bf16"} & set(flags[1].split()))


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
        if self.compile is None:
            return
        if self.compile not in (known := torch._dynamo.list_backends(exclude_tags=())):
            raise ConfigError(
                f"unknown compile backend {self.compile!r}: expected one of {', '.join(known)}."
            )

    def prepare(self, model: nn.Module, encode: ImageEncoder) -> ImageEncoder:
        """Set up a model; returns `encode` of pictures, laid out and compiled as asked for."""
        if self.checkpointing:
            model.set_grad_checkpointing(True)
        encoder = torch.compile(encode, backend=self.compile) if self.compile else encode
        if not self.channels_last:
            return encoder
        layout = torch.channels_last
        model.to(memory_format=layout)
        return lambda model, pixels: encoder(model, pixels.contiguous(memory_format=layout))

    def worker_count(self, decoding: bool) -> int:
        """Workers of this process, if `decoding` is their work; those that `torchrun` has started
        on this machine share its cores."""
        if self.workers is not None or not decoding:
            return self.workers or 0
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return max(1, min(MAX_WORKERS, (cores or 1) // processes))


@contextmanager
def feed(
    prepare: Callable[[int], Any], steps: range, workers: int, pin: bool = False
) -> Iterator[Iterator[Any]]:
    """What `prepare` gives for each step, the same for any number of `workers`: processes that
    prepare batches ahead; 0 prepares each when it is asked for. `pin` puts theirs in pinned memory,
    from which a GPU copies faster. A broken picture is a DataError in its turn."""
    if workers == 0:
        yield map(prepare, steps)
        return
    loader = DataLoader(
        _Prepared(prepare),
        sampler=steps,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=AHEAD,
        pin_memory=pin,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),
    )
    resource_tracker.ensure_running()  # when it starts, it lets signals through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # for the workers, too
    try:
        source = iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield map(_checked, source)
    finally:
        source._shutdown_workers()
        for worker in source._workers:  # they take no SIGTERM
            worker.kill()


class _Prepared(Dataset):
    """Step numbers to batches. An error in the data is given out in the place of the batch, since
    one that is raised would become a traceback on its way."""

    def __init__(self, prepare: Callable[[int], Any]) -> None:
        self.prepare = prepare

    def __getitem__(self, step: int) -> Any:
        try:
            return self.prepare(step)
        except DataError as error:
            return error


def _checked(batch: Any) -> Any:
    if isinstance(batch, DataError):
        raise batch
    return batch


def _start_worker(worker: int) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
