"""What a cell returns: text and numbered tables in MyST, with plain text for whoever needs it.

Cells that return these carry the metadata `mystnb: {markdown_format: myst}`. Colon fences keep the
tables readable in JupyterLab, too, which knows no MyST.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cae_lib.evaluation.statistics import Interval

NONE = "–"


@dataclass(frozen=True)
class Text:
    """A piece of MyST text."""

    source: str

    def _repr_markdown_(self) -> str:
        return unbroken(self.source)

    def __repr__(self) -> str:
        return re.sub(r"<[^>]+>", "", self.source)


MANY_COLUMNS = 8
"""From here on a table is set more narrowly, so that it fits the book's width."""


@dataclass(frozen=True)
class Table:
    """A numbered table.

    Attributes:
        name: Target of references to it.
        caption: What it shows; says n, unit, seeds and averaging.
        header: Titles of the columns; the first column is left-aligned, the others right.
        rows: Cells as MyST text.
        notes: Lines below the table.
        left: Number of left-aligned columns.
        collapsed: Title of a drop-down that hides the table until it is opened.
        style: Class of a table that the style sheet knows.
    """

    name: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    left: int = 1
    collapsed: str = ""
    style: str = ""

    def _repr_markdown_(self) -> str:
        marks = [":--" if i < self.left else "--:" for i in range(len(self.header))]
        header, options = self.header, [f":name: {self.name}"]
        if self.style:
            options.append(f":class: {self.style}")
        elif len(self.header) >= MANY_COLUMNS:
            options.append(":class: many-columns")
            header = [title.replace("perturbation", "pertur&shy;bation") for title in header]
        lines = [_line(header), _line(marks), *(_line(row) for row in self.rows)]
        table = [f":::{{table}} {self.caption}", *options, "", *lines, ":::"]
        for note in self.notes:
            table += ["", note]
        if self.collapsed:
            table = [f"::::{{dropdown}} {self.collapsed}", *table, "::::"]
        return unbroken("\n".join(table))

    def __repr__(self) -> str:
        return f"{self.caption}\n" + "\n".join(
            " | ".join(re.sub(r"<[^>]+>", " ", cell) for cell in row)
            for row in (self.header, *self.rows)
        )


def show(*items: Text | Table) -> Text:
    """Several texts and tables as one, for a cell that returns more than one."""
    return Text("\n\n".join(item._repr_markdown_() for item in items))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def unbroken(text: str) -> str:
    """Text in which no line breaks between a number and its "%"."""
    return re.sub(r"(?<=\S) %", "\N{NO-BREAK SPACE}%", text)


def minus(text: str) -> str:
    """Hyphens before digits as minus signs."""
    return re.sub(r"(?<![\w.])-(?=[\d.])", "\N{MINUS SIGN}", text)


def number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """A number with a minus sign, never "-0.0"; a dash for None."""
    if value is None:
        return NONE
    rounded = round(value, digits) + 0.0
    return minus(f"{rounded:{'+' if sign and rounded else ''}.{digits}f}")


def interval(found: Interval | None, digits: int = 3, scale: float = 1.0, sign: bool = False,
             lines: bool = False) -> str:  # fmt: skip
    """An estimate with its interval in brackets; `lines` puts that into a second line."""
    if found is None:
        return NONE
    values = (scale * found.estimate, scale * found.low, scale * found.high)
    middle, low, high = (number(value, digits, sign) for value in values)
    between = "<br>" if lines else " "
    return f"{middle}{between}[{low},\N{NO-BREAK SPACE}{high}]"


def percent(found: Interval | None, sign: bool = False, lines: bool = False) -> str:
    """A fraction's estimate and interval in percent (or a difference's in points)."""
    return interval(found, 1, 100.0, sign, lines)


def emphasised(text: str, strong: bool) -> str:
    """Bold text, for what an interval tells apart from zero; cells of two lines stay whole."""
    return "<br>".join(f"**{part}**" for part in text.split("<br>")) if strong else text


def listing(items: Sequence[str]) -> str:
    """Items as English lists them: "a, b and c"."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def count(n: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: "1 seed", "3 seeds"."""
    return f"{n} {noun if n == 1 else plural or noun + 's'}"
