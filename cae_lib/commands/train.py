"""`cae train` and `cae evaluate`."""

from __future__ import annotations

import argparse

from cae_lib import results, runs
from cae_lib.commands.base import train_base_as
from cae_lib.commands.settings import allowed, chosen_run, names
from cae_lib.training.execution import Execution


def train(parsed: argparse.Namespace) -> None:
    """Train a run, or the base model."""
    name, overrides = chosen_run(parsed)
    if name == runs.BASE:
        return train_base_as(parsed.profile, overrides)
    execution = Execution(
        parsed.checkpointing, parsed.channels_last, parsed.compile, parsed.workers
    )
    with allowed(parsed):
        path = runs.train_run(name, parsed.profile, parsed.seed, execution, **overrides)
    print(f"The weights are {path}")


def evaluate(parsed: argparse.Namespace) -> None:
    """Measure a run, or what belongs to the data alone."""
    name, overrides = chosen_run(parsed)
    with allowed(parsed):
        if name == results.DATA:
            runs.measure_data(parsed.profile)
            print("\n".join(amounts(parsed.profile)))
        else:
            only = names(parsed.only)
            runs.measure_run(name, parsed.profile, parsed.seed, only=only, **overrides)


def amounts(profile_name: str) -> list[str]:
    """How much of its data each measurement uses, from the table `subsets`.

    Returns:
        One line for each family or set of a suite, then one for each part that is not complete.
    """
    table = results.load("subsets", profile_name)
    lines = []
    for (suite, family), part in table.groupby(["suite", "family"], sort=False):
        used, expected = int(part["n_used"].sum()), int(part["n_expected"].sum())
        lines.append(f"{suite}, {family}: {used:,} used of {expected:,} expected")
    for row in table[table["n_used"] < table["n_expected"]].itertuples():
        lines.append(f"  incomplete: {row.suite}, {row.family}/{row.subset}, {row.n_used:,} used "
                     f"of {row.n_expected:,} expected")
    return lines
