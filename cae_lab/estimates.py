"""Estimate how long trainings, and the jobs of a reproduction, take on this machine."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from statistics import median
from typing import NamedTuple

from cae_lib.config import Experiment

SMALL_MODELS, SECONDS_PER_PAIR = ("clip-mini", "clip-photo"), 0.0018
"""The small models, and the time that a training of one takes for each pair of image and caption in
a batch, on one core of a CPU. CLIP-FT takes about half as long, and the method "perturbation" three
times as long."""

SECONDS_PER_TABLE = 20.0
"""Time that it takes to measure a table of which no time is stored."""


class Job(NamedTuple):
    """A part of a reproduction.

    Attributes:
        kind: What is done, such as "run" or "page". Jobs of one kind have one pace.
        expected: Expected duration in seconds. Only its ratio to those of other jobs matters.
        seconds: How long the job took; None if it is not done.
    """

    kind: str
    expected: float
    seconds: float | None = None


def training_seconds(config: Experiment, paces: Collection[float] = ()) -> float | None:
    """Estimate how long a training takes.

    Args:
        config: The run.
        paces: Pairs per second in some steps of a training of the same model on this machine. If
            there are any, their median is used in place of `SECONDS_PER_PAIR`.

    Returns:
        Seconds; None if there are no `paces` and the model is none of the `SMALL_MODELS`.
    """
    if not paces and config.model not in SMALL_MODELS:
        return None
    seconds_per_pair = 1 / median(paces) if paces else SECONDS_PER_PAIR
    return seconds_per_pair * config.batch_size * config.steps


def seconds_left(jobs: Sequence[Job], n_parallel: int) -> float | None:
    """Estimate how long the unfinished jobs take.

    A kind of jobs has the pace at which its finished jobs went: their duration as a multiple of the
    expected one. A kind without a finished job has the pace of the kind with the most work.

    Args:
        jobs: All jobs, finished or not.
        n_parallel: How many jobs run side by side.

    Returns:
        Seconds; None if no job of the kind with the most work is done, since jobs of other kinds
        say nothing about this kind.
    """
    work: dict[str, float] = {}
    for job in jobs:
        work[job.kind] = work.get(job.kind, 0) + job.expected
    pace: dict[str, float] = {}
    for kind in work:
        done = [job for job in jobs if job.kind == kind and job.seconds is not None]
        if done:
            pace[kind] = sum(job.seconds or 0 for job in done) / sum(job.expected for job in done)
    largest = max(work, key=lambda kind: work[kind])
    if largest not in pace:
        return None
    left = (job for job in jobs if job.seconds is None)
    return sum(job.expected * pace.get(job.kind, pace[largest]) for job in left) / n_parallel
