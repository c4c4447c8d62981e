"""Execute a page in a kernel of this very interpreter."""

from __future__ import annotations

import contextlib
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

from cae_lib.errors import CaeError
from cae_lib.pages.source import Value, experiments_folder
from cae_lib.runtime import PROGRESS_FILE, format_seconds

if TYPE_CHECKING:
    from nbformat import NotebookNode
    from papermill import PapermillExecutionError

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
PREREQUISITES = ("DataError", "NotMeasured", "ConfigError", "CheckpointError")
"""Errors of the library whose message says what is wrong and what to do."""

HEARTBEAT = 15.0  # seconds between two signs of life


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
