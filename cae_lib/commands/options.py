"""What a command line asks of a grid, and which sets it lets be incomplete; without PyTorch."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager

from cae_lib.config import profile
from cae_lib.data.sources import allowing
from cae_lib.errors import ConfigError
from cae_lib.grid import Choice


def chosen(parsed: argparse.Namespace) -> Choice:
    """What a command line asks of the grid. The studies are apart at mini and with real data
    alone: at smoke they take seconds, of photographs none is apart."""
    studies = parsed.all or not (parsed.profile == "mini" or _real(parsed))
    return Choice(studies, tuple(names(parsed.rows)), parsed.seeds, tuple(names(parsed.released)))


def names(text: str) -> list[str]:
    """Names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def allowed(parsed: argparse.Namespace) -> AbstractContextManager[None]:
    """The sets that the command line lets be incomplete, while its command runs."""
    chosen = names(parsed.allow_missing)
    if chosen and not _real(parsed):
        raise ConfigError(
            f"--allow-missing is for real data; those of the profile {parsed.profile} are built "
            f"whole: `cae world build --profile {parsed.profile}`"
        )
    return allowing(chosen)


def as_words(choice: Choice) -> list[str]:
    """A choice as options of the command line."""
    words = ["--all"] if choice.studies else []
    words += ["--rows", ",".join(choice.rows)] if choice.rows else []
    words += ["--released", ",".join(choice.released)] if choice.released else []
    return words + (["--seeds", str(choice.seeds)] if choice.seeds is not None else [])


def _real(parsed: argparse.Namespace) -> bool:
    return profile(parsed.profile).base is None
