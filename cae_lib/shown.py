"""What a page shows beside figures: tables, verdicts, glued values, and numbers as text."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd

from cae_lib.errors import DataError

FIGURE_HTML = "application/vnd.cae.figure+html"
"""The MIME type of a figure's HTML, which the book shows as HTML. JupyterLab and GitHub prefer
`text/html` to an image and strip the drawing from it in notebooks that they do not trust, so an
output that has an image must not have `text/html`."""


@dataclass(frozen=True)
class Shown:
    """What a cell shows: HTML for the book, plain text, and for a figure an image as PNG, which
    viewers of notebooks show in place of the HTML."""

    html: str
    text: str = ""
    png: bytes = b""

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Return what a notebook stores."""
        if not self.png:
            return {"text/plain": self.text, "text/html": self.html}
        image = base64.b64encode(self.png).decode("ascii")
        return {"text/plain": self.text, "image/png": image, FIGURE_HTML: self.html}

    def __repr__(self) -> str:
        return self.text


def html_of(bundle: Mapping[str, Any]) -> str:
    """Return the HTML of a stored output, of a figure or of anything else; "" if it has none."""
    return "".join(bundle.get(FIGURE_HTML) or bundle.get("text/html") or "")


def bold(text: str) -> Shown:
    """Return a text in bold letters, for a cell of a table."""
    return Shown(f"<b>{_escaped(text)}</b>", text)


def code(text: str) -> Shown:
    """Return a text in the letters of code, for a cell of a table."""
    return Shown(f"<code>{_escaped(text)}</code>", text)


def script_json(content: Any) -> str:
    """Write a value as JSON that may stand in a script or in an element `<script>`.

    "<" would begin a tag or a comment there, and JavaScript before 2019 takes U+2028 and U+2029
    for the ends of lines; a parser of JSON reads the escapes as these characters.
    """
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    for character in "<\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def csv_link(data: pd.DataFrame, name: str) -> str:
    """A link, in HTML, that saves a frame as CSV."""
    rows = data.to_csv(index=False, float_format="%.6g")
    content = base64.b64encode(rows.encode()).decode("ascii")
    name = html.escape(name)
    return (
        f'<p class="cae-data"><a download="{name}.csv" '
        f'href="data:text/csv;base64,{content}">{name}.csv</a></p>'
    )


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
    if isinstance(value, Shown) and display:
        bundle = value._repr_mimebundle_()
    prefix = "" if display else "application/papermill.record/"
    show_raw(
        {prefix + kind: content for kind, content in bundle.items()},
        raw=True,
        metadata={"scrapbook": {"name": name, "mime_prefix": prefix}},
    )


def table(
    frame: pd.DataFrame,
    caption: str | Shown = "",
    fold: Sequence[Hashable] = (),
    data: pd.DataFrame | None = None,
    name: str = "table",
) -> Shown:
    """A frame as an HTML table in a box of its own that scrolls sideways; the index comes first.
    The columns `fold`, of two header rows those under a name above, are shown on a narrow screen
    only where the reader asks for all columns; DataError if there is no such column. Below is a
    link to `data`, what the table leaves out, as NAME.csv. Texts of the frame and the caption are
    escaped; markup stands in a cell, or in the caption, as `Shown`."""
    single = frame.index.nlevels == 1
    if single and frame.columns.nlevels == 1:  # one header row, the index named in it
        frame = frame.rename_axis(index=None, columns=frame.index.name)
    else:  # what a pivot calls its levels is no header
        frame = frame.rename_axis(columns=[None] * frame.columns.nlevels)
        frame = frame.rename_axis(index=None) if single else frame
    body = _escaped_frame(frame).to_html(classes="table cae-table", escape=False, na_rep="–")
    body = re.sub(r'(<(?:table|th)\b[^>]*?) (?:border|halign)="\w+"', r"\1", body)
    body = re.sub(r"<th( [^>]*)?></th>", r"<td\1></td>", body)  # an empty cell heads nothing
    title = f'<p class="cae-caption">{_escaped(caption)}</p>' if caption else ""
    if fold:
        tops = list(frame.columns.get_level_values(0))
        if unknown := [name for name in fold if name not in tops]:
            raise DataError(f"no columns {unknown} to fold; there are {list(dict.fromkeys(tops))}")
        body = _folded(body, [top in fold for top in tops])
        title += '<label class="cae-all"><input type="checkbox"> all columns</label>'
    link = "" if data is None else csv_link(data, name)
    return Shown(f'{title}<div class="cae-box">{body}</div>{link}', frame.to_string(na_rep="–"))


def _escaped(value: Any) -> Any:
    """A value of a table as HTML: texts are escaped, numbers and missing values stay."""
    if isinstance(value, Shown):
        return value.html
    if value is None or isinstance(value, Number | pd.Timestamp | type(pd.NaT)):
        return value
    return html.escape(str(value), quote=False)


def _escaped_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy of a frame whose texts, in cells, index and header, are escaped."""
    columns = [
        column
        if pd.api.types.is_numeric_dtype(column)
        else pd.Series([_escaped(value) for value in column], frame.index, dtype=object)
        for _, column in frame.items()
    ]
    cells = pd.concat(columns, axis=1) if columns else pd.DataFrame(index=frame.index)
    return cells.set_axis(_escaped_index(frame.index)).set_axis(
        _escaped_index(frame.columns), axis=1
    )


def _escaped_index(index: pd.Index) -> pd.Index:
    names = [_escaped(name) for name in index.names]
    if isinstance(index, pd.MultiIndex):
        keys = [tuple(_escaped(part) for part in key) for key in index]
        return pd.MultiIndex.from_tuples(keys, names=names) if keys else index
    if pd.api.types.is_numeric_dtype(index):
        return index.rename(names[0])
    return pd.Index([_escaped(key) for key in index], dtype=object, name=names[0])


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
    return Shown(
        f'<span class="verdict verdict-{html.escape(kind)}">{html.escape(word)}</span>', word
    )


def number(value: float, digits: int = 1, scale: float = 1.0, sign: bool = False) -> str:
    """A number with a true minus sign; "–" where there is none."""
    if value is None or not np.isfinite(value):
        return "–"
    text = f"{scale * value:{'+' if sign else ''}.{digits}f}"
    if not float(text):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def intervals(
    rows: pd.DataFrame, digits: int = 1, scale: float = 100.0, sign: bool = False
) -> pd.Series:
    """`estimate [low, high]` of each row as text; a line may break before the bracket."""
    columns = (
        [number(v, digits, scale, sign) for v in rows[name]] for name in ("estimate", "low", "high")
    )
    return pd.Series(
        [f"{e} [{a},\u00a0{b}]" for e, a, b in zip(*columns, strict=True)], rows.index, dtype=object
    )


def format_mean_halfwidth(rows: pd.DataFrame, digits: int = 1, scale: float = 100.0) -> pd.Series:
    """`estimate ±half` of each row for a table, half the width of its interval in small print."""
    halves = rows["estimate"] - rows["low"]
    texts = [
        (number(estimate, digits, scale), number(half, digits, scale))
        for estimate, half in zip(rows["estimate"], halves, strict=True)
    ]
    return pd.Series(
        [
            Shown(f"{estimate}<br><small>±{half}</small>", f"{estimate} ±{half}")
            for estimate, half in texts
        ],
        rows.index,
        dtype=object,
    )


def format_range(
    values: Sequence[float] | pd.Series, digits: int = 1, scale: float = 100.0, sign: bool = True
) -> str:
    """`smallest to largest` as text, one number where both read alike; "–" without values."""
    ends = (
        [number(end, digits, scale, sign) for end in (min(values), max(values))]
        if len(values)
        else ["–"]
    )
    return " to ".join(dict.fromkeys(ends))
