"""The attribution methods by name, without their code, which a page of tables does not need.

A method is one file of `cae_lib/attribution`, named as the method. Its class says in its header how
it is shown and trained, as `class MineAttribution(AttributionMethod, label="mine", color="#56b4e9",
weight=1.0)`; the header is read here, and the file is imported when the method is asked for.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import NamedTuple

from cae_lib.errors import ConfigError

FOLDER = Path(__file__).parent / "attribution"


class Method(NamedTuple):
    """What the header of a method's class says.

    Attributes:
        kind: name of the class.
        label: name in tables and figures.
        color: of its marks, as "#d55e00".
        weight: lambda of a row `cae-NAME` in every profile; None where `config` has the rows.
        place: among the paper's methods, from 1; None for one that is not the paper's.
    """
    kind: str
    label: str
    color: str
    weight: float | None = None
    place: int | None = None


@cache
def methods() -> dict[str, Method]:
    """All methods by name, the paper's first; ConfigError for a header that cannot be read or is
    not there, or a label that another method has."""
    found: dict[str, Method] = {}
    owners: dict[str, Path] = {}
    for path in sorted(FOLDER.glob("*.py")):
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.ClassDef) and (
                    node.keywords or "AttributionMethod" in map(ast.unparse, node.bases)):
                method = found[path.stem] = _method(path, node)
                if (other := owners.setdefault(method.label, path)) != path:
                    raise ConfigError(f"{other} and {path} have one label, {method.label!r}, and "
                                      "could not be told apart in a figure")
    return dict(sorted(found.items(), key=lambda item: item[1].place or len(found)))


def _method(path: Path, node: ast.ClassDef) -> Method:
    try:
        said = {word.arg: ast.literal_eval(word.value) for word in node.keywords}
        return Method(node.name, **said)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{path}: {node.name} says in its header what cannot be read ({error}). "
            f"Expected {', '.join(Method._fields[1:])}, as plain values, of which label and color "
            "are needed."
        ) from error


METHODS = tuple(name for name, method in methods().items() if method.place)
"""The paper's four."""
