"""`cae run` and `cae book`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from cae_lib.errors import ConfigError
from cae_lib.pages.build import build_book, print_book
from cae_lib.pages.run import run_page


def run(parsed: argparse.Namespace) -> None:
    """Run a page."""
    path = run_page(parsed.name, parse_assignments(parsed.assignments), parsed.profile)
    print(f"The page's notebook is {path}")


def book(parsed: argparse.Namespace) -> None:
    """Render the book, as pages or as one PDF."""
    made = print_book(parsed.profile) if parsed.pdf else build_book(parsed.profile)
    print(f"The book is {made}")


def parse_assignments(assignments: Sequence[str]) -> dict[str, str]:
    """Split texts of the form ``key=value``; one without "=" is a ConfigError."""
    pairs = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"-p {assignment}: expected key=value")
        pairs[key.strip()] = value.strip()
    return pairs
