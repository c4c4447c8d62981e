"""Execute a page with its own parameters, and publish its notebook in the book.

For other parameters, use papermill: `papermill book/experiments/NAME.ipynb out.ipynb -p seeds 1`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from book.extension.build import own_book
from book.extension.source import experiments_folder, page_names, read_page
from cae_lib.config import paths
from cae_lib.errors import CaeError, ConfigError
from cae_lib.runtime import write_atomic

if TYPE_CHECKING:
    from nbformat import NotebookNode

README_PAGE, README_INK = "gap-and-accuracy", "#768390"
"""The page whose first figure README shows, and its colour there: on white and on black."""

FIGURE = re.compile(r"<svg role=\"img\".*?</svg>", re.DOTALL)


def run_page(name: str, profile_name: str | None = None, seeds: int | None = None) -> Path:
    """Execute a page and return its notebook, in the book or in the copy of it of a profile.

    `seeds` is for that copy, if the page has this parameter.
    """
    pages = experiments_folder()
    if name not in page_names():
        known = ", ".join(page_names()) or "the pages of a clone of the repository"
        raise ConfigError(f"{pages} has no page {name!r}: expected one of {known}")
    # Only now: they take seconds.
    import jupytext
    import nbformat
    import papermill

    target, parameters = pages, {}
    if profile_name is not None:
        target, parameters = own_book(profile_name) / "experiments", {"profile": profile_name}
    # With another `CAE_HOME`, the pages of the clone stay as they are.
    elif not pages.is_relative_to(paths().root):
        target = paths().runs
    # Executed beside the book, so that a failing page leaves the stored notebook as it was.
    draft = paths().runs / f"{name}-{profile_name or 'book'}.ipynb"
    draft.parent.mkdir(parents=True, exist_ok=True)
    jupytext.write(read_page(pages / f"{name}.md"), draft)
    if seeds is not None and "seeds" in papermill.inspect_notebook(draft):
        parameters["seeds"] = seeds
    try:
        notebook = papermill.execute_notebook(
            draft, draft, parameters, kernel_name="python3", progress_bar=False, cwd=pages
        )
    except papermill.PapermillExecutionError as error:
        raise CaeError(
            f"page {name}, code cell {error.exec_count}: {error.ename}: {error.evalue}\n"
            f"The notebook up to there, with the traceback, is {draft}"
        ) from None
    write_atomic(target / f"{name}.ipynb", nbformat.writes(clean(notebook)) + "\n")
    draft.unlink()
    if name == README_PAGE and target == paths().book / "experiments":
        write_atomic(paths().book / "images" / f"{name}.svg", readme_figure(notebook))
    return target / f"{name}.ipynb"


def clean(notebook: NotebookNode) -> NotebookNode:
    """Remove from a notebook what differs between executions: times, papermill's notes, stderr."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        kept = {key: cell.metadata.get(key) for key in ("tags", "mystnb")}
        cell.metadata = {key: value for key, value in kept.items() if value}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                # As JupyterLab writes numbers, so that opening a page there changes no file.
                for kind, content in output.get("data", {}).items():
                    output["data"][kind] = _without_whole_floats(content)
    return notebook


def _without_whole_floats(content: Any) -> Any:
    """Replace 9.0 by 9 in a value of JSON, since JavaScript has one kind of numbers."""
    if isinstance(content, dict):
        return {key: _without_whole_floats(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_without_whole_floats(value) for value in content]
    return int(content) if isinstance(content, float) and content.is_integer() else content


def readme_figure(notebook: NotebookNode) -> str:
    """Return the first figure of an executed page as the text of an SVG file."""
    from book.extension.glue import html_of  # which imports Matplotlib

    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    figures = (FIGURE.search(html_of(output.get("data", {}))) for output in outputs)
    # An image on GitHub has no text colour to take over.
    return next(filter(None, figures))[0].replace("currentColor", README_INK) + "\n"
