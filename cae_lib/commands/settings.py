"""What several commands take: settings of a run, `--set key=value`, and sets that may be absent."""

from __future__ import annotations

import argparse
import ast
import shlex
import types
import typing
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from cae_lib.config import Experiment
from cae_lib.data.allowance import allowing
from cae_lib.data.needs import is_real
from cae_lib.errors import ConfigError
from cae_lib.runs import find_run

FIXED = ("name", "profile", "seed")


def chosen_run(parsed: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """The row and the settings that a command line names; `--set` adds to a variant's own."""
    row, settings = find_run(parsed.name, parsed.profile)
    return row, settings | parse_overrides(parsed.assignments)


def names(text: str) -> list[str]:
    """Names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def allowed(parsed: argparse.Namespace) -> AbstractContextManager[None]:
    """The sets that the command line lets be incomplete, while its command runs.

    Raises:
        ConfigError: A name is unknown, or the profile's data are not real ones.
    """
    chosen = names(parsed.allow_missing)
    if chosen and not is_real(parsed.profile):
        raise ConfigError(
            f"--allow-missing is for real data; those of the profile {parsed.profile} are built "
            f"whole: `cae world build --profile {parsed.profile}`"
        )
    return allowing(chosen)


def parse_overrides(assignments: Sequence[str]) -> dict[str, Any]:
    """Values of `steps=2`, `weights=none`, `betas=(0.9, 0.98)` and the like.

    `experiment` checks the types of what comes out of here.

    Raises:
        ConfigError: A text has no "=", names no setting, or its value cannot be read as the
            setting's type; the message lists the settings.
    """
    hints = {k: v for k, v in typing.get_type_hints(Experiment).items() if k not in FIXED}
    found = {}
    for assignment in assignments:
        key, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or key not in hints:
            raise ConfigError(
                f"--set {assignment}: expected KEY=VALUE, with KEY one of {', '.join(hints)}"
            )
        try:
            found[key] = _value(text, hints[key])
        except (ValueError, SyntaxError):
            raise ConfigError(f"--set {assignment}: {text!r} is no {hints[key]}") from None
    return found


def as_options(overrides: Mapping[str, Any]) -> str:
    """The settings as a command's options, each with a blank before it; what `--set` was given."""
    return "".join(f" --set {shlex.quote(f'{key}={value}')}" for key, value in overrides.items())


def _value(text: str, hint: Any) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if type(None) in options and text.lower() == "none":
        return None
    if str in options:
        return text
    if bool in options and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if float in options:
        return float(text)
    return ast.literal_eval(text)
