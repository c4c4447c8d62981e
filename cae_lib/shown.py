"""What a page shows beside figures: tables, verdicts, glued values, and numbers as text."""

from __future__ import annotations

import base64
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cae_lib.errors import DataError


@dataclass(frozen=True)
class Shown:
    """What a cell shows: HTML for readers, and plain text for everything else."""

    html: str
    text: str = ""

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def csv_link(data: pd.DataFrame, name: str) -> str:
    """A link, in HTML, that saves a frame as CSV."""
    rows = data.to_csv(index=False, float_format="%.6g")
    content = base64.b64encode(rows.encode()).decode("ascii")
    return (f'<p class="cae-data"><a download="{name}.csv" '
            f'href="data:text/csv;base64,{content}">{name}.csv</a></p>')


def glue(name: str, value: object, display: bool = False) -> None:
    """Keep a value of a cell for the text: `{glue:text}` for numbers and words, `{glue}` for more.
    Other pages call it `experiments/PAGE.ipynb::name`. The value is a number, a word, or what
    `show` and `badge` return; `display` shows it as the cell's output as well."""
    from IPython.display import display as show_raw  # comes with the kernel, not with the library

    if isinstance(value, np.generic):
        value = value.item()
    word = isinstance(value, str)  # quoted, or the book would take "2,000" for a pair of numbers
    bundle = {"text/plain": repr(value) if word else str(value)}
    if isinstance(value, Shown):
        bundle["text/html"] = value.html
    prefix = "" if display else "application/papermill.record/"
    show_raw({prefix + kind: content for kind, content in bundle.items()}, raw=True,
             metadata={"scrapbook": {"name": name, "mime_prefix": prefix}})


def table(frame: pd.DataFrame, caption: str = "", fold: Sequence[Hashable] = (),
          data: pd.DataFrame | None = None, name: str = "table") -> Shown:
    """A frame as an HTML table in a box of its own that scrolls sideways; the index comes first.
    The columns `fold`, of two header rows those under a name above, are shown on a narrow screen
    only where the reader asks for all columns; DataError if there is no such column. Below is a
    link to `data`, what the table leaves out, as NAME.csv."""
    single = frame.index.nlevels == 1
    if single and frame.columns.nlevels == 1:  # one header row, the index named in it
        frame = frame.rename_axis(index=None, columns=frame.index.name)
    else:  # what a pivot calls its levels is no header
        frame = frame.rename_axis(columns=[None] * frame.columns.nlevels)
        frame = frame.rename_axis(index=None) if single else frame
    body = frame.to_html(classes="table cae-table", escape=False, na_rep="–")
    body = re.sub(r' border="\d"', "", body, count=1)
    title = f'<p class="cae-caption">{caption}</p>' if caption else ""
    if fold:
        tops = list(frame.columns.get_level_values(0))
        if unknown := [name for name in fold if name not in tops]:
            raise DataError(f"no columns {unknown} to fold; there are {list(dict.fromkeys(tops))}")
        body = _folded(body, [top in fold for top in tops])
        title += '<label class="cae-all"><input type="checkbox"> all columns</label>'
    link = "" if data is None else csv_link(data, name)
    return Shown(f'{title}<div class="cae-box">{body}</div>{link}', frame.to_string(na_rep="–"))


def _folded(body: str, fold: Sequence[bool]) -> str:
    """The HTML of a table whose cells in the columns to `fold` have a class that says so. Columns
    are counted from the right: to their left stands an index of whatever cells."""

    def mark(row: re.Match) -> str:
        cells = re.split(r"(?=<t[hd]\b)", row[0])
        right = len(fold)
        for place in range(len(cells) - 1, 0, -1):
            span = re.match(r'<t[hd][^>]*\bcolspan="(\d+)"', cells[place])
            left = right - (int(span[1]) if span else 1)
            if left >= 0 and all(fold[left:right]):
                cells[place] = f'{cells[place][:3]} class="cae-fold"{cells[place][3:]}'
            right = left
        return "".join(cells)

    return re.sub(r"<tr.*?</tr>", mark, body, flags=re.DOTALL)


def badge(word: str) -> Shown:
    """A verdict, as `cae_lib.statistics.verdict` gives it, in the colour of its word."""
    kind = word.partition(" (")[0].replace(" ", "-")
    return Shown(f'<span class="verdict verdict-{kind}">{word}</span>', word)


def number(value: float, digits: int = 1, scale: float = 1.0, sign: bool = False) -> str:
    """A number with a true minus sign; "–" where there is none."""
    if value is None or not np.isfinite(value):
        return "–"
    text = f"{scale * value:{'+' if sign else ''}.{digits}f}"
    if not float(text):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def intervals(rows: pd.DataFrame, digits: int = 1, scale: float = 100.0,
              sign: bool = False) -> pd.Series:
    """`estimate [low, high]` of each row as text; a line may break before the bracket."""
    columns = ([number(v, digits, scale, sign) for v in rows[name]]
               for name in ("estimate", "low", "high"))
    return pd.Series([f"{e} [{a},\u00a0{b}]" for e, a, b in zip(*columns, strict=True)], rows.index,
                     dtype=object)


def reaches(rows: pd.DataFrame, digits: int = 1, scale: float = 100.0) -> pd.Series:
    """`estimate ±half` of each row as HTML, half the width of its interval in small print."""
    half = rows["estimate"] - rows["low"]
    return pd.Series([f"{number(e, digits, scale)}<br><small>±{number(h, digits, scale)}</small>"
                      for e, h in zip(rows["estimate"], half, strict=True)], rows.index,
                     dtype=object)


def span(values: Sequence[float] | pd.Series, digits: int = 1, scale: float = 100.0,
         sign: bool = True) -> str:
    """`smallest to largest` as text, one number where both read alike; "–" without values."""
    ends = [number(end, digits, scale, sign) for end in (min(values), max(values))] \
        if len(values) else ["–"]
    return " to ".join(dict.fromkeys(ends))
