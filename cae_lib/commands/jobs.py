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
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import torch

from cae_lib.errors import ConfigError
from cae_lib.runtime import PROGRESS_LINES, end_with_parent, format_seconds, pick_device

MOST_WORKERS = 8
WORKER_BYTES = 4_400_000_000
"""What a worker may take: it keeps the training set between jobs (mini: 4.3 GB at most)."""

HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
"""Lets torch take large tensors from huge pages: a tenth of a perturbation step's time."""


@dataclass(frozen=True)
class Job:
    """A call `action(*arguments)` of a function at module level.

    Attributes:
        label: Names the job in its progress line.
        action: What to call.
        arguments: What to call it with.
        after: Labels of the jobs that have to be done before; they stand before this one.
    """

    label: str
    action: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    after: tuple[str, ...] = ()


@dataclass
class Outcome:
    """What a job returned, and how long it took in seconds."""

    value: Any
    seconds: float = field(default=0.0)


def run_jobs(jobs: Iterable[Job], workers: int | None = None) -> dict[str, Outcome]:
    """Run jobs in the order given as far as they need not wait, and say when each one is done.

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
    os.environ.setdefault(HUGE_PAGES, "1")  # read by a worker's torch when it starts
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, context, initializer=_start_worker)
    try:
        done = _run_graph(jobs, executor)
    finally:
        executor.shutdown(cancel_futures=True)
    return {job.label: done[job.label] for job in jobs}


def _run_graph(jobs: list[Job], executor: ProcessPoolExecutor) -> dict[str, Outcome]:
    """Submit each job as soon as those that it waits for are done."""
    done: dict[str, Outcome] = {}
    waiting, running = jobs, {}
    while waiting or running:
        ready = [job for job in waiting if done.keys() >= set(job.after)]
        waiting = [job for job in waiting if job not in ready]
        running |= {executor.submit(_timed, job.action, job.arguments): job for job in ready}
        if not running:
            missing = next(name for name in waiting[0].after if name not in done)
            raise ConfigError(f"no job is named {missing!r}, for which others wait")
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in finished:
            label = running.pop(future).label
            done[label] = _told(label, future.result())
    return done


def default_workers() -> int:
    """One process a core as far as the memory goes, or a single one beside a GPU."""
    if pick_device().type != "cpu":
        return 1
    linux = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(cores, MOST_WORKERS, memory // WORKER_BYTES))


def _start_worker() -> None:
    end_with_parent()
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
