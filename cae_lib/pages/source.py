"""A page's source: the MyST text, as a notebook with stable cell ids and typed parameters."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cae_lib.config import shipped
from cae_lib.errors import ConfigError, DataError
from cae_lib.profiles import find_profile

if TYPE_CHECKING:
    from nbformat import NotebookNode

Value = int | float | str | bool
TYPES = {"int": int, "float": float, "str": str, "bool": bool}
BOOLEANS = {"true": True, "false": False}
INJECTED = "# Parameters"
"""How papermill begins the cell of the parameters that it was given."""

BOOK_MODULES = ("jupyter_book", "jupyterlab", "jupytext", "papermill", "ipykernel")


class Parameter(NamedTuple):
    """One line ``name: type = default  # comment`` of a page's cell tagged ``parameters``."""

    type: str
    default: Value
    line: str


def missing_modules() -> list[str]:
    """Those modules of the extra "book" that are not installed."""
    return [name for name in BOOK_MODULES if util.find_spec(name) is None]


def experiments_folder() -> Path:
    """The folder of the page pairs: the book's below `CAE_HOME`, or the repository's."""
    return shipped("book/experiments")


def page_names() -> list[str]:
    """The pages by name, sorted."""
    return sorted(path.stem for path in experiments_folder().glob("*.md"))


def read_page(path: Path) -> NotebookNode:
    """A page's text as a notebook; the cells of page NAME are NAME-00, NAME-01, ..."""
    import jupytext

    notebook = jupytext.read(path, fmt="md:myst")
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"{path.stem}-{index:02d}"
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def page_parameters(notebook: NotebookNode, name: str) -> dict[str, Parameter]:
    """The parameters of a page from its one cell tagged ``parameters``; DataError if malformed."""
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise DataError(f"page {name} has {len(cells)} cells tagged 'parameters', expected one")
    parameters = {}
    for number, line in enumerate(cells[0].source.splitlines(), start=1):
        try:
            (node,) = ast.parse(line).body
            kind, default = node.annotation.id, ast.literal_eval(node.value)
            default = float(default) if kind == "float" and type(default) is int else default
            if type(default) is not TYPES[kind]:
                raise TypeError
            parameters[node.target.id] = Parameter(kind, default, line)
        except (ValueError, SyntaxError, AttributeError, KeyError, TypeError):
            raise DataError(
                f"page {name}, parameters cell, line {number}: expected `name: type = value  # "
                f"comment` with a type of {', '.join(TYPES)}, got `{line}`"
            ) from None
    return parameters


def check_parameters(names: Mapping[str, Any], profiles: Sequence[str]) -> None:
    """Refuse, in a cell of a page, parameters that the page does not have or cannot describe.

    `cae run` refuses unknown parameters itself; papermill only warns, and injects them in a cell
    of its own, which is looked for among the cells that the kernel has run.

    Args:
        names: The page's `globals()`, where its parameters are.
        profiles: The profiles that the page's title and text describe, and with them those that
            are `like` one of them.

    Raises:
        ConfigError: If the profile is none of these, or papermill has injected a name that the
            cell of parameters does not declare.
    """
    if not {names["profile"], find_profile(names["profile"]).like} & {*profiles}:
        raise ConfigError(
            f"this page does not describe the profile {names['profile']!r}: expected "
            f"one of {', '.join(profiles)}"
        )
    declared = names.get("__annotations__", {})
    injected = [ast.parse(cell) for cell in names.get("In", ()) if cell.startswith(INJECTED)]
    unknown = {
        target.id
        for cell in injected
        for line in cell.body
        if isinstance(line, ast.Assign)
        for target in line.targets
        if isinstance(target, ast.Name)
    } - set(declared)
    if unknown:
        raise ConfigError(
            f"this page has no parameter {', '.join(sorted(unknown))}; it has {', '.join(declared)}"
        )


def parse_parameters(
    parameters: Mapping[str, Parameter], given: Mapping[str, str], name: str
) -> dict[str, Value]:
    """Values of a command line that differ from a page's defaults; ConfigError lists the known."""
    known = "".join(f"\n  {parameter.line}" for parameter in parameters.values())
    values: dict[str, Value] = {}
    for key, text in given.items():
        if key not in parameters:
            raise ConfigError(f"page {name} has no parameter {key!r}; it has:{known}")
        kind = parameters[key].type
        try:
            values[key] = BOOLEANS[text.lower()] if kind == "bool" else TYPES[kind](text)
        except (ValueError, KeyError):
            raise ConfigError(
                f"page {name}: {key}={text!r} is not of type {kind}; the parameters are:{known}"
            ) from None
    return {key: value for key, value in values.items() if value != parameters[key].default}
