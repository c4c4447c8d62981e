"""Make an executed page fit to be stored: only what a reader needs, the same on every machine."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from cae_lib.config import paths
from cae_lib.errors import CaeError
from cae_lib.files import write_atomic
from cae_lib.pages.check import check_notebook
from cae_lib.pages.source import experiments_folder

if TYPE_CHECKING:
    from nbformat import NotebookNode

KEPT_METADATA = ("tags", "mystnb")


def clean(notebook: NotebookNode) -> NotebookNode:
    """Return a copy of a notebook without times, papermill's notes and what went to stderr."""
    result = copy.deepcopy(notebook)
    result.metadata.pop("papermill", None)
    for cell in result.cells:
        cell.metadata = {key: cell.metadata[key] for key in KEPT_METADATA if cell.metadata.get(key)}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return result


def publish(notebook: NotebookNode, name: str, profile: str) -> Path:
    """Store an executed page in the book, or in the smoke book.

    Raises:
        CaeError: the page breaks a rule of `cae_lib.pages.check`; nothing is stored then.
    """
    import nbformat

    result = clean(notebook)
    problems = check_notebook(result, injected=profile == "smoke")
    if problems:
        listing = "".join(f"\n  {problem}" for problem in problems)
        raise CaeError(f"page {name} ran, but is not published:{listing}")
    folder = experiments_folder()
    if profile == "smoke":
        folder = smoke_book() / "experiments"
    path = folder / f"{name}.ipynb"
    write_atomic(path, nbformat.writes(result) + "\n")
    return path


def smoke_book() -> Path:
    """Return a copy of the book whose notebooks are those of the smoke profile.

    All texts are copied anew. A notebook of the book itself is copied only where no smoke run
    has stored one yet.
    """
    source, target = paths().book, paths().build / "smoke-book"
    for path in source.rglob("*"):
        place = target / path.relative_to(source)
        if path.is_dir() or "_build" in path.parts or ".ipynb_checkpoints" in path.parts:
            continue
        if path.suffix == ".ipynb" and place.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    return target
