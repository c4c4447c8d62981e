"""Commands of the book, which `cae run`, `book`, `explore` and `live` call in a clone."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from cae_lab.cli import CONTEXT_SETTINGS, invoke, run_reporting_errors
from cae_lib.config import paths


@click.group(context_settings=CONTEXT_SETTINGS)
def commands() -> None:
    """Execute pages of the book and render it."""


@commands.command()
@click.argument("name")
@click.option("--profile", help="A profile with a copy of the book, such as smoke or paper.")
def run(name: str, profile: str | None) -> None:
    """Execute a page with its own parameters and store its notebook in the book.

    NAME is that of its file in book/experiments, without the ending.
    """
    from book.extension.run import run_page

    print(f"The page's notebook is {run_page(name, profile)}")


@commands.command()
@click.option("--profile", default="mini", show_default=True, help="Whose book.")
def book(profile: str) -> None:
    """Render the book from the stored pages."""
    from book.extension.build import build_book

    print(f"The book is {build_book(profile)}")


@commands.command()
@click.option("--profile", default="photo", show_default=True, help="Whose items and runs.")
@click.option(
    "-n", "--per-subset", default=40, show_default=True, help="Most items of each subset."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="By default below build/.")
def explore(profile: str, per_subset: int, output: Path | None) -> None:
    """Write the explorer of a profile's items as a page of its own.

    It shows what is stored and trained; photographs are shown too, which the book does not include.
    """
    from book.extension.explorer import standalone

    folder = output or paths().build / f"explorer-{profile}"
    print(f"The explorer is {standalone(profile, folder, per_subset)}")


@commands.command()
@click.argument("runs", nargs=-1)
@click.option("--profile", default="mini", show_default=True, help="Whose runs.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="By default build/live, or build/live-PROFILE for profiles other than mini.",
)
def live(runs: tuple[str, ...], profile: str, output: Path | None) -> None:
    """Write trained models, seed 0, as scripts that a page runs in the reader's browser.

    RUNS are names of runs of a profile of synthetic scenes. Without them, those that the book shows
    are written, as far as they are trained. `cae book` takes the models of `build/live`, or else
    those of `data/live`, which are published with the book (`-o data/live` replaces them).
    """
    from book.extension.build import PUBLISHED, own_live_folder
    from book.extension.live import write_files

    by_default = own_live_folder() if profile == PUBLISHED else paths().build / f"live-{profile}"
    folder = output or by_default
    names = [name for name, *_ in write_files(profile, folder, runs)["models"]]
    print(f"{folder} has {', '.join(names)}")


def main(words: Sequence[str]) -> int:
    """Run a command and return its exit code."""
    return run_reporting_errors(lambda: invoke(commands, "cae", words), f"cae {shlex.join(words)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
