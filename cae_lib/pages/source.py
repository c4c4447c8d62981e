"""Read the text of a page, and check the parameters that the page was given."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cae_lib.config import shipped
from cae_lib.errors import ConfigError
from cae_lib.profiles import find_profile

if TYPE_CHECKING:
    from nbformat import NotebookNode

INJECTED = "# Parameters"
"""How papermill begins the cell with the parameters that it injects."""


def experiments_folder() -> Path:
    """Return the folder of the pages.

    It is the one below `CAE_HOME` if that exists, else the repository's.
    """
    return shipped("book/experiments")


def page_names() -> list[str]:
    """Return the names of all pages, sorted."""
    return sorted(path.stem for path in experiments_folder().glob("*.md"))


def read_page(path: Path) -> NotebookNode:
    """Return a page's text as a notebook whose cells are always numbered NAME-00, NAME-01, ..."""
    import jupytext

    notebook = jupytext.read(path)
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"{path.stem}-{index:02d}"
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata.pop("jupytext", None)  # which jupytext read it
    return notebook


def check_parameters(names: Mapping[str, Any], profiles: Sequence[str]) -> None:
    """Raise an error, in a cell of a page, for parameters that the page does not have or describe.

    Papermill only warns of an unknown parameter and injects it in a cell of its own. This function
    finds that cell among the cells that the kernel has run.

    Args:
        names: The page's `globals()`, where its parameters are.
        profiles: The profiles that the page describes. Profiles that are `like` one of them are
            accepted, too.

    Raises:
        ConfigError: If the profile is none of these, or papermill has injected a name that the cell
            of parameters does not declare.
    """
    if not {names["profile"], find_profile(names["profile"]).like} & {*profiles}:
        raise ConfigError(
            f"this page does not describe the profile {names['profile']!r}: expected "
            f"one of {', '.join(profiles)}"
        )
    declared = names.get("__annotations__", {})
    cells = [ast.parse(cell) for cell in names.get("In", ()) if cell.startswith(INJECTED)]
    targets = [
        target for cell in cells for line in cell.body for target in getattr(line, "targets", ())
    ]
    unknown = {target.id for target in targets if isinstance(target, ast.Name)} - set(declared)
    if unknown:
        raise ConfigError(
            f"this page has no parameter {', '.join(sorted(unknown))}; it has {', '.join(declared)}"
        )
