"""`cae run` and `cae book`."""

from __future__ import annotations

import argparse

from cae_lib.commands.options import PROFILE, add_arguments, option
from cae_lib.pages.build import build_book
from cae_lib.pages.run import run_page


@add_arguments(
    option("name", help="the page: its file in book/experiments without ending"),
    option("--profile", metavar="P", help="smoke, paper or another one with a copy of the book"),
)
def run(parsed: argparse.Namespace) -> None:
    """Execute a page with its own parameters, and publish it."""
    print(f"The page's notebook is {run_page(parsed.name, parsed.profile)}")


@add_arguments(PROFILE)
def book(parsed: argparse.Namespace) -> None:
    """Render the book."""
    print(f"The book is {build_book(parsed.profile)}")
