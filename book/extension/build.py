"""Render the book from its stored notebooks; nothing is executed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from cae_lab.profiles import load_profile
from cae_lib.config import bundled_path, paths
from cae_lib.errors import CaeError, ConfigError

CLONE = Path(__file__).resolve().parents[2]
PUBLISHED = "mini"
"""The profile that the published book shows."""

OPTIONS = ("-W", "-n", "--keep-going", "--all", "-q")
"""Of `jupyter-book build`: warnings are errors, all are shown, and nothing else is."""


def build_book(profile_name: str) -> Path:
    """Render the book, or the copy of it that a profile has, and return its first page."""
    if load_profile(profile_name).own_book is None:
        return render(bundled_path("book"), bundled_path("_config.yml"), paths().build / "book")
    copy = own_book(profile_name)
    return render(copy, copy / "_config.yml", paths().build / f"{profile_name}-html")


def render(source: Path, config: Path, output: Path) -> Path:
    """Render the book in `source` anew and return its first page; a warning is a CaeError."""
    for file in (config, source / "_toc.yml"):
        if not file.is_file():
            raise CaeError(f"{file} is missing: run this from a clone of the repository")
    # Sphinx would reuse pages that it takes for unchanged.
    shutil.rmtree(output / "_build", ignore_errors=True)
    script = Path(sys.executable).with_name("jupyter-book")
    command = [script, "build", source, "--config", config, "--path-output", output, *OPTIONS]
    page = output / "_build" / "html" / "index.html"
    environment = os.environ | {"PYTHONPATH": str(CLONE)}  # Sphinx imports `book.extension.web`
    done = subprocess.run(command, env=environment)
    if done.returncode != 0 or not page.is_file():
        raise CaeError("the book was not rendered cleanly: see the warnings above")
    return page


def own_live_folder() -> Path:
    """Return the folder where a reproduction puts the models that run in its readers' browsers."""
    return paths().build / "live"


def live_folder() -> Path:
    """Return the folder of the models that run in readers' browsers: own ones before published."""
    own = own_live_folder()
    return own if (own / "live-index.js").is_file() else bundled_path("data/live")


def own_book(profile_name: str) -> Path:
    """Copy the book for a profile, with its announcement above all pages, and return the copy."""
    source, target = bundled_path("book"), paths().build / f"{profile_name}-book"
    line = load_profile(profile_name).own_book
    if line is None:
        raise ConfigError(
            f"the profile {profile_name} has no copy of the book: run a page with it by "
            f"`papermill book/experiments/NAME.ipynb out.ipynb -p profile {profile_name}`"
        )

    def skipped(folder: str, names: list[str]) -> set[str]:
        # Notebooks that a run of the profile has stored in the copy stay; texts are copied anew.
        there = target / Path(folder).relative_to(source)
        stored = {name for name in names if name.endswith(".ipynb") and (there / name).exists()}
        return stored | {"_build", ".ipynb_checkpoints"}

    shutil.copytree(source, target, ignore=skipped, dirs_exist_ok=True)
    # Pages include files of these by relative paths.
    for name in ("cae_lib", "cae_bench", "CONTRIBUTING.md"):
        if not target.with_name(name).exists():
            target.with_name(name).symlink_to(CLONE / name)
    settings = yaml.safe_load(bundled_path("_config.yml").read_text(encoding="utf-8"))
    settings["html"]["announcement"] = line
    (target / "_config.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return target
