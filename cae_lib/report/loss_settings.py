"""All settings of the attribution loss and its methods, read from the code that has them."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from typing import Any

from cae_lib.attribution import METHODS
from cae_lib.errors import DataError
from cae_lib.report.markup import NONE, Table
from cae_lib.training.task import CompositionAttributionLoss

LEFT_OUT = ("model", "method_parameters")
ENTRY = re.compile(r"^ {4}\*{0,2}(\w+): ")
SECTION = re.compile(r"^(Args|Attributes):$")


def settings_table() -> Table:
    """Every setting of `CompositionAttributionLoss`: whose it is, its default, and its meaning.

    Raises:
        DataError: a docstring leaves a setting out.
    """
    signature = inspect.signature(CompositionAttributionLoss).parameters
    defaults = {n: p.default for n, p in signature.items() if n not in LEFT_OUT}
    rows = _rows("all", defaults, explanations(CompositionAttributionLoss))
    for name, method in METHODS.items():
        fields = {field.name: field.default for field in dataclasses.fields(method)}
        rows += _rows(name, fields, explanations(method))
    return Table(
        name="tab-settings",
        caption="The settings of `CompositionAttributionLoss`, and those of the methods, which it "
        "takes as further keyword arguments.",
        header=["method", "setting", "default", "meaning"],
        rows=rows,
        left=4,
    )


def explanations(documented: type) -> dict[str, str]:
    """What a class's docstring says about each of its arguments or attributes."""
    found: dict[str, str] = {}
    inside, name = False, ""
    for line in (inspect.getdoc(documented) or "").splitlines():
        entry = ENTRY.match(line)
        if not line.startswith(" "):
            inside, name = bool(SECTION.match(line)), ""
        elif inside and entry:
            name = entry.group(1)
            found[name] = line[entry.end() :].strip()
        elif inside and name:
            found[name] += f" {line.strip()}"
    return found


def _rows(
    whose: str, defaults: Mapping[str, Any], meanings: Mapping[str, str]
) -> list[list[str]]:
    missing = [name for name in defaults if not meanings.get(name)]
    if missing:
        raise DataError(f"no explanation of {', '.join(missing)} ({whose}); add to the docstring")
    return [
        [whose, f"`{name}`", NONE if default is inspect.Parameter.empty else f"`{default!r}`",
         meanings[name]]
        for name, default in defaults.items()
    ]  # fmt: skip
