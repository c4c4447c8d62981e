"""Read the results of runs as tables; on request, compute those that are not stored.

`cae_lab.store` describes the files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pandas as pd

from cae_lab import store
from cae_lab.names import DATA_RUN as DATA_RUN
from cae_lab.profiles import load_profile
from cae_lab.runs import Profile, is_trained_here
from cae_lab.suites import SUITES, Suite
from cae_lib.errors import ConfigError, DataError


def load(
    table: str,
    profile: Profile | str = "mini",
    runs: Iterable[str] | None = None,
    seeds: int | Collection[int] | None = None,
    *,
    compute: bool = False,
    hours: float | None = 1.0,
    suites: Mapping[str, Suite] = SUITES,
    **settings: Any,
) -> pd.DataFrame:
    """Read a table of several runs as one frame.

    By default nothing is computed. With `compute`, each run and seed without stored results, or
    with results that are out of date, is trained and measured on this machine, and the results are
    stored in `runs`.

    Args:
        table: Name of a table, such as "benchmarks".
        profile: The profile, or its name.
        runs: Names of runs, whose rows are returned in this order; "cae-gradcam+weight=0.3" is a
            run with another setting. If None, all runs that the profile's table contains are read.
        seeds: Number of seeds of each trained run, or the seeds themselves. If None, all stored
            seeds are read; with `compute`, seed 0 is computed for each run without a stored seed.
            If `runs` is None, requested seeds that are not stored are left out.
        compute: Train and measure those runs and seeds that are not yet stored; requires the
            argument `runs`.
        hours: The longest time in hours that a training may take on this machine, as estimated from
            its first steps; None for no limit.
        suites: The suites that can be computed, by name.
        **settings: Settings that differ from the profile's, such as `weight=0.3`. They can be given
            only together with the argument `runs`, and apply to all of the runs named there except
            "base" and "data".

    Returns:
        The rows of all runs and seeds, with the columns `run` and `seed` and those of the table.

    Raises:
        DataError: If results are not stored or out of date (the settings of the run or a version
            have changed since), and cannot be computed, for one of three reasons: `compute` is
            false, no suite gives the table, or data are missing. The message names what has changed
            and the command to run.
        ConfigError: If the profile is unknown; if the argument `compute` or any settings are
            passed without `runs`; with one of the two, if a run or setting is unknown or a value
            has the wrong type; or if `seeds` is a number below 1.
        CheckpointError: If weights that a run starts from, or that are measured, are missing or
            damaged.
        TimeLimitError: If a training would take longer than the limit that `hours` sets.
        WriteError: If the weights or the tables that were computed cannot be written.
    """
    profile = load_profile(profile) if isinstance(profile, str) else profile
    if runs is None:
        if compute or settings:
            raise ConfigError(
                "`compute` and settings apply to named runs: pass runs, such as ['clip-ft']"
            )
        return store.load(table, profile, None, seeds, suites)
    # Outdated rows count as missing if they can be computed. Otherwise `store.load` refuses them,
    # with a message that says what has changed.
    index = (current_rows if compute else store.index_of)(table, profile, suites)
    stored = {run for run, _ in index}
    names = {}
    for run in runs:
        # A stored name need not be a run, such as the name of a foreign model, so it is not parsed.
        is_plain = not settings and (run in stored or not compute)
        names[run if is_plain else profile.run(run, **settings).name] = None
    if compute:
        for name in names:
            rows, absent = store.select(index, name, seeds, profile)
            # `current_rows` compares settings and versions, the key also the data.
            absent += [
                seed for seed in rows if _is_outdated(rows[seed], profile, suites.get(table))
            ]
            for seed in absent:
                _compute(table, name, seed, profile, hours, suites)
    return store.load(table, profile, names, seeds, suites)


def current_rows(table: str, profile: Profile, suites: Mapping[str, Suite] = SUITES) -> store.Index:
    """Return the index of the rows of a table that are up to date, sorted by run and seed."""
    return {
        key: rows
        for key, rows in store.index_of(table, profile, suites).items()
        if not store.describe_changes(rows, profile, suites)
    }


def _is_outdated(rows: store.StoredRows, profile: Profile, suite: Suite | None) -> bool:
    """Return whether a result that was computed here has another key by now."""
    from cae_lab.measuring import is_measured

    # Results that came with the clone are not checked, as the key needs the data.
    is_own = rows.path == store.result_path(rows.path.stem, rows.run, rows.seed, profile)
    if not is_own or suite is None or not is_trained_here(rows.run, profile):
        return False
    return not is_measured(profile.run(rows.run, rows.seed), suite)


def _compute(
    table: str,
    name: str,
    seed: int,
    profile: Profile,
    hours: float | None,
    suites: Mapping[str, Suite],
) -> None:
    """Train a run if needed, and measure one table of it; without rows, raise DataError."""
    from cae_lab.measuring import measure, measure_data

    run = profile.run(name, seed)
    if run.entry == DATA_RUN:
        measure_data(profile)
    elif table in suites:
        if run.is_trained_here:
            run.train(hours=hours)
        measure(run, [suites[table]], may_be_missing=False)
    if (run.name, run.seed) not in store.index_of(table, profile, suites):
        if run.entry != DATA_RUN and table not in suites:
            raise store.not_stored_error(table, run.name, profile)
        raise DataError(
            f"{run.name}, seed {seed}: {table} has no rows with the data of the profile "
            f"{profile.name}"
        )


def index_of(
    table: str, profile: Profile | str, suites: Mapping[str, Suite] = SUITES
) -> store.Index:
    """Return where the rows of a table are stored, sorted by run and seed."""
    profile = load_profile(profile) if isinstance(profile, str) else profile
    return store.index_of(table, profile, suites)


def is_stored(
    table: str,
    run: str,
    seeds: int,
    profile: Profile | str,
    suites: Mapping[str, Suite] = SUITES,
) -> bool:
    """Return whether a profile stores rows of a table for a run and the seeds below a number."""
    index = index_of(table, profile, suites)
    return all((run, seed) in index for seed in range(seeds))


def missing_runs(
    table: str,
    runs: Iterable[str],
    profile: Profile | str,
    suites: Mapping[str, Suite] = SUITES,
) -> list[str]:
    """Return those of the `runs` for which a profile has no stored rows of a table."""
    profile = load_profile(profile) if isinstance(profile, str) else profile
    return store.missing_runs(table, runs, profile, suites)


def provenance_table(profile: Profile | str, suites: Mapping[str, Suite] = SUITES) -> pd.DataFrame:
    """Return the provenance of all tables of a profile as a frame.

    There is one row for each table, run and seed. The columns are `table`, `run`, `seed`, `key`,
    `suite`, `device`, `wall_seconds` and `current`. The column `current` says whether the rows are
    up to date (see `store.describe_changes`); `current` and `suite` are None for tables that do not
    come from a suite, such as those of a search for settings.
    """
    profile = load_profile(profile) if isinstance(profile, str) else profile
    return store.provenance_table(profile, suites)
