"""`cae train`, and the settings of a run on the command line."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from typing import Any

from cae_lib import runs
from cae_lib.commands.base import train_base
from cae_lib.commands.options import allowed
from cae_lib.grid import BASE, find_run, setting
from cae_lib.training.execution import Execution


def train(parsed: argparse.Namespace) -> None:
    """Train a run, or the base model."""
    name, overrides = chosen_run(parsed)
    if name == BASE:
        print(f"The weights are {train_base(parsed.profile, **overrides)}")
        return
    how = Execution(parsed.checkpointing, parsed.channels_last, parsed.compile, parsed.workers)
    with allowed(parsed):
        path = runs.train_run(name, parsed.profile, parsed.seed, how, **overrides)
    print(f"The weights are {path}")


def chosen_run(parsed: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """The row and the settings that a command line names; `--set` adds to a variant's own."""
    row, settings = find_run(parsed.name, parsed.profile)
    return row, settings | {key: setting(key, text) for key, text in parsed.assignments}


def as_options(overrides: Mapping[str, Any]) -> str:
    """The settings as a command's options, each with a blank before it; what `--set` was given."""
    return "".join(f" --set {shlex.quote(f'{key}={value}')}" for key, value in overrides.items())
