"""Compute the results that a page lacks, and say beforehand how many and about how long."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from statistics import median
from typing import NamedTuple

import pandas as pd

import book.studies  # noqa: F401  registers the suites that a page may load
from cae_lib import results, store
from cae_lib.config import Experiment, paths
from cae_lib.estimates import SECONDS_PER_TABLE, training_seconds
from cae_lib.profiles import experiment
from cae_lib.runtime import print_status
from cae_lib.variants import BASE, DATA_RUN, find_variant


class Missing(NamedTuple):
    """A run and seed whose rows of a table are not stored.

    Attributes:
        run: Name of the run in tables.
        seed: The seed.
        is_training: Whether the run has to be trained first.
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
    """Load a table as `results.load` does, and say what is computed before and during the work."""
    runs = list(runs)
    missing = missing_rows(table, profile_name, runs, seeds)
    if missing:
        print_status(describe(table, missing))
    for number, (run, seed, is_training, _) in enumerate(missing, 1):
        what = "training and measuring" if is_training else "measuring"
        print_status(f"{number} of {len(missing)}: {what} {table} of {run}, seed {seed}")
        results.load(table, profile_name, [run], [seed], compute=True, hours=hours)
    return results.load(table, profile_name, runs, seeds, compute=True, hours=hours)


def missing_rows(
    table: str, profile_name: str, runs: Iterable[str], seeds: int | Collection[int]
) -> list[Missing]:
    """Return runs and seeds of which neither the profile nor this clone stores current rows."""
    stored = store.current_index(table, profile_name)
    computed_here = store.index_of(table, profile_name, on_request=True)
    of_profile = {run for run, _ in stored}
    names = [
        run if run in of_profile else find_variant(run, profile_name).name(profile_name)
        for run in runs
    ]
    absent = [
        (run, seed)
        for run in dict.fromkeys(names)
        for seed in store.select(stored, run, seeds, profile_name)[1]
        if (run, seed) not in computed_here
    ]
    if not absent:
        return []
    walls = [rows.provenance.get("wall_seconds") for rows in stored.values()]
    measuring = median([wall for wall in walls if wall] or [SECONDS_PER_TABLE])
    missing = []
    for run, seed in absent:
        config = _untrained(run, profile_name, seed)
        training = training_seconds(config, _paces(profile_name)) if config else 0.0
        seconds = None if training is None else training + measuring
        missing.append(Missing(run, seed, config is not None, seconds))
    return missing


def _untrained(run: str, profile_name: str, seed: int) -> Experiment | None:
    """Return the settings of a run that has to be trained; None for any other run."""
    from cae_lib.models.checkpoint import read_meta
    from cae_lib.runs import checkpoint_path, training_inputs

    name, settings, _ = find_variant(run, profile_name)
    if name in (BASE, DATA_RUN):
        return None
    config = experiment(name, profile_name, seed=seed, **settings)
    path = checkpoint_path(name, profile_name, seed, **settings)
    meta = read_meta(path) if path.is_file() else None
    is_trained = meta is not None and meta.extra.get("identity") == training_inputs(config)
    return None if is_trained or not config.steps else config


def _paces(profile_name: str) -> list[float]:
    """Return the pairs per second of each step of the profile's latest training on this machine."""
    from cae_lib.training.state import read_log
    from cae_lib.training.trainer import LOG_FILE

    logs = (paths().checkpoints / profile_name).rglob(LOG_FILE)
    latest = max(logs, key=lambda path: path.stat().st_mtime, default=None)
    return [line["samples_per_second"] for line in read_log(latest)] if latest else []


def describe(table: str, missing: Collection[Missing]) -> str:
    """Describe what is computed for a table: how many trainings, about how long, and which runs."""
    n_trainings = sum(row.is_training for row in missing)
    n_others = len(missing) - n_trainings
    counts = [f"{n_trainings} training{'s' * (n_trainings > 1)}"] * bool(n_trainings)
    counts += [f"{n_others} measurement{'s' * (n_others > 1)}"] * bool(n_others)
    known = [row.seconds for row in missing if row.seconds is not None]
    minutes = max(1, round(sum(known) / 60))
    duration = f"about {minutes} minute{'s' * (minutes > 1)}"
    if len(known) < len(missing):
        duration = "of a duration that the first steps will show"
    seeds: dict[str, list[str]] = {}
    for row in missing:
        seeds.setdefault(row.run, []).append(str(row.seed))
    runs = "; ".join(
        f"{run}, seed{'s' * (len(numbers) > 1)} {', '.join(numbers)}"
        for run, numbers in seeds.items()
    )
    return f"{' and '.join(counts)}, {duration}, because {table} is not stored for: {runs}"
