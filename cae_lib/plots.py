"""What the pages' figures and tables share: names, colours, one style, intervals, alt texts. A
figure is drawn in a cell with seaborn or matplotlib, between `style` and `show`. It becomes an
inline SVG whose text takes the colour of the page around it, so it reads in light and in dark."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from cae_lib import methods
from cae_lib.errors import DataError

INK = "#010101"
"""Drawn in the page's own text colour; pass it where a mark is to be black in light mode."""

FAINT = "#80808055"
MOST_ALT = 300
WIDTH = 7.2
"""Inches, the width of the book's text."""

SMALLEST = 9
"""CSS pixels, the least height of a figure's letters."""

METHOD_LABELS = {name: method.label for name, method in methods.methods().items()}
METHOD_COLORS = {method.label: method.color for method in methods.methods().values()}
METHODS = {name: METHOD_LABELS[name] for name in methods.METHODS}
"""The paper's four attribution methods, in its order, as pages call them."""

ROLES = ("object", "attribute", "relation")

LABELS = {
    "base": "CLIP", "clip-ft": "CLIP-FT", "negclip": "NegCLIP",
    "cae-binding": "CAE on bindings", "placebo-binding": "placebo: roles permuted",
    "wrong-binding": "placebo: any two words", "kept-binding": "placebo: meaning kept",
    "softmax-binding": "exchanges in the softmax", "hinge-negclip": "NegCLIP's texts, hinge",
    "negclip-binding": "NegCLIP + CAE on bindings",
}
KINDS = {"cae": "CLIP-CAE", "placebo": "placebo", "negclip-cae": "NegCLIP-CAE",
         "negclip-placebo": "NegCLIP, placebo", "random": "random words",
         "dependency": "CLIP-CAE, second tagger"}
"""What stands before the method in the names of runs."""

_COLORS = sns.color_palette("colorblind").as_hex()
ROLE_COLORS = dict(zip(ROLES, _COLORS[:3], strict=True))


def label(run: str) -> str:
    """A run as the paper's tables name it; what they do not have stays as it is."""
    kind, _, method = run.rpartition("-")
    if kind in KINDS and run not in LABELS and method in methods.methods():
        return f"{KINDS[kind]} ({methods.methods()[method].label})"
    return LABELS.get(run, run)


def method_of(run: str) -> str:
    """The attribution method in a run's name as text, "" where it has none."""
    name = run.rpartition("cae-")[2].partition("+")[0] if "cae-" in run else ""
    return methods.methods()[name].label if name in methods.methods() else ""


def style() -> None:
    """Set the book's look: no background, thin grid, letters of at least 9 points."""
    sns.set_theme("notebook", "whitegrid", rc={
        "figure.figsize": (WIDTH, 3.2), "figure.facecolor": "none", "axes.facecolor": "none",
        "savefig.facecolor": "none", "figure.constrained_layout.use": True,
        "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
        "axes.edgecolor": INK, "axes.linewidth": 0.8, "axes.spines.top": False,
        "axes.spines.right": False, "grid.color": FAINT, "grid.linewidth": 0.6,
        "font.size": 10, "axes.titlesize": 10, "axes.labelsize": 10, "xtick.labelsize": 9.5,
        "ytick.labelsize": 9.5, "legend.fontsize": 9.5, "legend.title_fontsize": 9.5,
        "legend.frameon": False, "svg.hashsalt": "cae", "svg.fonttype": "path",
    })  # the salt makes a figure the same file each time it is drawn


@dataclass(frozen=True)
class Shown:
    """What a cell shows: HTML for readers, and plain text for everything else."""

    html: str
    text: str = ""

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def show(figure: Figure, alt: str, data: pd.DataFrame | None = None, name: str = "figure") -> Shown:
    """Close a figure and show it as inline SVG, with a link to `data`, the rows behind it, as
    NAME.csv. On a narrow screen it shrinks until its smallest letters are `SMALLEST` pixels high,
    then it scrolls sideways. DataError unless the text `alt` says what it shows in 1 to `MOST_ALT`
    characters."""
    alt = " ".join(alt.split())
    if not 0 < len(alt) <= MOST_ALT:
        raise DataError(f"alt text of {len(alt)} characters: expected 1 to {MOST_ALT}")
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    letters = [text.get_fontsize() for text in figure.findobj(Text)
               if text.get_visible() and text.get_text().strip()]
    plt.close(figure)
    svg = stream.getvalue().partition("<svg")
    drawn = (svg[1] + svg[2]).replace(INK, "currentColor")
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    size = re.search(r'width="([\d.]+)pt" height="[\d.]+pt"', drawn)
    width = float(size[1]) / 72
    least = width * min(1, 0.75 * SMALLEST / min(letters, default=np.inf))  # 0.75 points a pixel
    drawn = drawn.replace(size[0], f'style="width: {width:.2f}in; min-width: {least:.2f}in"', 1)
    # A picture that is drawn twice has one id; nothing asks for it. The other ids are made
    # different from those of other figures on a page.
    drawn = re.sub(r'(<image\b[^>]*?)\sid="[^"]*"', r"\1", drawn)
    digest = hashlib.sha256(drawn.encode()).hexdigest()[:6]
    drawn = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>f{digest}-", drawn)
    title = html.escape(alt, quote=True)
    drawn = drawn.replace("<svg", f'<svg role="img" class="cae-figure" aria-label="{title}"', 1)
    link = "" if data is None else csv_link(data, name)
    return Shown(f'<div class="cae-box">{drawn}</div>{link}', alt)


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


def pick(rows: pd.DataFrame, **chosen: Sequence[str]) -> pd.DataFrame:
    """The rows whose columns have the chosen values, in the order of these, by the first column
    first: `pick(gains, score=sets, run=models)`. A value that no row has is told by a warning,
    with those that there are; DataError where nothing is left."""
    for column, values in chosen.items():
        known = list(dict.fromkeys(rows[column]))
        if absent := [value for value in values if value not in known]:
            warnings.warn(f"no {column} {absent}: there are {known}", stacklevel=2)
        rows = rows[rows[column].isin(values)]
    if rows.empty:
        raise DataError(f"nothing is left of {', '.join(chosen)} to be drawn")
    order = {column: list(values).index for column, values in chosen.items()}
    return rows.sort_values([*chosen], kind="stable", key=lambda of: of.map(order[of.name]))


def forest(
    rows: pd.DataFrame, y: str, hue: str | None = None, *, ax: Axes | None = None,
    scale: float = 100.0, palette: str | Sequence[str] | Mapping[str, str] = "colorblind",
    zero: bool = True,
) -> Axes:
    """Estimates with their intervals, one line for each value of `y`, dodged by `hue`.

    Args:
        rows: Has `estimate`, `low`, `high`, as `cae_lib.statistics` returns them.
        y, hue: Columns of the lines, in the order of the rows, and of the marks beside each other
            on one.
        ax: Where to draw; a new figure of fitting height by default.
        scale: Factor of the numbers, 100 for points.
        palette: Colours as seaborn takes them: a name, a list, or by `hue`, some or all.
        zero: Draw a line at zero.
    """
    lines = list(dict.fromkeys(rows[y]))
    marks = list(dict.fromkeys(rows[hue])) if hue else [None]
    if ax is None:
        height = 0.7 + len(lines) * (0.22 + 0.13 * len(marks))
        ax = plt.subplots(figsize=(WIDTH, height))[1]
    beside = {line: [mark for mark in marks
                     if mark is None or mark in set(rows.loc[rows[y].to_numpy() == line, hue])]
              for line in lines}
    step = 0.6 / max(1, len(marks) - 1)  # marks of a line lie around its middle
    given = dict(palette) if isinstance(palette, Mapping) else {}
    named = "colorblind" if isinstance(palette, Mapping) else palette
    colors = dict(zip(marks, sns.color_palette(named, len(marks)), strict=True)) | given
    for mark, shape in zip(marks, "os^Dv<>PX*" * len(marks), strict=False):
        part = rows if mark is None else rows[rows[hue] == mark]
        place = [lines.index(line) + step * (beside[line].index(mark) - (len(beside[line]) - 1) / 2)
                 for line in part[y]]
        middle = scale * part["estimate"].to_numpy(float)
        low, high = (scale * part[name].to_numpy(float) for name in ("low", "high"))
        ax.errorbar(middle, place, xerr=np.abs([middle - low, high - middle]), fmt=shape, ms=5,
                    color=colors[mark], lw=1.4, label=mark)
    if zero:
        ax.axvline(0, color=INK, lw=0.8)
    ax.set_yticks(range(len(lines)), lines)
    ax.set_ylim(len(lines) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    if hue and len(marks) > 1:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=min(4, len(marks)))
    return ax
