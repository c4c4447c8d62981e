"""A page's source: the MyST text, as a notebook with stable cell ids and typed parameters."""

from __future__ import annotations

import ast
import dataclasses
import io
import tokenize
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cae_lib.config import paths
from cae_lib.errors import ConfigError, DataError

if TYPE_CHECKING:
    from nbformat import NotebookNode

TYPES = {"int": int, "float": float, "str": str, "bool": bool}
Value = int | float | str | bool


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One line ``name: type = default  # comment`` of a page's cell tagged ``parameters``."""

    name: str
    type: str
    default: Value
    comment: str

    def parse(self, text: str) -> Value:
        """Turn a command line's text into a value of the parameter's type.

        Raises:
            ValueError: the text is no such value.
        """
        if self.type == "bool":
            if text.lower() not in ("true", "false"):
                raise ValueError(text)
            return text.lower() == "true"
        return TYPES[self.type](text)

    def __str__(self) -> str:
        comment = f"  # {self.comment}" if self.comment else ""
        return f"{self.name}: {self.type} = {self.default!r}{comment}"


def experiments_folder() -> Path:
    """Return the folder of the page pairs."""
    return paths().book / "experiments"


def page_names() -> list[str]:
    """List the pages by name, sorted."""
    return sorted(path.stem for path in experiments_folder().glob("*.md"))


def read_page(path: Path) -> NotebookNode:
    """Read a page's text as a notebook whose cell ids depend on nothing but name and order.

    Returns:
        An ``nbformat`` notebook; the cells of page NAME are NAME-00, NAME-01, ...
    """
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
    """Read the parameters of a page from its cell tagged ``parameters``.

    Raises:
        DataError: there is not exactly one such cell, or a line of it is not of the form
            ``name: type = literal  # comment``.
    """
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise DataError(f"page {name} has {len(cells)} cells tagged 'parameters', expected one")
    source = cells[0].source
    comments = _comments(source)
    parameters = {}
    for node in ast.parse(source).body:
        parameter = _parameter(node, comments)
        if parameter is None:
            raise DataError(
                f"page {name}, parameters cell, line {node.lineno}: expected "
                f"`name: type = value  # comment` with a type of {', '.join(TYPES)}, "
                f"got `{ast.unparse(node)}`"
            )
        parameters[parameter.name] = parameter
    return parameters


def parse_parameters(
    parameters: Mapping[str, Parameter], given: Mapping[str, str], name: str
) -> dict[str, Value]:
    """Check a command line's ``k=v`` against a page's parameters.

    Returns:
        The given values that differ from the defaults.

    Raises:
        ConfigError: an unknown name or a value of the wrong type; lists the known parameters.
    """
    values = {}
    for key, text in given.items():
        known = "".join(f"\n  {parameter}" for parameter in parameters.values())
        if key not in parameters:
            raise ConfigError(f"page {name} has no parameter {key!r}; it has:{known}")
        try:
            value = parameters[key].parse(text)
        except ValueError:
            raise ConfigError(
                f"page {name}: {key}={text!r} is not of type {parameters[key].type}; "
                f"the parameters are:{known}"
            ) from None
        if value != parameters[key].default:
            values[key] = value
    return values


def _parameter(node: ast.stmt, comments: Mapping[int, str]) -> Parameter | None:
    if not (isinstance(node, ast.AnnAssign) and node.value is not None):
        return None
    if not (isinstance(node.target, ast.Name) and isinstance(node.annotation, ast.Name)):
        return None
    try:
        default = ast.literal_eval(node.value)
    except ValueError:
        return None
    type_name = node.annotation.id
    if type_name == "float" and type(default) is int:
        default = float(default)
    if type(default) is not TYPES.get(type_name):
        return None
    return Parameter(node.target.id, type_name, default, comments.get(node.end_lineno or 0, ""))


def _comments(source: str) -> dict[int, str]:
    """Map line numbers to the comments on them."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokens
        if token.type == tokenize.COMMENT
    }
