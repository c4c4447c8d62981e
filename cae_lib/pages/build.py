"""Render the book. Nothing is executed: the stored notebooks are what the reader sees."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from cae_lib.config import paths, shipped
from cae_lib.errors import CaeError
from cae_lib.profiles import find_profile

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOSTS = re.compile(r"^(?:https://|ssh://git@|git@)(github\.com|gitlab\.com)[:/](.+?)(?:\.git)?/?$")

BUILD = "import sys; from jupyter_book.cli.main import main; sys.exit(main())"


def build_book(profile_name: str, builder: str = "html") -> Path:
    """Render the book of a profile, or its copy of the book; returns its first page, an HTML file
    to open in a browser. The builder is "html", or "singlehtml" for all pages as one. CaeError
    shows all warnings."""
    above = find_profile(profile_name).own_book
    print("Rendering the book", flush=True)
    if above is None:
        return render(shipped("book"), paths().build / "book", builder)
    return render(own_book(profile_name), paths().build / f"{profile_name}-html", builder, above)


def print_book(profile_name: str) -> Path:
    """Render the book as one page and print it with a browser, which has to be there."""
    browser = find_browser()
    if browser is None:
        raise CaeError(f"a PDF is printed by a browser: install one of {', '.join(BROWSERS)}")
    page = build_book(profile_name, "singlehtml")
    target = paths().build / "cae-reproduction.pdf"
    with tempfile.TemporaryDirectory() as user:
        command = [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-pdf-header-footer",
            "--virtual-time-budget=60000",
            f"--user-data-dir={user}",
            f"--print-to-pdf={target}",
            page.as_uri(),
        ]
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
    # What an older build left can hide what has changed since.
    for folder in (".doctrees", builder):
        shutil.rmtree(output / "_build" / folder, ignore_errors=True)
    output.mkdir(parents=True, exist_ok=True)
    adapted, log = output / "_config.yml", output / "build.log"
    adapted.write_text(_adapted(config, above), encoding="utf-8")
    command = [
        sys.executable,
        "-c",
        BUILD,
        "build",
        source,
        "--config",
        adapted,
        "--path-output",
        output,
        "-W",
        "-n",
        "--keep-going",
        "--all",
        "--builder",
        builder,
    ]
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
    )
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
    """The configuration with a line `above` all pages, and, where the repository's address is known
    from it or from git, with links to the repository, to Binder, and to Colab, which reads GitHub
    alone."""
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    if above:
        settings["html"]["announcement"] = above
    url = (settings["repository"]["url"] or repository_url() or "").rstrip("/")
    if url:
        settings["repository"]["url"] = url
        settings["html"] |= {"use_repository_button": True, "use_issues_button": True}
        settings["launch_buttons"]["binderhub_url"] = "https://mybinder.org"
        if url.startswith("https://github.com/"):
            settings["launch_buttons"]["colab_url"] = "https://colab.research.google.com"
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
