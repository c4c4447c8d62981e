"""Compare the numbers and findings that a text states with what a page has computed."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cae_lab.plots import CellOutput
from cae_lib.config import bundled_path

MIME = "application/vnd.cae.quotes+json"
FILES = {"README": "README.md", "index": "book/index.md"}
"""Texts that are no notebooks; others are pages in book/experiments."""


@dataclass(frozen=True)
class Quotes:
    """What texts have to state: by text, each statement, and whether the numbers bear it out.

    Shown are the statements that a text does not make, or that do not hold.
    """

    statements: Mapping[str, Mapping[str, bool]]

    def failures(self) -> list[str]:
        """Return each statement that a text as it stands does not make, or that does not hold."""
        return [
            f"{name}: {statement}" if holds else f"{name}: does not hold: {statement}"
            for name, statements in self.statements.items()
            for text in [plain_text(_read(name))]
            for statement, holds in statements.items()
            if not holds or plain_text(statement) not in text
        ]

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        failures = self.failures()
        # A reproduction elsewhere differs a little: the page goes on, and says where.
        title = "The text describes the stored runs. Computed here, and not in the text:"
        items = "".join(f"<li>{html.escape(failure)}</li>" for failure in failures)
        folded = f"<details><summary>{title}</summary><ul>{items}</ul></details>"
        shown = (
            CellOutput(folded, "\n".join([title, *failures])) if failures else CellOutput("", "")
        )
        return {MIME: self.statements, "text/html": shown.html, "text/plain": shown.text}


def quoted(statements: Mapping[str, object], *texts: str) -> Quotes:
    """Return what `texts` ("README", "index" or names of pages) state, for the end of a cell.

    A statement is words of the text with `{}` for each number. Its value is a number as it stands
    there ("15.3"), a tuple of several, or whether a statement without numbers holds. A text may
    have emphasis, links and line breaks between the words.
    """
    filled: dict[str, bool] = {}
    for statement, value in statements.items():
        numbers = value if isinstance(value, tuple) else (value,)
        filled[statement.format(*numbers)] = "{}" in statement or bool(value)
    return Quotes({text: filled for text in texts})


def plain_text(markdown: str) -> str:
    """Return the words of a Markdown text without code, emphasis and targets of links."""
    # The code of a page holds the statements themselves.
    prose = re.sub(r"^```.*?^```$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", prose)
    return " ".join(re.sub(r"[*`]", "", words).split())


def _read(name: str) -> str:
    path = bundled_path(FILES.get(name, f"book/experiments/{name}.md"))
    return path.read_text(encoding="utf-8") if path.is_file() else ""
