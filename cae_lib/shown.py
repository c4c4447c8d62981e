"""Tables, verdicts, glued values and formatted numbers, which pages show beside figures."""

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
    """Output of a cell, as HTML for the book and as plain text.

    A figure also has a PNG image, which notebook viewers show instead of the HTML.
    """

    html: str
    text: str = ""
    png: bytes = b""

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Return the output by MIME type, as a notebook stores it."""
        if not self.png:
            return {"text/plain": self.text, "text/html": self.html}
        image = base64.b64encode(self.png).decode("ascii")
        return {"text/plain": self.text, "image/png": image, FIGURE_HTML: self.html}

    def __repr__(self) -> str:
        return self.text


def html_of(bundle: Mapping[str, Any]) -> str:
    """Return the HTML of a stored output, whether of a figure or not; "" if it has none."""
    return "".join(bundle.get(FIGURE_HTML) or bundle.get("text/html") or "")


def bold(text: str) -> Shown:
    """Return a text in bold type, for a cell of a table."""
    return Shown(f"<b>{_escaped(text)}</b>", text)


def code(text: str) -> Shown:
    """Return a text in the typeface of code, for a cell of a table."""
    return Shown(f"<code>{_escaped(text)}</code>", text)


def script_json(content: Any) -> str:
    """Write a value as JSON that can be embedded in a script or in an element `<script>`.

    "<" would begin a tag or a comment there, and JavaScript before 2019 treats U+2028 and U+2029 as
    line ends. These characters are escaped, and a JSON parser restores them.
    """
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    for character in "<\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def csv_link(data: pd.DataFrame, name: str) -> str:
    """Return a link, as HTML, that saves a frame as NAME.csv."""
    rows = data.to_csv(index=False, float_format="%.6g")
    content = base64.b64encode(rows.encode()).decode("ascii")
    name = html.escape(name)
    return (
        f'<p class="cae-data"><a download="{name}.csv" '
        f'href="data:text/csv;base64,{content}">{name}.csv</a></p>'
    )


def glue(name: str, value: object, display: bool = False) -> None:
    """Store a value of a cell under a name, so that the text of the book can show it.

    The text refers to numbers and words by `{glue:text}`, and to other values by `{glue}`. Other
    pages use the name `experiments/PAGE.ipynb::name`.

    Args:
        name: Name of the value.
        value: A number, a word, or what `show` and `badge` return.
        display: Show the value as the cell's output as well.
    """
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
    """Return a frame as an HTML table in a box of its own that scrolls sideways.

    The index is shown first. Texts of the frame and the caption are escaped; to use markup in a
    cell or in the caption, pass it as `Shown`.

    Args:
        frame: The content of the table.
        caption: Text above the table.
        fold: Columns that a narrow screen shows only if the reader asks for all columns. If there
            are two header rows, these are names in the upper one.
        data: Rows that the table leaves out, for which a link is added below it.
        name: The link saves `data` as NAME.csv.

    Raises:
        DataError: If `fold` names a column that does not exist.
    """
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
    """Return a value of a table as HTML.

    Texts are escaped; numbers and missing values are unchanged.
    """
    if isinstance(value, Shown):
        return value.html
    if value is None or isinstance(value, Number | pd.Timestamp | type(pd.NaT)):
        return value
    return html.escape(str(value), quote=False)


def _escaped_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a copy of a frame in which the texts in cells, index and header are escaped."""
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
    """Add the class `cae-fold` to the cells of the columns to fold.

    Columns are counted from the right, since the index on the left may have any number of cells.

    Args:
        body: HTML of the table.
        fold: For each column, whether it is folded.
    """

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
    """Return a verdict of `cae_lib.statistics.verdict`, in the colour of its word."""
    kind = word.partition(" (")[0].replace(" ", "-")
    return Shown(
        f'<span class="verdict verdict-{html.escape(kind)}">{html.escape(word)}</span>', word
    )


def number(value: float, digits: int = 1, scale: float = 1.0, sign: bool = False) -> str:
    """Format a number with a true minus sign, or as "–" if it is missing or not finite."""
    if value is None or not np.isfinite(value):
        return "–"
    text = f"{scale * value:{'+' if sign else ''}.{digits}f}"
    if not float(text):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def intervals(
    rows: pd.DataFrame, digits: int = 1, scale: float = 100.0, sign: bool = False
) -> pd.Series:
    """Format each row as `estimate [low, high]`, where a line may break before the bracket."""
    columns = (
        [number(v, digits, scale, sign) for v in rows[name]] for name in ("estimate", "low", "high")
    )
    return pd.Series(
        [f"{e} [{a},\u00a0{b}]" for e, a, b in zip(*columns, strict=True)], rows.index, dtype=object
    )


def format_mean_halfwidth(rows: pd.DataFrame, digits: int = 1, scale: float = 100.0) -> pd.Series:
    """Format each row as `estimate ±half`, with half the interval's width in small print."""
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
    """Format values as `smallest to largest`.

    The text is a single number if both ends read alike, and "–" without values.
    """
    ends = (
        [number(end, digits, scale, sign) for end in (min(values), max(values))]
        if len(values)
        else ["–"]
    )
    return " to ".join(dict.fromkeys(ends))
