"""The page runner: ``cae run NAME [-p key=value ...] [--profile P]``.

A page's text is read, its parameters are checked, papermill executes it in a kernel of this very
interpreter, and the outcome is published only when it ran to its end with the page's own defaults:
into the book, or for the smoke profile into a copy of the book. Any other outcome is a variant
under ``runs/``.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import logging
import os
import re
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cae_lib.config import paths, profile
from cae_lib.errors import CaeError, ConfigError
from cae_lib.pages.build import smoke_book
from cae_lib.pages.check import check_notebook
from cae_lib.pages.source import (
    Value,
    experiments_folder,
    page_names,
    page_parameters,
    parse_parameters,
    read_page,
)
from cae_lib.runtime import PROGRESS_FILE, format_seconds, write_atomic

if TYPE_CHECKING:
    from nbformat import NotebookNode
    from papermill import PapermillExecutionError

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
PREREQUISITES = ("DataError", "ConfigError", "CheckpointError")
"""Errors of the library whose message says what is wrong and what to do."""

README_PAGE, README_INK = "result", "#768390"
"""The page whose first figure README shows, and the colour of the figure's text there."""

FIGURE = re.compile(r"<svg role=\"img\".*?</svg>", re.DOTALL)
KEPT_METADATA = ("tags", "mystnb")
HEARTBEAT = 15.0  # seconds between two signs of life


def run_page(
    name: str, given: Mapping[str, str] | None = None, profile_name: str | None = None
) -> Path:
    """Run one page and store its notebook.

    Args:
        name: The page's name: its file in ``book/experiments`` without ending.
        given: Parameters as text, as on the command line.
        profile_name: Value of the parameter ``profile``; None leaves the page's default.

    Returns:
        Path of the stored notebook.

    Raises:
        ConfigError: No such page, profile or parameter, or a value of the wrong type.
        CaeError: A cell failed, or the outcome breaks a rule of `cae_lib.pages.check`.
    """
    if name not in page_names():
        raise ConfigError(f"no page {name!r}; the pages are: {', '.join(page_names())}")
    _require_book_extra()
    notebook = read_page(experiments_folder() / f"{name}.md")
    known = page_parameters(notebook, name)
    if "profile" not in known:
        raise ConfigError(f"page {name} lacks the parameter `profile: str`")
    given = dict(given or {}) | ({} if profile_name is None else {"profile": profile_name})
    values = parse_parameters(known, given, name)
    chosen = str(values.get("profile", known["profile"].default))
    profile(chosen)
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    partial = paths().runs / f"{name}-{digest}.partial.ipynb"
    executed = execute(notebook, partial, values, name)
    if values not in ({}, {"profile": "smoke"}):
        return partial.replace(paths().runs / f"{name}-{digest}.ipynb")
    published = _publish(executed, name, chosen)
    partial.unlink()
    return published


def _publish(notebook: NotebookNode, name: str, profile_name: str) -> Path:
    """Store an executed page in the book, or in the smoke book.

    Raises:
        CaeError: The page breaks a rule of `cae_lib.pages.check`; nothing is stored then.
    """
    import nbformat

    smoke = profile_name == "smoke"
    result = clean(notebook)
    problems = check_notebook(result, injected=smoke)
    if problems:
        listing = "".join(f"\n  {problem}" for problem in problems)
        raise CaeError(f"page {name} ran, but is not published:{listing}")
    folder = smoke_book() / "experiments" if smoke else experiments_folder()
    path = folder / f"{name}.ipynb"
    write_atomic(path, nbformat.writes(result) + "\n")
    figure = readme_figure(result) if name == README_PAGE and not smoke else None
    if figure:
        write_atomic(paths().book / "images" / f"{name}.svg", figure)
    return path


def readme_figure(notebook: NotebookNode) -> str | None:
    """The first figure of an executed page as an SVG file of its own; None where there is none.

    A README has no colour of its own to draw in: a grey stands in that reads in light and in dark.
    """
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            match = FIGURE.search(output.get("data", {}).get("text/html", ""))
            if match:
                return match[0].replace("currentColor", README_INK) + "\n"
    return None


def clean(notebook: NotebookNode) -> NotebookNode:
    """Return a copy of a notebook without times, papermill's notes and what went to stderr."""
    result = copy.deepcopy(notebook)
    result.metadata.pop("papermill", None)
    for cell in result.cells:
        cell.metadata = {key: cell.metadata[key] for key in KEPT_METADATA if cell.metadata.get(key)}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return result


def _require_book_extra() -> None:
    try:
        import ipykernel  # noqa: F401
        import jupytext  # noqa: F401
        import papermill  # noqa: F401
    except ImportError as error:
        raise CaeError(
            f"running pages needs {error.name}: install the extra with "
            "`pip install 'cae-lib[book]'`, or use the environment that `make` sets up"
        ) from error


def execute(
    notebook: NotebookNode, output: Path, parameters: Mapping[str, Value], name: str
) -> NotebookNode:
    """Run a page with papermill and return the executed notebook.

    Args:
        notebook: the page, from `cae_lib.pages.source.read_page`.
        output: file that papermill keeps up to date meanwhile; of a failed run it shows the
            error in its place.
        parameters: values to inject; with none there is no extra cell.
        name: the page's name, for messages.

    Raises:
        CaeError: a cell failed; the message shows the cell and the end of the traceback.
    """
    from papermill import PapermillExecutionError, execute_notebook

    output.parent.mkdir(parents=True, exist_ok=True)
    logging.getLogger("papermill").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="cae-run-") as folder:
        with _environment(Path(folder)), _signs_of_life(name, Path(folder) / "progress"):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # about the kernel's transport, not the page
                    return execute_notebook(
                        notebook,
                        output,
                        parameters=dict(parameters),
                        kernel_name="python3",
                        progress_bar=False,
                        cwd=experiments_folder(),  # as in JupyterLab
                    )
            except PapermillExecutionError as error:
                raise CaeError(_failure(error, output, name)) from None


@contextlib.contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """Point Jupyter at a kernel of this interpreter, and keep progress out of the page."""
    kernel = folder / "kernels" / "python3"
    kernel.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    argv.append("--log-level=50")  # its own notes on the transport are not about the page
    specification = {"argv": argv, "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(specification), encoding="utf-8")
    values = {
        "JUPYTER_PATH": str(folder),
        "IPYTHONDIR": str(folder / "ipython"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "TQDM_DISABLE": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        PROGRESS_FILE: str(folder / "progress"),
    }
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextlib.contextmanager
def _signs_of_life(name: str, progress: Path) -> Iterator[None]:
    """While a page runs, print now and then how long it has run and its last progress line."""
    over = threading.Event()
    start = time.monotonic()

    def watch() -> None:
        while not over.wait(HEARTBEAT):
            lines = progress.read_text(encoding="utf-8").splitlines() if progress.exists() else []
            latest = f": {lines[-1]}" if lines else ""
            elapsed = format_seconds(time.monotonic() - start)
            print(f"  {name}, running for {elapsed}{latest}", flush=True)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _failure(error: PapermillExecutionError, output: Path, name: str) -> str:
    """Compose the message on a failed cell; a missing prerequisite has said all by itself."""
    kept = f"The notebook up to there is {output}; the page is as it was."
    if error.ename in PREREQUISITES:
        return f"page {name}: {ANSI.sub('', error.evalue)}\n{kept}"
    traceback = ANSI.sub("", "\n".join(error.traceback)).strip().splitlines()
    code = [line for line in error.source.splitlines() if line.strip()]
    shown = "\n".join(f"    {line}" for line in code[:12] + (["..."] if len(code) > 12 else []))
    end = "\n".join(f"    {line}" for line in traceback[-8:])
    return (
        f"page {name} failed in its code cell {error.exec_count}:\n{shown}\n"
        f"  with {error.ename}: {ANSI.sub('', error.evalue)}\n{end}\n"
        f"{kept}"
    )
