"""Read the text of a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cae_lib.config import bundled_path

if TYPE_CHECKING:
    from nbformat import NotebookNode


def experiments_folder() -> Path:
    """Return the folder of the pages: the one below `CAE_HOME` if it exists, else the clone's."""
    return bundled_path("book/experiments")


def page_names() -> list[str]:
    """Return the names of all pages, without the ending of their files, sorted."""
    return sorted(path.stem for path in experiments_folder().glob("*.md"))


def read_page(path: Path) -> NotebookNode:
    """Return a page's text as the notebook that JupyterLab would save."""
    import jupytext

    notebook = jupytext.read(path)
    # Jupytext draws random ids, which would change the notebook with every execution.
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"{path.stem}-{index:02d}"
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    jupytext_metadata = notebook.metadata.pop("jupytext", {})
    # JupyterLab leaves it to the text file, so opening and saving a page changes neither file.
    jupytext_metadata.pop("text_representation", None)
    if jupytext_metadata:
        notebook.metadata["jupytext"] = jupytext_metadata
    return notebook
