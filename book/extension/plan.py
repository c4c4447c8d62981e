"""Compute the results that a page lacks, and say beforehand how many and about how long."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from statistics import median
from typing import NamedTuple

import pandas as pd

from book.studies import ALL_SUITES
from cae_lab import results, store
from cae_lab.estimates import SECONDS_PER_TABLE, training_seconds
from cae_lab.profiles import load_profile
from cae_lab.runs import Profile
from cae_lib.config import paths
from cae_lib.runtime import print_status


class Missing(NamedTuple):
    """A run and seed whose rows of a table are not stored.

    Attributes:
        is_training: The run has to be trained first.
        seconds: Estimated time to compute the rows; None if nothing is known of the model.
    """

    run: str
    seed: int
    is_training: bool
    seconds: float | None


def load(
    table: str,
    profile_name: str,
    runs: Iterable[str],
    seeds: int | Collection[int],
    hours: float | None,
) -> pd.DataFrame:
    """Load a table as `results.load` does, and announce what is computed."""
    runs, profile = list(runs), load_profile(profile_name)
    missing = missing_rows(table, profile, runs, seeds)
    if missing:
        print_status(describe(table, missing))
    for number, (run, seed, is_training, _) in enumerate(missing, 1):
        what = "training and measuring" if is_training else "measuring"
        print_status(f"{number} of {len(missing)}: {what} {table} of {run}, seed {seed}")
        # One at a time, so that its message stands directly above its progress.
        results.load(table, profile, [run], [seed], compute=True, hours=hours, suites=ALL_SUITES)
    return results.load(table, profile, runs, seeds, compute=True, hours=hours, suites=ALL_SUITES)


def missing_rows(
    table: str, profile: Profile, runs: Iterable[str], seeds: int | Collection[int]
) -> list[Missing]:
    """Return runs and seeds of which no current rows are stored."""
    stored = results.current_rows(table, profile, ALL_SUITES)
    stored_runs = {run for run, _ in stored}
    names = dict.fromkeys(run if run in stored_runs else profile.run(run).name for run in runs)
    absent = [
        profile.run(name, seed)
        for name in names
        for seed in store.select(stored, name, seeds, profile)[1]
    ]
    if not absent:
        return []
    # What this measurement took for other runs is the best guess for the missing ones.
    walls = [rows.provenance.get("wall_seconds") for rows in stored.values()]
    measuring = median([wall for wall in walls if wall] or [SECONDS_PER_TABLE])
    missing = []
    for run in absent:
        is_training = run.is_trained_here and not run.is_trained()
        paces = _paces(profile.name) if is_training else []
        training = training_seconds(run.config, paces) if is_training else 0.0
        seconds = None if training is None else training + measuring
        missing.append(Missing(run.name, run.seed, is_training, seconds))
    return missing


def _paces(profile_name: str) -> list[float]:
    """Return the pairs per second of each step of the profile's latest training here, if any."""
    from cae_lib.models.checkpoint import read_log
    from cae_lib.training.trainer import LOG_FILE

    logs = (paths().checkpoints / profile_name).rglob(LOG_FILE)
    latest = max(logs, key=lambda path: path.stat().st_mtime, default=None)
    return [line["samples_per_second"] for line in read_log(latest)] if latest else []


def describe(table: str, missing: Collection[Missing]) -> str:
    """Say how many trainings and measurements a table needs, about how long, and of which runs."""
    n_trainings = sum(row.is_training for row in missing)
    n_others = len(missing) - n_trainings
    counts = [f"{n_trainings} training{'s' * (n_trainings > 1)}"] * bool(n_trainings)
    counts += [f"{n_others} measurement{'s' * (n_others > 1)}"] * bool(n_others)
    estimates = [row.seconds for row in missing if row.seconds is not None]
    minutes = max(1, round(sum(estimates) / 60))
    duration = f"about {minutes} minute{'s' * (minutes > 1)}"
    if len(estimates) < len(missing):
        duration = "of a duration that the first steps will show"
    seeds: dict[str, list[str]] = {}
    for row in missing:
        seeds.setdefault(row.run, []).append(str(row.seed))
    runs = "; ".join(
        f"{run}, seed{'s' * (len(numbers) > 1)} {', '.join(numbers)}"
        for run, numbers in seeds.items()
    )
    return f"{' and '.join(counts)}, {duration}, because {table} is not stored for: {runs}"
