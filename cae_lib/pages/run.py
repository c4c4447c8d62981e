"""`cae run NAME [-p key=value ...] [--profile P]`: execute a page, and publish what went well. An
outcome is published when it ran to its end with the page's own defaults: into the book, or for a
profile with a copy of the book into that. Any other outcome is a variant under ``runs/``, as is
that of a page of the repository where `CAE_HOME` is another folder."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from cae_lib.config import paths
from cae_lib.errors import CaeError, ConfigError
from cae_lib.pages import source
from cae_lib.pages.build import own_book
from cae_lib.pages.source import experiments_folder
from cae_lib.profiles import find_profile
from cae_lib.runtime import write_atomic
from cae_lib.shown import html_of

if TYPE_CHECKING:
    from nbformat import NotebookNode

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
PREREQUISITES = ("DataError", "ConfigError", "CheckpointError", "TooLongError")
"""Errors of the library whose message says what is wrong and what to do."""

README_PAGE, README_INK = "photographs", "#768390"
"""The page whose first figure README shows, and the colour of the figure's text there."""

FIGURE = re.compile(r"<svg role=\"img\".*?</svg>", re.DOTALL)
KEPT_METADATA = ("tags", "mystnb")


def run_page(
    name: str, given: Mapping[str, str] | None = None, profile_name: str | None = None
) -> Path:
    """Run one page with these parameters, as texts; returns the stored notebook. ConfigError if
    there is no such page, profile or parameter, or a value is of the wrong type; CaeError if a cell
    failed."""
    if name not in source.page_names():
        raise ConfigError(f"no page {name!r}; the pages are: {', '.join(source.page_names())}")
    if missing := source.missing_modules():
        raise CaeError(
            f"running pages needs {', '.join(missing)}: install the extra with "
            "`pip install 'cae-lib[book]'`, or use the environment that `make` sets up"
        )
    notebook = source.read_page(experiments_folder() / f"{name}.md")
    given = dict(given or {}) | ({} if profile_name is None else {"profile": profile_name})
    values = source.parse_parameters(source.page_parameters(notebook, name), given, name)
    shown = find_profile(str(values.get("profile", "mini")))
    own = shown.name if shown.own_book is not None else ""
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    partial = paths().runs / f"{name}-{digest}.partial.ipynb"
    executed = _execute(notebook, partial, values, name)
    elsewhere = not (own or experiments_folder().is_relative_to(paths().root))
    if elsewhere or values.keys() - ({"profile", "seeds"} if own else ()):
        return partial.replace(paths().runs / f"{name}-{digest}.ipynb")
    published = _publish(executed, name, own)
    partial.unlink()
    return published


def _execute(
    notebook: NotebookNode, output: Path, parameters: Mapping[str, source.Value], name: str
) -> NotebookNode:
    """Run a page in a kernel of this very interpreter; `output` holds how far it came."""
    from papermill import PapermillExecutionError, execute_notebook

    output.parent.mkdir(parents=True, exist_ok=True)
    logging.getLogger("papermill").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="cae-run-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the kernel's transport, not the page
        argv = [
            sys.executable,
            "-m",
            "ipykernel_launcher",
            "-f",
            "{connection_file}",
            "--log-level=50",
        ]  # its own notes on the transport are not about the page
        kernel = {"argv": argv, "display_name": "Python 3", "language": "python"}
        write_atomic(Path(folder, "kernels", "python3", "kernel.json"), json.dumps(kernel))
        environment = {
            "JUPYTER_PATH": folder,
            "IPYTHONDIR": f"{folder}/ipython",
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        }
        try:
            with patch.dict(os.environ, environment):
                return execute_notebook(
                    notebook,
                    output,
                    parameters=dict(parameters),
                    kernel_name="python3",
                    progress_bar=False,
                    cwd=experiments_folder(),  # as in JupyterLab
                )
        except PapermillExecutionError as error:
            message = f"page {name}: {ANSI.sub('', error.evalue)}"
            if error.ename not in PREREQUISITES:
                code = [line for line in error.source.splitlines() if line.strip()]
                traceback = ANSI.sub("", "\n".join(error.traceback)).strip().splitlines()
                failed = f"page {name} failed in its code cell {error.exec_count}:"
                message = "\n    ".join([failed, *code[:12], "", *traceback[-8:]])
            kept = f"The notebook up to there is {output}; the page is as it was."
            raise CaeError(f"{message}\n{kept}") from None


def _publish(notebook: NotebookNode, name: str, own: str) -> Path:
    """Store an executed page in the book, or in the copy of a profile."""
    import nbformat

    result = clean(notebook)
    folder = own_book(own) / "experiments" if own else experiments_folder()
    path = folder / f"{name}.ipynb"
    write_atomic(path, nbformat.writes(result) + "\n")
    figure = readme_figure(result) if name == README_PAGE and not own else None
    if figure:
        write_atomic(paths().book / "images" / f"{name}.svg", figure)
    return path


def readme_figure(notebook: NotebookNode) -> str | None:
    """The first figure of an executed page as an SVG file of its own; None where there is none. A
    README has no colour of its own to draw in: a grey stands in that reads in light and in dark."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    found = (FIGURE.search(html_of(output.get("data", {}))) for output in outputs)
    match = next(filter(None, found), None)
    return match[0].replace("currentColor", README_INK) + "\n" if match else None


def clean(notebook: NotebookNode) -> NotebookNode:
    """A copy of a notebook without times, papermill's notes and what went to stderr."""
    result = copy.deepcopy(notebook)
    result.metadata.pop("papermill", None)
    for cell in result.cells:
        cell.metadata = {key: cell.metadata[key] for key in KEPT_METADATA if cell.metadata.get(key)}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return result
