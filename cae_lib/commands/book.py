"""`cae run` and `cae book`, and `cae doctor`: what is installed, which device, which data."""

from __future__ import annotations

import argparse
import os
import shutil
from importlib import metadata

from cae_lib import runtime
from cae_lib.commands.options import ASSIGNMENTS, PROFILE, PROFILE_HELP, option, takes
from cae_lib.config import paths, shipped
from cae_lib.errors import DataError
from cae_lib.keys import TRAINING_VERSION
from cae_lib.pages.build import build_book, find_browser, print_book
from cae_lib.pages.run import run_page
from cae_lib.pages.source import experiments_folder, missing_modules, page_names
from cae_lib.profiles import PROFILES


@takes(
    option(
        "name",
        nargs="?",
        help="the page: its file in book/experiments without ending; "
        "without it, the pages are listed",
    ),
    option(
        "-p",
        **ASSIGNMENTS,
        help="set a parameter of the page (repeatable); the outcome goes to runs/",
    ),
    option("--profile", metavar="P", help=PROFILE_HELP),
)
def run(parsed: argparse.Namespace) -> None:
    """Run a page, or list the pages if none is named."""
    if parsed.name is None:
        list_pages()
        return
    path = run_page(parsed.name, dict(parsed.assignments), parsed.profile)
    print(f"The page's notebook is {path}")


def list_pages() -> None:
    """Print the names of the pages; a DataError where there are none."""
    if not page_names():
        raise DataError(
            f"{experiments_folder()}: no pages are here. They come with the "
            "repository, not with the package: run the command in a clone"
        )
    print("\n".join(page_names()))


@takes(option("--pdf", action="store_true", help="one PDF file, printed by Chromium"), PROFILE)
def book(parsed: argparse.Namespace) -> None:
    """Render the book, as pages or as one PDF."""
    made = print_book(parsed.profile) if parsed.pdf else build_book(parsed.profile)
    print(f"The book is {made}")


def doctor(_: argparse.Namespace) -> None:
    """Print a report to read, and to paste into a question about a failing run."""
    for title, lines in report().items():
        print("\n  ".join([title, *lines]))


def report() -> dict[str, list[str]]:
    """The lines of the report by section."""
    states = {None: "no git here", False: "as committed", True: "with uncommitted changes"}
    root = paths().root
    free = shutil.disk_usage(next(p for p in (root, *root.parents) if p.exists())).free / 1e9
    missing = missing_modules()
    extra = f"missing: {', '.join(missing)} (pip install 'cae-lib[book]')"
    bases = ", ".join(sorted(path.name for path in shipped("data/mini").glob("*.safetensors")))
    names = page_names()
    executed = [name for name in names if (experiments_folder() / f"{name}.ipynb").exists()]
    return {
        "Versions": [
            f"cae-lib {_version('cae-lib')}",
            *(f"{package} {version}" for package, version in runtime.versions().items()),
        ],
        "Machine": [
            f"device {runtime.pick_device()}: {runtime.device_name()}",
            f"{os.cpu_count()} processors, {free:.0f} GB free on disk",
        ],
        "Code": [
            f"cae_lib {states[runtime.has_uncommitted_changes()]}",
            f"version of training {TRAINING_VERSION}",
        ],
        "Book": [
            extra if missing else "all packages of the extra 'book' are installed",
            f"browser for the tests: {find_browser() or 'none found'}",
        ],
        "Data": [
            *(_sets(name) for name, profile in PROFILES.items() if not profile.real),
            f"base model: {bases or 'missing (`cae train base` makes it)'}",
            f"pages: {len(executed)} of {len(names)} executed",
        ],
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(used from its folder, not installed)"


def _sets(name: str) -> str:
    """Whether the sets of a profile are built, and how to build them."""
    kind, place, what = (
        ("photo", name, "photographs")
        if PROFILES[name].photographs
        else ("world", f"world-{name}", "small world")
    )
    here = (paths().raw / place / "manifest.json").is_file()
    state = "built" if here else f"not built (`cae {kind} build --profile {name}`)"
    return f"{what}, {name}: {state}"
