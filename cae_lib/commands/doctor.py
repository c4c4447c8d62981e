"""``cae doctor``: what is installed, which device would be used, which data is here."""

from __future__ import annotations

import argparse
import os
import shutil
from importlib import metadata, util
from pathlib import Path

from cae_lib.config import PROFILES, paths
from cae_lib.pages.build import find_browser
from cae_lib.pages.source import page_names
from cae_lib.runtime import changed, device_name, measuring_hash, pick_device, training_hash, versions

BOOK_MODULES = ("jupyter_book", "jupyterlab", "jupytext", "papermill", "ipykernel")


def run(_: argparse.Namespace) -> None:
    """Print the report."""
    print(report())


def report() -> str:
    """Compose a text to read, and to paste into a question about a failing run."""
    sections = {
        "Versions": [f"cae-lib {_version('cae-lib')}"]
        + [f"{package} {version}" for package, version in versions().items()],
        "Machine": [
            f"device {pick_device()}: {device_name()}",
            f"{os.cpu_count()} processors, {_gigabytes()} free on disk",
        ],
        "Code": [_code()],
        "Book": [_extras(), f"browser for the tests: {find_browser() or 'none found'}"],
        "Data": [_world(profile) for profile in PROFILES if profile != "paper"]
        + [f"base model: {_present(paths().mini, '*.safetensors')}", f"pages: {_pages()}"],
    }
    return "\n".join(
        line for title, lines in sections.items() for line in (title, *(f"  {x}" for x in lines))
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(used from its folder, not installed)"


def _gigabytes() -> str:
    return f"{shutil.disk_usage(paths().root).free / 1e9:.0f} GB"


def _code() -> str:
    states = {None: "no git here", False: "as committed", True: "with uncommitted changes"}
    hashes = f"what trains {training_hash()[:12]}, what measures {measuring_hash()[:12]}"
    return f"cae_lib {states[changed()]}; {hashes}"


def _extras() -> str:
    missing = [name for name in BOOK_MODULES if util.find_spec(name) is None]
    if not missing:
        return "all packages of the extra 'book' are installed"
    return f"missing: {', '.join(missing)} (pip install 'cae-lib[book]')"


def _world(profile: str) -> str:
    here = (paths().raw / f"world-{profile}" / "manifest.json").is_file()
    advice = f"not built (`cae world build --profile {profile}`)"
    return f"small world, {profile}: {'built' if here else advice}"


def _present(folder: Path, pattern: str) -> str:
    found = sorted(path.name for path in folder.glob(pattern)) if folder.is_dir() else []
    return ", ".join(found) or "missing (`cae train base` makes it)"


def _pages() -> str:
    names = page_names()
    executed = [name for name in names if (paths().book / "experiments" / f"{name}.ipynb").exists()]
    return f"{len(executed)} of {len(names)} executed"
