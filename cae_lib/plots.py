"""What the figures of the pages share: names, colours, one style, intervals and alt texts.

A cell draws a figure with seaborn or matplotlib, between the calls of `style` and `show`. The
figure becomes an inline SVG whose text takes the colour of the surrounding page, so that it is
legible in light and in dark mode, and a PNG for viewers of notebooks. The tables and numbers of
`shown` are exported here as well.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
import warnings
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from cae_lib import methods
from cae_lib.errors import DataError
from cae_lib.profiles import PROFILES
from cae_lib.shown import Shown as Shown
from cae_lib.shown import badge as badge
from cae_lib.shown import bold as bold
from cae_lib.shown import code as code
from cae_lib.shown import csv_link as csv_link
from cae_lib.shown import format_mean_halfwidth as format_mean_halfwidth
from cae_lib.shown import format_range as format_range
from cae_lib.shown import glue as glue
from cae_lib.shown import intervals as intervals
from cae_lib.shown import number as number
from cae_lib.shown import script_json as script_json
from cae_lib.shown import table as table

INK = "#010101"
"""A colour that becomes the page's own text colour. Pass it for marks that are black in light
mode."""

FAINT = "#80808055"
MOST_ALT = 300
WIDTH = 7.2
"""Width of the book's text, in inches."""

SMALLEST = 9
"""Smallest height of the letters in a figure, in CSS pixels."""

PNG_DPI, PNG_COLORS = 100, 128
"""Pixels per inch and number of colours of a figure's PNG, which has to be small."""

METHOD_LABELS = {name: method.label for name, method in methods.REGISTRY.items()}
METHOD_COLORS = {method.label: method.color for method in methods.REGISTRY.values()}
METHODS = {name: METHOD_LABELS[name] for name in methods.METHODS}
"""The paper's four attribution methods, in the paper's order, with the names that pages use."""

ROLES = ("object", "attribute", "relation")

LABELS = {"base": "CLIP"} | {
    run: text for profile in PROFILES.values() for run, text in profile.labels.items()
}
"""Names of runs in tables and figures, as given in the files of `configs`."""

KINDS = {
    "cae": "CLIP-CAE",
    "placebo": "placebo",
    "negclip-cae": "NegCLIP-CAE",
    "negclip-placebo": "NegCLIP, placebo",
    "random": "random words",
    "dependency": "CLIP-CAE, second tagger",
}
"""Labels of the prefixes that precede the method in the names of runs."""

_COLORS = sns.color_palette("colorblind").as_hex()
ROLE_COLORS = dict(zip(ROLES, _COLORS[:3], strict=True))
ROLE_MARKERS = dict(zip(ROLES, "os^", strict=True))


def label(run: str) -> str:
    """Return the name of a run in the paper's tables; a run that is not in them keeps its name."""
    kind, _, method = run.rpartition("-")
    if kind in KINDS and run not in LABELS and method in METHOD_LABELS:
        return f"{KINDS[kind]} ({METHOD_LABELS[method]})"
    return LABELS.get(run, run)


def method_of(run: str) -> str:
    """Return the label of the attribution method in a run's name, or "" if there is none."""
    name = run.rpartition("cae-")[2].partition("+")[0] if "cae-" in run else ""
    return METHOD_LABELS.get(name, "")


def style() -> None:
    """Set the style of the book: no background, a thin grid, letters of at least 9 points."""
    sns.set_theme(
        "notebook",
        "whitegrid",
        rc={
            "figure.figsize": (WIDTH, 3.2),
            "figure.facecolor": "none",
            "axes.facecolor": "none",
            "savefig.facecolor": "none",
            "figure.constrained_layout.use": True,
            "text.color": INK,
            "axes.labelcolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "axes.edgecolor": INK,
            "axes.linewidth": 0.8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.color": FAINT,
            "grid.linewidth": 0.6,
            "font.size": 10,
            "axes.titlesize": 10,
            "axes.labelsize": 10,
            "xtick.labelsize": 9.5,
            "ytick.labelsize": 9.5,
            "legend.fontsize": 9.5,
            "legend.title_fontsize": 9.5,
            "legend.frameon": False,
            "svg.hashsalt": "cae",
            "svg.fonttype": "path",
        },
    )  # the salt makes a figure the same file each time it is drawn


def show(figure: Figure, alt: str, data: pd.DataFrame | None = None, name: str = "figure") -> Shown:
    """Close a figure and return it as inline SVG with an alt text.

    Viewers of notebooks show a PNG instead. On a narrow screen the SVG shrinks until its smallest
    letters are `SMALLEST` pixels high; below that width it scrolls sideways.

    Args:
        figure: The figure.
        alt: Text that says what the figure shows, in 1 to `MOST_ALT` characters.
        data: The rows that the figure was drawn from, for which a link is added above it.
        name: The link saves `data` as NAME.csv.

    Raises:
        DataError: If the length of `alt` is not allowed.
    """
    alt = " ".join(alt.split())
    if not 0 < len(alt) <= MOST_ALT:
        raise DataError(f"alt text of {len(alt)} characters: expected 1 to {MOST_ALT}")
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    letters = [
        text.get_fontsize()
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip()
    ]
    png = _png(figure)
    plt.close(figure)
    svg = stream.getvalue().partition("<svg")
    drawn = (svg[1] + svg[2]).replace(INK, "currentColor")
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'(?<= d=")[^"]+', _shortened, drawn)
    drawn = re.sub(r">\s+<", "><", re.sub(r"<!--.*?-->", "", drawn, flags=re.DOTALL))
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
    return Shown(f'{link}<div class="cae-box">{drawn}</div>', alt, png)


def _shortened(path: re.Match[str]) -> str:
    """Round the coordinates of an SVG path to hundredths of a point.

    Matplotlib writes millionths, a difference that nobody can see.
    """
    text = re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", path[0])
    return re.sub(r"\s+", " ", text).strip()


def _png(figure: Figure) -> bytes:
    """Return a figure on a white background as a PNG with few colours."""
    stream, small = io.BytesIO(), io.BytesIO()
    figure.savefig(stream, format="png", dpi=PNG_DPI, facecolor="white")
    with Image.open(stream) as image:
        few = image.convert("RGB").quantize(PNG_COLORS, dither=Image.Dither.NONE)
    few.save(small, "PNG", optimize=True)
    return small.getvalue()


def pick(rows: pd.DataFrame, **chosen: Sequence[str]) -> pd.DataFrame:
    """Select the rows whose columns have the given values, and sort them in this order of values.

    For example, `pick(gains, score=sets, run=models)` sorts by score, then by run. A value that
    occurs in no row gives a warning, which lists the values that do occur.

    Args:
        rows: The rows to select from.
        **chosen: The values to select, by the name of the column.

    Raises:
        DataError: If no row is left.
    """
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
    rows: pd.DataFrame,
    y: str,
    hue: str | None = None,
    *,
    ax: Axes | None = None,
    scale: float = 100.0,
    palette: str | Sequence[str] | Mapping[str, str] = "colorblind",
    zero: bool = True,
) -> Axes:
    """Draw estimates with their intervals, one line for each value of `y`, dodged by `hue`.

    Args:
        rows: Has the columns `estimate`, `low` and `high`, as `cae_lib.statistics` returns them.
        y: Column that gives the lines, in the order of the rows.
        hue: Column that gives the marks beside each other on a line. Roles have markers of their
            own, the same on each page.
        ax: Axes to draw into; by default a new figure of fitting height.
        scale: Factor of the numbers, 100 for points.
        palette: Colours as seaborn takes them: a name, a list, or a mapping from some or all values
            of `hue`.
        zero: Draw a line at zero.

    Returns:
        The axes.
    """
    lines = list(dict.fromkeys(rows[y]))
    marks = list(dict.fromkeys(rows[hue])) if hue else [None]
    if ax is None:
        height = 0.7 + len(lines) * (0.22 + 0.13 * len(marks))
        ax = plt.subplots(figsize=(WIDTH, height))[1]
    beside = {
        line: [
            mark
            for mark in marks
            if mark is None or mark in set(rows.loc[rows[y].to_numpy() == line, hue])
        ]
        for line in lines
    }
    step = 0.6 / max(1, len(marks) - 1)  # marks of a line lie around its middle
    given = dict(palette) if isinstance(palette, Mapping) else {}
    named = "colorblind" if isinstance(palette, Mapping) else palette
    colors = dict(zip(marks, sns.color_palette(named, len(marks)), strict=True)) | given
    for mark, shape in zip(marks, "os^Dv<>PX*" * len(marks), strict=False):
        part = rows if mark is None else rows[rows[hue] == mark]
        place = [
            lines.index(line) + step * (beside[line].index(mark) - (len(beside[line]) - 1) / 2)
            for line in part[y]
        ]
        shape = ROLE_MARKERS.get(mark, shape)
        middle = scale * part["estimate"].to_numpy(float)
        low, high = (scale * part[name].to_numpy(float) for name in ("low", "high"))
        ax.errorbar(
            middle,
            place,
            xerr=np.abs([middle - low, high - middle]),
            fmt=shape,
            ms=5,
            color=colors[mark],
            lw=1.4,
            label=mark,
        )
    if zero:
        ax.axvline(0, color=INK, lw=0.8)
    ax.set_yticks(range(len(lines)), lines)
    ax.set_ylim(len(lines) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    if hue and len(marks) > 1:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=min(4, len(marks)))
    return ax
