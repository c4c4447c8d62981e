"""Read the results of runs as tables; on request, compute those that are not stored.

`cae_lib.store` describes the files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pandas as pd

from cae_lib import store
from cae_lib.errors import ConfigError, DataError
from cae_lib.store import DATA_RUN as DATA_RUN
from cae_lib.store import index_of as index_of
from cae_lib.store import missing_runs as missing_runs
from cae_lib.store import provenance_table as provenance_table
from cae_lib.variants import Variant, find_variant


def load(
    table_name: str,
    profile_name: str = "mini",
    runs: Iterable[str] | None = None,
    seeds: int | Collection[int] | None = None,
    *,
    compute: bool = False,
    hours: float | None = 1.0,
    **settings: Any,
) -> pd.DataFrame:
    """Read a table of several runs as one frame.

    By default nothing is computed. With `compute`, each run and seed without stored results, or
    with results that are out of date, is trained and measured on this machine. The results are
    stored in `data/cache/own`, apart from the profile's tables. Later calls with `compute` read
    them from there until the settings of the run, the data or the versions change.

    Args:
        table_name: Name of a table, such as "benchmarks".
        profile_name: Name of the profile.
        runs: Names of runs, whose rows are returned in this order; "cae-gradcam+weight=0.3" is a
            run with another setting. If None, all runs that the profile's table contains are read.
        seeds: Number of seeds of each trained run, or the seeds themselves. If None, all stored
            seeds are read; with `compute`, seed 0 is computed for each run without a stored seed.
            If `runs` is None, requested seeds that are not stored are left out.
        compute: Train and measure those runs and seeds that are not yet stored; requires the
            argument `runs`.
        hours: The longest time in hours that a training may take on this machine, as estimated from
            its first steps; None for no limit.
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
    if runs is None:
        if compute or settings:
            raise ConfigError(
                "`compute` and settings apply to named runs: pass runs, such as ['clip-ft']"
            )
        return store.load(table_name, profile_name, None, seeds)
    index_of_rows = store.current_index if compute else store.index_of
    index = index_of_rows(table_name, profile_name)
    stored = {run for run, _ in index}

    def name_of(run: str) -> str:
        plain = not settings and (run in stored or not compute)
        return run if plain else find_variant(run, profile_name, **settings).name(profile_name)

    named = {name_of(run): run for run in runs}
    if not compute:
        return store.load(table_name, profile_name, named, seeds)
    rows_to_read = []
    for name, run in named.items():
        rows, absent = store.select(index, name, seeds, profile_name)
        for seed in absent:
            variant = find_variant(run, profile_name, **settings)
            rows[seed] = _computed(table_name, variant, profile_name, seed, hours)
        rows_to_read += [rows[seed] for seed in sorted(rows)]
    if not rows_to_read:
        raise DataError("no runs are given, so there is nothing to load")
    return store.read_rows(rows_to_read).to_pandas()


def _computed(
    table_name: str, variant: Variant, profile_name: str, seed: int, hours: float | None
) -> store.StoredRows:
    """Compute a table of one run and seed if needed, and return where its rows are stored.

    Raises:
        DataError: If no suite gives the table, if its data are missing, or if it has no rows.
    """
    from cae_lib.evaluation.suites import ALL_SUITES
    from cae_lib.measuring import compute_table

    run = variant.name(profile_name)
    if variant.run != DATA_RUN and table_name not in ALL_SUITES:
        raise store.not_stored_error(table_name, run, profile_name)
    compute_table(table_name, variant, profile_name, seed, hours)
    rows = store.index_of(table_name, profile_name, on_request=True).get((run, seed))
    if rows is None:
        raise DataError(
            f"{run}, seed {seed}: {table_name} has no rows with the data of the profile "
            f"{profile_name}"
        )
    return rows
