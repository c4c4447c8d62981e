"""Estimate how long trainings, and the jobs of a reproduction, take on this machine."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from statistics import median
from typing import NamedTuple

from cae_lib.config import Experiment

# The time is that of a training for each image-caption pair of a batch, on one core of a CPU.
# CLIP-FT takes about half as long, and the method "perturbation" three times as long.
SMALL_MODELS, SECONDS_PER_PAIR = ("clip-mini", "clip-photo"), 0.0018
# Kind of the trainings of other models, whose pace only a finished one of them tells.
LARGE_RUN = "large run"
SECONDS_PER_TABLE = 20.0  # to measure a table of which no time is stored


class Job(NamedTuple):
    """A part of a reproduction."""

    kind: str  # such as "run", `LARGE_RUN` or "page"; jobs of one kind have one pace
    expected: float  # duration in seconds, of which only the ratio to other jobs matters
    seconds: float | None = None  # that it took; None if it is not done
    training: float = 0.0  # the part of `expected` that a training takes


def training_seconds(config: Experiment, paces: Collection[float] = ()) -> float | None:
    """Return the seconds that a training takes; None for a larger model without `paces`.

    `paces` are pairs per second in steps of a training of the same model on this machine.
    """
    if not paces and config.model not in SMALL_MODELS:
        return None
    seconds_per_pair = 1 / median(paces) if paces else SECONDS_PER_PAIR
    return seconds_per_pair * config.batch_size * config.steps


def seconds_left(jobs: Sequence[Job], n_parallel: int) -> float | None:
    """Return how long the unfinished jobs take; None before a job of the largest kind is done."""
    work: dict[str, float] = {}
    for job in jobs:
        work[job.kind] = work.get(job.kind, 0) + job.expected
    # By kind, how long the finished jobs took as a multiple of what was expected of them.
    pace: dict[str, float] = {}
    for kind in work:
        of_kind = (job for job in jobs if job.kind == kind)
        done = [job for job in of_kind if job.seconds is not None and job.expected]
        if done:
            pace[kind] = sum(job.seconds or 0 for job in done) / sum(job.expected for job in done)
    # Other kinds, such as building the datasets, say nothing about the kind with the most work.
    largest = max(work, key=lambda kind: work[kind])
    if largest not in pace:
        return None
    # A kind without a finished job goes at the pace of the largest if this machine is slow.
    # Trainings of larger models, or that are faster than expected, say nothing about pages.
    other = 1.0 if largest == LARGE_RUN else max(1.0, pace[largest])
    left = (job for job in jobs if job.seconds is None)
    return sum(job.expected * pace.get(job.kind, other) for job in left) / n_parallel
