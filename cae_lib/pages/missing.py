"""What a page could not show: the records that it asks for, and the real data behind them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbformat import NotebookNode

MARK = re.compile(r"Not measured yet in the profile [^*]*?of the kind `(\w+)` missing[^*]*")
"""What `cae_lib.report.stored` puts in the place of results; the group is the suite."""


def what_is_missing(notebook: NotebookNode, profile_name: str) -> list[str]:
    """Lines on the results that an executed page lacks, each kind of measurement once.

    In a profile with real data, the sets that such a measurement needs and that are not here
    follow, with the commands that fetch them.
    """
    from cae_lib.data.needs import is_real, missing_for

    found: dict[str, str] = {}
    for text in _texts(notebook):
        for match in MARK.finditer(text):
            found.setdefault(match.group(1), match.group().strip())
    lines = []
    for suite, message in found.items():
        lines.append(message)
        if is_real(profile_name):
            lines += filter(None, [missing_for(suite)])
    return lines


def _texts(notebook: NotebookNode) -> Iterator[str]:
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            yield output.get("data", {}).get("text/markdown", "")
