"""Read the text of a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cae_lib.config import bundled_path

if TYPE_CHECKING:
    from nbformat import NotebookNode


def experiments_folder() -> Path:
    """Return the folder of the pages.

    It is the one below `CAE_HOME` if that exists, else the repository's.
    """
    return bundled_path("book/experiments")


def page_names() -> list[str]:
    """Return the names of all pages, sorted."""
    return sorted(path.stem for path in experiments_folder().glob("*.md"))


def read_page(path: Path) -> NotebookNode:
    """Return a page's text as a notebook whose cells are always numbered NAME-00, NAME-01, ...

    Its metadata are those that JupyterLab gives it, so that opening and saving changes no file.
    """
    import jupytext

    notebook = jupytext.read(path)
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"{path.stem}-{index:02d}"
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    jupytext_metadata = notebook.metadata.pop("jupytext", {})
    jupytext_metadata.pop("text_representation", None)  # that of the text
    if jupytext_metadata:
        notebook.metadata["jupytext"] = jupytext_metadata
    return notebook
