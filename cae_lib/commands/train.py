"""`cae train`, and the settings of a run on the command line."""

from __future__ import annotations

import argparse
import ast
import shlex
import typing
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from cae_lib import runs
from cae_lib.commands.base import train_base
from cae_lib.config import Experiment
from cae_lib.data.needs import is_real
from cae_lib.data.sources import allowing
from cae_lib.errors import ConfigError
from cae_lib.training.execution import Execution

WORDS = {"none": None, "true": True, "false": False}


def train(parsed: argparse.Namespace) -> None:
    """Train a run, or the base model."""
    name, overrides = chosen_run(parsed)
    if name == runs.BASE:
        print(f"The weights are {train_base(parsed.profile, **overrides)}")
        return
    how = Execution(parsed.checkpointing, parsed.channels_last, parsed.compile, parsed.workers)
    with allowed(parsed):
        path = runs.train_run(name, parsed.profile, parsed.seed, how, **overrides)
    print(f"The weights are {path}")


def chosen_run(parsed: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """The row and the settings that a command line names; `--set` adds to a variant's own."""
    row, settings = runs.find_run(parsed.name, parsed.profile)
    return row, settings | {key: setting(key, text) for key, text in parsed.assignments}


def names(text: str) -> list[str]:
    """Names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def allowed(parsed: argparse.Namespace) -> AbstractContextManager[None]:
    """The sets that the command line lets be incomplete, while its command runs."""
    chosen = names(parsed.allow_missing)
    if chosen and not is_real(parsed.profile):
        raise ConfigError(
            f"--allow-missing is for real data; those of the profile {parsed.profile} are built "
            f"whole: `cae world build --profile {parsed.profile}`"
        )
    return allowing(chosen)


def setting(key: str, text: str) -> Any:
    """The value of `2`, `none`, `(0.9, 0.98)` and the like for a setting of a run, whose type
    `experiment` checks; ConfigError if there is no such setting."""
    hints = typing.get_type_hints(Experiment)
    known = [name for name in hints if name not in ("name", "profile", "seed")]
    if key not in known:
        raise ConfigError(f"--set {key}={text}: expected KEY to be one of {', '.join(known)}")
    try:
        value = WORDS[text.lower()] if text.lower() in WORDS else ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return float(text) if hints[key] is float and type(value) is int else value


def as_options(overrides: Mapping[str, Any]) -> str:
    """The settings as a command's options, each with a blank before it; what `--set` was given."""
    return "".join(f" --set {shlex.quote(f'{key}={value}')}" for key, value in overrides.items())
