"""Independent jobs side by side: on a CPU one process a core with one thread each.

Small models gain little from a second thread, so this is faster than one job after the other on
all threads. And a computation on one thread has one order of summation: its result does not depend
on what runs beside it.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

import torch

from cae_lib.runtime import PROGRESS_LINES, format_seconds, pick_device

MOST_WORKERS = 8
"""Each worker holds the training set and the decoded pictures of the benchmarks, some 2 GB."""


@dataclass(frozen=True)
class Job:
    """A call `action(*arguments)` of a function at module level, with a label for its progress."""

    label: str
    action: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


@dataclass
class Outcome:
    """What a job returned, and how long it took in seconds."""

    value: Any
    seconds: float = field(default=0.0)


def run_jobs(jobs: Iterable[Job], workers: int | None = None) -> dict[str, Outcome]:
    """Run jobs in the order given, several at a time, and say when each one is done.

    Processes are kept from job to job, and with them what the library has cached. The first job
    that fails ends the run: jobs in progress are finished, the others are not started.

    Args:
        jobs: Jobs with different labels.
        workers: Processes; None takes one a core, or a single one beside a GPU.

    Returns:
        The outcomes by label, in the order of `jobs`.
    """
    jobs = list(jobs)
    workers = min(workers or default_workers(), len(jobs))
    if workers <= 1:
        return {job.label: _told(job.label, _timed(job.action, job.arguments)) for job in jobs}
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, context, initializer=_start_worker)
    try:
        futures: dict[Future[Outcome], Job] = {
            executor.submit(_timed, job.action, job.arguments): job for job in jobs
        }
        done = {
            futures[future].label: _told(futures[future].label, future.result())
            for future in as_completed(futures)
        }
    finally:
        executor.shutdown(cancel_futures=True)
    return {job.label: done[job.label] for job in jobs}


def default_workers() -> int:
    """One process a core that this process may use, or a single one beside a GPU."""
    if pick_device().type != "cpu":
        return 1
    return min(len(os.sched_getaffinity(0)), MOST_WORKERS) if _linux() else os.cpu_count() or 1


def _linux() -> bool:
    return hasattr(os, "sched_getaffinity")


def _start_worker() -> None:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for the kernel of a page, which is a process of its own
    os.environ[PROGRESS_LINES] = "1"


def _timed(action: Callable[..., Any], arguments: tuple[Any, ...]) -> Outcome:
    start = time.monotonic()
    value = action(*arguments)
    return Outcome(value, time.monotonic() - start)


def _told(label: str, outcome: Outcome) -> Outcome:
    print(f"done: {label} ({format_seconds(outcome.seconds)})", flush=True)
    return outcome
