"""Options of the command line that several commands share, and how a function declares its own.

Nothing here imports PyTorch, so that help comes at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from cae_lib.data.sources import allowing
from cae_lib.errors import ConfigError
from cae_lib.profiles import find_profile
from cae_lib.variants import BASE, CONTROLS, find_run, setting

REAL = "paper"
"""The profile whose data models of others are measured on."""

DATA = "data"
"""What needs no model, in the place of a run; its tables are those of `results.DATA`."""

Command = TypeVar("Command", bound=Callable[[argparse.Namespace], int | None])

Option = tuple[tuple[str, ...], dict[str, Any], str]
"""The names of an argument, what argparse takes of it, and the title of its group, if any."""


def option(*names: str, group: str = "", **settings: Any) -> Option:
    """Return an argument of a command."""
    return names, settings, group


def add_arguments(*options: Option) -> Callable[[Command], Command]:
    """Declare the arguments of a command's function; see `cae_lib.cli.COMMANDS`."""

    def with_options(function: Command) -> Command:
        function.options = options
        return function

    return with_options


def assignment(text: str) -> tuple[str, str]:
    """Split a text ``KEY=VALUE`` into key and value."""
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, not {text!r}")
    return key.strip(), value.strip()


ASSIGNMENTS = {
    "dest": "assignments",
    "action": "append",
    "default": [],
    "metavar": "KEY=VALUE",
    "type": assignment,
}
PROFILE_HELP = (
    "smoke (numbers mean nothing), mini (drawn), photo (Flickr8k), paired (two "
    "photographs in a picture), paper (one GPU), rehearsal (paper in minutes, numbers mean nothing)"
)
PROFILE = option("--profile", default="mini", metavar="P", help=PROFILE_HELP)
RUN = option("name", help="'base', or an experiment such as clip-ft, cae-attention")
SEED = option("--seed", type=int, default=0, help="seed of the run (default 0)")
SET = option(
    "--set",
    **ASSIGNMENTS,
    help="another setting than the profile's, such as lr=5e-7 "
    "(repeatable): the run is a variant, with files and tables of its own",
)
SETTINGS = (SEED, PROFILE, SET)
ALLOW_MISSING = option(
    "--allow-missing",
    default="",
    metavar="SETS",
    help="real sets that may be incomplete, with "
    "commas between them, or 'all': what is there is used, and n used stands beside n expected",
)
ON = option(
    "--on",
    choices=("local", "slurm"),
    default="local",
    help="where the jobs run: on this machine (default) or on a Slurm cluster",
)
REPRODUCED = (
    option(
        "--all", action="store_true", help="also the rows, measurements and pages beside the paper"
    ),
    option("--rows", default="", metavar="NAMES", help="some rows alone, with commas between them"),
    option("--seeds", type=int, metavar="N", help="so many seeds of each row at most"),
    option(
        "--real",
        type=Path,
        metavar="DIR",
        help="for a rehearsal: real files, laid out as data/raw, that take the place of drawn ones",
    ),
    ALLOW_MISSING,
)


def run_of(parsed: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Return the row and the settings that a command line names; `--set` adds to a variant's."""
    row, settings = find_run(parsed.name, parsed.profile)
    return row, settings | {key: setting(key, text) for key, text in parsed.assignments}


def is_run(name: str, profile_name: str) -> bool:
    """Return whether a name is that of a run of a profile, or of what needs no model."""
    row, _ = find_run(name, profile_name)
    return row in (BASE, DATA, *CONTROLS, *find_profile(profile_name).runs)


def split_names(text: str) -> list[str]:
    """Split names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def allowed(parsed: argparse.Namespace) -> AbstractContextManager[None]:
    """Let sources be incomplete that the command line allows, while its command runs."""
    return allow(parsed.profile, parsed.allow_missing)


def allow(profile_name: str, sources: str) -> AbstractContextManager[None]:
    """Let sources be incomplete, with commas between them; ConfigError where they are built."""
    allowed_sources = split_names(sources)
    if allowed_sources and not find_profile(profile_name).real:
        raise ConfigError(
            f"--allow-missing is for real data; those of the profile {profile_name} are built "
            f"whole: `cae world build --profile {profile_name}`"
        )
    return allowing(allowed_sources)
