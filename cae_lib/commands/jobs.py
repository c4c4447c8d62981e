"""Independent jobs side by side: on a CPU one process a core with one thread each. Small models
gain little from a second thread. And sums on one thread have one order: a result does not depend on
what runs beside it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from functools import cache
from types import FrameType
from typing import Any, NamedTuple

from cae_lib.data.sources import allowed, allowing
from cae_lib.errors import Terminated
from cae_lib.runtime import PROGRESS_LINES, end_with_parent, format_seconds, pick_device

MOST_WORKERS = 8
WORKER_BYTES = 5_300_000_000
"""What a worker may take: it keeps what it reads, and memory, for later jobs (mini: 5.2 GB)."""

MEMORY = {
    "THP_MEM_ALLOC_ENABLE": "1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:"
                      "glibc.malloc.trim_threshold=4294967296",
}
"""Lets torch and glibc take tensors from huge pages, and keep them for the next ones: a tenth of a
perturbation step's time."""


class Outcome(NamedTuple):
    """What a job returned, and how long it took in seconds."""

    value: Any
    seconds: float


def run_jobs(jobs: Mapping[str, Callable[[], Any]],
             workers: int | None = None) -> dict[str, Outcome]:
    """Run functions at module level or `partial`s of them by label, and say when each is done. The
    first job that fails ends the run: jobs in progress are finished, the others are not started.
    Ctrl-C, which workers get too, and SIGTERM, which is passed on to them, end jobs in progress."""
    here = 1 if multiprocessing.parent_process() else default_workers()  # 1 within a job
    workers = workers or here
    if min(workers, len(jobs)) <= 1:
        return {label: _told(label, _timed(action)) for label, action in jobs.items()}
    executor = _processes(workers, os.environ.get("CAE_HOME"))
    try:
        labels = {executor.submit(_work, action, allowed()): label
                  for label, action in jobs.items()}
        done = {labels[future]: _told(labels[future], future.result())
                for future in as_completed(labels)}
    except BaseException as error:
        _processes.cache_clear()
        if isinstance(error, Terminated):
            for worker in multiprocessing.active_children():
                worker.terminate()
        executor.shutdown(cancel_futures=True)
        raise
    return {label: done[label] for label in jobs}


@cache
def _processes(workers: int, home: str | None) -> ProcessPoolExecutor:
    """Processes that stay for later jobs of one home, and with them what the library has cached."""
    for name, value in MEMORY.items():
        os.environ.setdefault(name, value)  # read by a process when it starts
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, initializer=_start_worker)


def default_workers() -> int:
    """As many as `cpu_workers`, or a single one beside a GPU."""
    return cpu_workers() if pick_device().type == "cpu" else 1


def cpu_workers() -> int:
    """One process a core as far as the memory goes."""
    linux = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(cores, MOST_WORKERS, memory // WORKER_BYTES))


def _start_worker() -> None:
    import torch

    end_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for the kernel of a page, which is a process of its own
    os.environ[PROGRESS_LINES] = "1"


class _Worker:
    """Whether this worker is at a job, and whether it was asked to end."""

    at_work = False
    interrupted = False


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End the job in progress, if there is one; a further signal does not disturb its end."""
    first, _Worker.interrupted = not _Worker.interrupted, True
    if first and _Worker.at_work:
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _work(action: Callable[[], Any], incomplete: Iterable[str]) -> Outcome:
    """Run a job in a worker. One that was interrupted takes no more: the executor has handed out
    jobs ahead, which it cannot take back."""
    if _Worker.interrupted:
        raise KeyboardInterrupt
    _Worker.at_work = True
    try:
        return _timed(action, incomplete)
    except KeyboardInterrupt:  # that of a training, which heeds signals by itself
        _Worker.interrupted = True
        raise
    finally:
        _Worker.at_work = False


def _timed(action: Callable[[], Any], incomplete: Iterable[str] | None = None) -> Outcome:
    """Run a job, in another process with the sets `incomplete` that may be so in this one."""
    start = time.monotonic()
    with nullcontext() if incomplete is None else allowing(incomplete):
        return Outcome(action(), time.monotonic() - start)


def _told(label: str, outcome: Outcome) -> Outcome:
    print(f"done: {label} ({format_seconds(outcome.seconds)})", flush=True)
    return outcome
