"""Render the book. Nothing is executed: the stored notebooks are what the reader sees. It is a
Sphinx extension, too (see `_config.yml`): it leaves out the scripts of Thebe, which theme and
Jupyter Book both add, so that a browser would complain of constants declared twice."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cae_lib.config import paths, profile, rehearsed, shipped
from cae_lib.errors import CaeError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOSTS = re.compile(r"^(?:https://|ssh://git@|git@)(github\.com|gitlab\.com)[:/](.+?)(?:\.git)?/?$")
OWN_BOOKS: Mapping[str, str] = {
    "smoke": "Smoke test: its numbers mean nothing",
    "paper": "The paper's scale. On the pages on attribution, bindings, accuracy, and retrieval "
             "and text, what the text calls the small world, clip-mini or mini-COCO is here real "
             "pictures, ViT-B/32 and COCO. All other pages are those of the book.",
}
"""Profiles whose pages go to a copy of the book, and what stands above each page there."""

REHEARSED = "Rehearsal: its numbers mean nothing"

BUILD = "import sys; from jupyter_book.cli.main import main; sys.exit(main())"


def build_book(profile_name: str, builder: str = "html") -> Path:
    """Render the book of a profile; returns its first page, an HTML file to open in a browser. Of
    `OWN_BOOKS` that is the copy of the book with their pages; the builder is "html", or
    "singlehtml" for all pages as one. CaeError shows all warnings."""
    profile(profile_name)
    print("Rendering the book", flush=True)
    if profile_name in OWN_BOOKS:
        output = paths().build / f"{profile_name}-html"
        return render(own_book(profile_name), output, builder,
                      REHEARSED if rehearsed() else OWN_BOOKS[profile_name])
    return render(shipped("book"), paths().build / "book", builder)


def print_book(profile_name: str) -> Path:
    """Render the book as one page and print it with a browser, which has to be there."""
    browser = find_browser()
    if browser is None:
        raise CaeError(f"a PDF is printed by a browser: install one of {', '.join(BROWSERS)}")
    page = build_book(profile_name, "singlehtml")
    target = paths().build / "cae-reproduction.pdf"
    with tempfile.TemporaryDirectory() as user:
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer",
                   "--virtual-time-budget=60000", f"--user-data-dir={user}",
                   f"--print-to-pdf={target}", page.as_uri()]
        result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0 or not target.is_file():
        raise CaeError(f"{browser} did not print the book: {result.stderr.strip()[-500:]}")
    return target


def find_browser() -> str | None:
    """The path of a Chromium; None where there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def render(source: Path, output: Path, builder: str = "html", above: str = "") -> Path:
    """Render a book's folder, which has a `_toc.yml`, into `output`, with a line `above` all pages;
    see `build_book`."""
    config = shipped("_config.yml")
    for file in (config, source / "_toc.yml"):
        if not file.is_file():
            raise CaeError(f"{file} is missing: run this from a clone of the repository")
    # A Sphinx environment left by an older build can hide what has changed since.
    shutil.rmtree(output / "_build" / ".doctrees", ignore_errors=True)
    output.mkdir(parents=True, exist_ok=True)
    adapted, log = output / "_config.yml", output / "build.log"
    adapted.write_text(_adapted(config, above), encoding="utf-8")
    command = [sys.executable, "-c", BUILD, "build", source, "--config", adapted, "--path-output",
               output, "-W", "-n", "--keep-going", "--all", "--builder", builder]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            encoding="utf-8")
    log.write_text(result.stdout, encoding="utf-8")
    page = output / "_build" / builder / "index.html"
    if result.returncode != 0 or not page.is_file():
        plain = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout).splitlines()
        lines = [line for line in plain if re.search("WARNING|ERROR|Error", line)] or plain
        complaints = "".join(f"\n  {line}" for line in lines[-30:])
        raise CaeError(f"the book was not rendered cleanly:{complaints}\nThe whole log is {log}.")
    return page


def repository_url() -> str | None:
    """The public web address of this clone's origin; None where there is none."""
    command = ["git", "remote", "get-url", "origin"]
    try:
        result = subprocess.run(command, cwd=paths().root, capture_output=True, text=True)
    except OSError:  # no git
        return None
    match = HOSTS.match(result.stdout.strip())
    return f"https://{match[1]}/{match[2]}" if match else None


def _adapted(config: Path, above: str) -> str:
    """The configuration with a line `above` all pages, and with links to the repository and to
    Colab and Binder if public."""
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    if above:
        settings["html"]["announcement"] = above
    url = repository_url()
    if url is not None:
        settings["repository"]["url"] = url
        settings["html"] |= {"use_repository_button": True, "use_issues_button": True}
        settings["launch_buttons"] |= {
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
        }
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def own_book(profile_name: str) -> Path:
    """A copy of the book whose notebooks are those of a profile. All texts are copied anew; a
    notebook of the book itself is copied only where no run of the profile has stored one yet."""
    source, target = shipped("book"), paths().build / f"{profile_name}-book"

    def left_out(folder: str, names: list[str]) -> set[str]:
        place = target / Path(folder).relative_to(source)
        stored = {name for name in names if name.endswith(".ipynb") and (place / name).exists()}
        return stored | {"_build", ".ipynb_checkpoints"}

    shutil.copytree(source, target, ignore=left_out, dirs_exist_ok=True)
    link = target.with_name("cae_lib")  # pages show code from ../cae_lib
    if not link.exists():
        link.symlink_to(Path(__file__).resolve().parents[1])
    return target


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("html-page-context", _without_thebe, priority=999)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _without_thebe(app: Any, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Keep a page's scripts but those that name Thebe, by file or in their text."""
    context["script_files"] = [
        script for script in context["script_files"]
        if "thebe" not in f"{script} {getattr(script, 'attributes', '')}".lower()
    ]
