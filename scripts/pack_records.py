"""Pack the results of a profile into its published tables: `python scripts/pack_records.py mini`.

What `runs/PROFILE` holds of the runs that `cae reproduce --all` makes replaces their rows in
`data/records/PROFILE`; all other rows stay.
"""

from __future__ import annotations

import sys

from book.studies import ALL_SUITES
from cae_lab import grid, store
from cae_lab.cli import run_reporting_errors
from cae_lab.profiles import load_profile


def main(name: str) -> None:
    """Pack the current results, and say of how many runs."""
    profile = load_profile(name)
    planned = grid.planned_runs(grid.parse_selection(profile, {"all": True})).values()
    runs = {(run.name, run.seed) for run in planned}
    for table in store.table_names(profile):
        index = store.index_of(table, profile, ALL_SUITES)
        new = [
            key
            for key, rows in index.items()
            if key in runs and rows.path != store.packed_path(table, profile)
        ]
        if new:
            store.pack(profile, new, [table])
            print(f"{table}: {len(new)} runs and seeds")


if __name__ == "__main__":
    sys.exit(run_reporting_errors(lambda: main(*sys.argv[1:]), "the same command"))
