"""Figures, tables and numbers for notebooks, as the pages of the book show them.

A cell draws a figure with seaborn or matplotlib, between the calls of `set_style` and `show`. The
figure becomes an inline SVG whose text takes the colour of the surrounding page, so that it is
legible in light and in dark mode, and a PNG for viewers of notebooks.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import itertools
import json
import re
import textwrap
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.legend import Legend
from matplotlib.ticker import FixedLocator
from PIL import Image

from cae_lab.mime_types import FIGURE_MIME_TYPE
from cae_lab.profiles import PROFILES
from cae_lib import methods
from cae_lib.errors import DataError

# Becomes the page's own text colour. Pass it for marks that are black in light mode.
INK = "#010101"
FAINT_COLOR = "#80808055"  # a translucent grey, for grid lines and bands
MAX_ALT_LENGTH = 300  # characters of an alt text
TEXT_WIDTH_INCHES = 7.2  # of the book
NARROW_WIDTH_INCHES = 3.8  # of a figure on a telephone

# Largest numbers of characters in a line of a narrow figure: first of tick labels, texts in a panel
# and the label of the y axis, then of the title of a panel and the label of the x axis.
NARROW_LINE_LENGTHS = 22, 26
LINE_HEIGHT_INCHES = 0.16  # of a tick label
LABEL_GAP = 0.7  # smallest gap between the labels of two ticks, in lines
PNG_DPI, PNG_COLORS = 100, 128  # few, because notebooks store the PNG of each figure

# Labels of the attribution methods by name, and colours by label.
METHOD_LABELS = {name: method.label for name, method in methods.METHODS.items()}
METHOD_COLORS = {method.label: method.color for method in methods.METHODS.values()}
# Of the paper's four methods, in its order: labels by name, and markers by label.
PAPER_METHOD_LABELS = {name: METHOD_LABELS[name] for name in methods.PAPER_METHODS}
METHOD_MARKERS = dict(zip(PAPER_METHOD_LABELS.values(), "os^D", strict=True))

ROLES = ("object", "attribute", "relation")  # in the order in which figures show them

# By the name of the run, from the files of `configs`.
RUN_LABELS = {"base": "CLIP"} | {
    run: text for profile in PROFILES.values() for run, text in profile.labels.items()
}

# Of runs that are named PREFIX-METHOD; `label` adds the method's label.
RUN_PREFIX_LABELS = {
    "cae": "CLIP-CAE",
    "placebo": "placebo",
    "negclip-cae": "NegCLIP-CAE",
    "negclip-placebo": "NegCLIP, placebo",
    "random": "random words",
    "dependency": "CLIP-CAE, dependency parser",
    "truth": "CLIP-CAE, ground truth",
    "placebo-truth": "placebo, ground truth",
}

# Shown for an estimate whose interval is NaN, such as one of two seeds.
NO_INTERVAL = "no interval"

_COLORS = sns.color_palette("colorblind").as_hex()
ROLE_COLORS: dict[str, str] = dict(zip(ROLES, _COLORS[:3], strict=True))
ROLE_MARKERS: dict[str, str] = dict(zip(ROLES, "os^", strict=True))
GRAY = "#949494"  # of placebos and other controls, and of runs without a colour of their own

# By the name of the run, from the keys `look` in the files of `configs`.
RUN_MARKERS_AND_COLORS: dict[str, tuple[str, str]] = {
    "base": ("P", INK),
    **{run: look for profile in PROFILES.values() for run, look in profile.looks.items()},
    "cae": ("o", "#6a3d9a"),  # the mean of CAE's four methods
}

DEFAULT_MARKER_AND_COLOR = ("d", GRAY)


@dataclass(frozen=True)
class CellOutput:
    """Output of a notebook cell.

    Attributes:
        html: The output as HTML, for the book.
        text: The output as plain text.
        png: PNG image of a figure, which viewers of notebooks show instead of the HTML; empty for
            other outputs.
    """

    html: str
    text: str = ""
    png: bytes = b""

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Return the output by MIME type, as IPython asks for it."""
        if not self.png:
            return {"text/plain": self.text, "text/html": self.html}
        image = base64.b64encode(self.png).decode("ascii")
        return {"text/plain": self.text, "image/png": image, FIGURE_MIME_TYPE: self.html}

    def __repr__(self) -> str:
        return self.text


def label(run: str) -> str:
    """Return the label of a run in tables and figures, or the run's name if it has no label."""
    kind, _, method = run.rpartition("-")
    if kind in RUN_PREFIX_LABELS and run not in RUN_LABELS and method in METHOD_LABELS:
        return f"{RUN_PREFIX_LABELS[kind]} ({METHOD_LABELS[method]})"
    return RUN_LABELS.get(run, run)


def method_label(run: str) -> str:
    """Return the label of the attribution method in a run's name: "GradCAM" for "cae-gradcam".

    It is "" unless the name ends in "cae-METHOD" or contains "cae-METHOD+".
    """
    name = run.rpartition("cae-")[2].partition("+")[0] if "cae-" in run else ""
    return METHOD_LABELS.get(name, "")


def marker_and_color(run: str) -> tuple[str, str]:
    """Return the marker and the colour that a run has on all pages.

    `RUN_MARKERS_AND_COLORS` takes precedence. Otherwise, placebos and other controls are grey
    triangles, runs with a `method_label` have CAE's colour and the marker of this method (or a
    circle), and all others have `DEFAULT_MARKER_AND_COLOR`.
    """
    if run in RUN_MARKERS_AND_COLORS:
        return RUN_MARKERS_AND_COLORS[run]
    if run.startswith(("placebo", "wrong", "kept", "random", "negclip-placebo")):
        return "^", GRAY
    method = method_label(run)
    if not method:
        return DEFAULT_MARKER_AND_COLOR
    return METHOD_MARKERS.get(method, "o"), RUN_MARKERS_AND_COLORS["cae"][1]


def set_style() -> None:
    """Set the style of figures: no background, a thin grid, the font of the book's headings."""
    font_manager.fontManager.addfont(Path(__file__).with_name("cae-sans.ttf"))
    sns.set_theme(
        "notebook",
        "whitegrid",
        rc={
            "figure.figsize": (TEXT_WIDTH_INCHES, 3.2),
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
            "grid.color": FAINT_COLOR,
            "grid.linewidth": 0.6,
            "font.family": ["CAE Sans", "DejaVu Sans"],  # the second for arrows
            "font.size": 11,
            "axes.titlesize": 11,
            "axes.labelsize": 11,
            "xtick.labelsize": 10.5,
            "ytick.labelsize": 10.5,
            "legend.fontsize": 10.5,
            "legend.title_fontsize": 10.5,
            "legend.frameon": False,
            # With a fixed salt, a figure is the same file each time it is drawn.
            "svg.hashsalt": "cae",
            # Outlines, because a reader need not have the font.
            "svg.fonttype": "path",
        },
    )


def show(
    figure: Figure, alt: str, data: pd.DataFrame | None = None, name: str = "figure"
) -> CellOutput:
    """Close a figure and return it as inline SVG, and as a PNG for viewers of notebooks.

    A figure that is wider than a telephone's screen is drawn twice: as it is, and after
    `narrow_figure` has changed it. The book shows the drawing that fits.

    Args:
        figure: The figure.
        alt: Alt text of 1 to `MAX_ALT_LENGTH` characters; white space counts as one space.
        data: Rows that a link below the figure saves; None adds no link.
        name: Name of the file that the link saves, without the suffix `.csv`.

    Raises:
        DataError: If the length of `alt` is not allowed.
    """
    alt = " ".join(alt.split())
    if not 0 < len(alt) <= MAX_ALT_LENGTH:
        raise DataError(f"alt text of {len(alt)} characters: expected 1 to {MAX_ALT_LENGTH}")
    # Both before `narrow_figure`, which changes the figure in place.
    png, drawn = _png(figure), _svg(figure, alt)
    if figure.get_figwidth() > NARROW_WIDTH_INCHES + 0.5:
        columns = _count_columns(figure)
        narrow_figure(figure)
        stacked = " cae-stacked" if columns > _count_columns(figure) == 1 else ""
        drawn = drawn.replace("cae-figure", "cae-figure cae-wide", 1)
        drawn += _svg(figure, alt).replace("cae-figure", f"cae-figure cae-narrow{stacked}", 1)
    plt.close(figure)
    link = "" if data is None else csv_link(data, name)
    return CellOutput(f'<div class="cae-box">{drawn}</div>{link}', alt, png)


def _count_columns(figure: Figure) -> int:
    """Return how many panels of a figure stand side by side at most."""
    cells = [ax.get_subplotspec() for ax in figure.axes]
    return max((cell.get_gridspec().ncols for cell in cells if cell is not None), default=1)


def narrow_figure(figure: Figure) -> None:
    """Narrow a figure in place to `NARROW_WIDTH_INCHES`, with its panels in one or two columns.

    Panels that stand side by side in one grid are moved into two columns if some of them show
    images, or points without lines, and into one column otherwise. Panels that shared the labels of
    an axis or the title of a column get their own, long labels are wrapped, and legends outside of
    the panels get as many columns (1 to 3) as fit.
    """
    middle = figure.bbox.height / 2
    # Whether each legend is below the panels. To be asked before the panels move.
    legends = {legend: legend.get_window_extent().y0 < middle for legend in figure.legends}
    parts = list(figure.subfigs) or [figure]
    heights = [_fold_panels(part) for part in parts]
    # A figure of several subfigures grows by the mean factor, weighted by their heights.
    shares = [part.bbox.height for part in parts]
    figure.set_size_inches(
        NARROW_WIDTH_INCHES, figure.get_figheight() * float(np.average(heights, weights=shares))
    )
    if figure.subfigs:
        # matplotlib has no public access to the grid that subfigures are in.
        subfigure: Any = figure.subfigs[0]
        grid = subfigure._subplotspec.get_gridspec()
        ratios = grid.get_height_ratios() or [1] * grid.nrows
        grid.set_height_ratios([r * height for r, height in zip(ratios, heights, strict=True)])
    _refit_legends(figure, legends)
    # The layout makes room for what stands above a panel by the panel's height before.
    figure.draw_without_rendering()


def _fold_panels(figure: Any) -> float:
    """Arrange the panels of a figure or subfigure in fewer columns; return the growth in height."""
    panels = [ax for ax in figure.axes if ax.get_subplotspec() is not None]
    for ax in panels:
        _wrap_texts(ax)
    if not panels:
        return 1.0
    grid = panels[0].get_subplotspec().get_gridspec()
    height = figure.bbox.height / figure.dpi / grid.nrows  # of a panel with its labels
    # A fifth of the panel is left to its title and the labels of its x axis.
    growth = max(_label_height(ax) / (0.8 * height) for ax in panels)
    # One column cannot be folded, and panels of several grids have no common order.
    if grid.ncols == 1 or any(ax.get_subplotspec().get_gridspec() is not grid for ax in panels):
        is_table = any(isinstance(part, QuadMesh) for part in panels[0].collections)
        return max(1.4 if is_table else 1.0, growth)
    columns = 2 if any(_is_image(ax) for ax in panels) else 1
    rows = -(-len(panels) // columns)  # rounded up
    # The leftmost panel of each row and the top panel of each column, whose labels others shared.
    firsts = {ax.get_subplotspec().rowspan.start: ax for ax in reversed(panels)}
    tops = {ax.get_subplotspec().colspan.start: ax for ax in reversed(panels)}
    folded = GridSpec(rows, columns, figure=figure)
    for place, ax in enumerate(panels):
        cell = ax.get_subplotspec()
        if ax.axison:
            ax.tick_params(labelbottom=True, labelleft=True)
        first, top = firsts[cell.rowspan.start], tops[cell.colspan.start]
        if columns == 1 and not ax.get_ylabel() and ax.get_shared_y_axes().joined(ax, first):
            ax.set_ylabel(first.get_ylabel())
        if not ax.get_title():
            ax.set_title(top.get_title())
        ax.set_subplotspec(folded[place // columns, place % columns])
    return rows / grid.nrows * max(0.9 if columns == 1 else 1.0, growth)


def _label_height(ax: Axes) -> float:
    """Return the height in inches that the tick labels of the vertical axis need."""
    # Ticks are fixed if the page has given them labels. Others adapt to the height.
    if not isinstance(ax.yaxis.get_major_locator(), FixedLocator):
        return 0.0
    labels = ax.yaxis.get_major_formatter().format_ticks(list(ax.get_yticks()))
    lines = [label.count("\n") + 1 + LABEL_GAP for label in labels]
    # Ticks are evenly spaced, so the two neighbours with the most lines decide.
    most = max((sum(pair) / 2 for pair in itertools.pairwise(lines)), default=1)
    return len(labels) * most * LINE_HEIGHT_INCHES


def _is_image(ax: Axes) -> bool:
    """Return whether a panel shows an image or points, but no lines."""
    # A QuadMesh is a table of colours, whose texts need the whole width.
    drawn = [*ax.images, *(part for part in ax.collections if not isinstance(part, QuadMesh))]
    return bool(drawn) and not ax.lines


def _wrap_texts(ax: Axes) -> None:
    """Wrap, rotate or shrink the texts of a panel to the width of a narrow figure."""
    of_tick, of_axis = NARROW_LINE_LENGTHS
    is_table = any(isinstance(part, QuadMesh) for part in ax.collections)
    if is_table:
        ax.tick_params(axis="y", labelrotation=0)
    for text in ax.texts:
        if is_table:
            text.set_fontsize(8)
        else:
            lines = text.get_text().split("\n")
            text.set_text("\n".join(textwrap.fill(line, of_tick) for line in lines))
    if isinstance(ax.yaxis.get_major_locator(), FixedLocator) and not is_table:
        labels = ax.yaxis.get_major_formatter().format_ticks(list(ax.get_yticks()))
        ax.set_yticks(ax.get_yticks(), [textwrap.fill(text, of_tick) for text in labels])
    texts = [text.get_text() for text in ax.get_xticklabels()]
    if isinstance(ax.xaxis.get_major_locator(), FixedLocator) and len(" ".join(texts)) > of_tick:
        ax.tick_params(axis="x", labelrotation=90)
    ax.set_xlabel(textwrap.fill(ax.get_xlabel(), of_axis))
    ax.set_ylabel(textwrap.fill(ax.get_ylabel(), of_tick))
    # A title with line breaks was laid out by the page.
    if "\n" not in ax.get_title():
        ax.set_title(textwrap.fill(ax.get_title(), of_axis))


def _refit_legends(figure: Figure, own_legends: Mapping[Legend, bool]) -> None:
    """Draw the legends that stand outside of the panels anew, no wider than the figure.

    `own_legends` are those of the figure itself, and whether each is below the panels.
    """
    handles = {
        text: handle
        for ax in figure.axes
        for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    legends: list[tuple[Legend, Any, Axes | None]] = [
        (legend, f"outside {'lower' if is_below else 'upper'} left", None)
        for legend, is_below in own_legends.items()
    ]
    for ax in figure.axes:
        legend = ax.get_legend()
        # A legend inside a panel is anchored to the whole panel, and stays as it is.
        if legend and legend.get_bbox_to_anchor().bounds != ax.bbox.bounds:
            legends.append((legend, "outside upper left", ax))
    texts_of = {legend: [text.get_text() for text in legend.get_texts()] for legend, *_ in legends}
    is_alone = len({tuple(texts) for texts in texts_of.values()}) <= 1
    drawn: list[list[str]] = []
    for legend, place, ax in legends:
        texts = texts_of[legend]
        own_handles: list[Any] = [
            handles.get(text, handle)
            for text, handle in zip(texts, legend.legend_handles, strict=True)
        ]
        title = legend.get_title().get_text() or None
        height = -legend.get_window_extent().height
        legend.remove()
        # Panels that stood side by side may each have had the same legend.
        if texts in drawn:
            continue
        drawn.append(texts)
        # Only a legend that exists has a width, so the numbers of columns are tried.
        for columns in (3, 2, 1):
            if is_alone or ax is None:
                room = 0.95 * figure.bbox.width
                new = figure.legend(own_handles, texts, title=title, loc=place, ncols=columns)
            else:
                room = 0.7 * figure.bbox.width  # beside the labels of the panel's ticks
                above = (0, 1.15 if ax.get_title() else 1)
                new = ax.legend(
                    own_handles,
                    texts,
                    title=title,
                    loc="lower left",
                    bbox_to_anchor=above,
                    ncols=columns,
                )
            if columns == 1 or new.get_window_extent().width <= room:
                break
            new.remove()
        height += new.get_window_extent().height
        figure.set_figheight(figure.get_figheight() + max(0.0, height / figure.dpi))


def _svg(figure: Figure, alt: str) -> str:
    """Return a figure as a compact SVG element, in which `INK` is the page's text colour."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    # Inside of HTML, the XML declaration and the document type must not be repeated.
    svg = stream.getvalue().partition("<svg")
    drawn = (svg[1] + svg[2]).replace(INK, "currentColor")
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'(?<= d=")[^"]+', _shortened, drawn)
    drawn = re.sub(r">\s+<", "><", re.sub(r"<!--.*?-->", "", drawn, flags=re.DOTALL)).strip()
    size = r'width="([\d.]+)pt" height="[\d.]+pt"'
    drawn = re.sub(size, lambda at: f'style="width: {float(at[1]) / 72:.2f}in"', drawn, count=1)
    drawn = _share_images(drawn)
    drawn = re.sub(r'translate\([^)]+\)|(?<= [xy]=")[^"]+', _shortened, drawn)
    drawn = _with_short_ids(drawn.replace("xlink:href=", "href="))
    title = html.escape(alt, quote=True)
    return drawn.replace("<svg", f'<svg role="img" class="cae-figure" aria-label="{title}"', 1)


def _share_images(svg: str) -> str:
    """Write each image of an SVG only once, and refer to it where it is drawn again."""
    first: dict[tuple[str, str, str], str] = {}

    def share(image: re.Match[str]) -> str:
        attributes = dict(re.findall(r'([\w:]+)="([^"]*)"', image[1]))
        attributes.pop("id", None)  # nothing refers to it
        key = (attributes.pop("xlink:href"), attributes.pop("width"), attributes.pop("height"))
        definition = ""
        if key not in first:
            first[key] = f"image{len(first)}"
            href, width, height = key
            definition = (
                f'<defs><image id="{first[key]}" href="{href}" width="{width}" '
                f'height="{height}"/></defs>'
            )
        rest = "".join(f' {name}="{value}"' for name, value in attributes.items())
        return f'{definition}<use href="#{first[key]}"{rest}/>'

    return re.sub(r"<image\b([^>]*?)/>", share, svg)


def _with_short_ids(svg: str) -> str:
    """Shorten the ids that an SVG refers to, and drop all other ids."""
    # With a digest, because ids of all figures on a page have to differ.
    digest = hashlib.sha256(svg.encode()).hexdigest()[:6]
    used = dict.fromkeys(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    short = {name: f"f{digest}{number:x}" for number, name in enumerate(used)}
    svg = re.sub(
        r' id="([^"]+)"', lambda at: f' id="{short[at[1]]}"' if at[1] in short else "", svg
    )
    return re.sub(r'(href="#|url\(#)([^")]+)', lambda at: at[1] + short[at[2]], svg)


def _shortened(path: re.Match[str]) -> str:
    """Return the matched coordinates of an SVG, rounded to hundredths of a point."""
    # Matplotlib writes millionths, a difference that nobody can see.
    text = re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", path[0])
    return re.sub(r"\s+", " ", text).strip()


def _png(figure: Figure) -> bytes:
    """Return a figure as a PNG with few colours."""
    stream, small = io.BytesIO(), io.BytesIO()
    # On white, so that its black letters are legible in a dark notebook.
    figure.savefig(stream, format="png", dpi=PNG_DPI, facecolor="white")
    with Image.open(stream) as image:
        few = image.convert("RGB").quantize(PNG_COLORS, dither=Image.Dither.NONE)
    few.save(small, "PNG", optimize=True)
    return small.getvalue()


def pick(rows: pd.DataFrame, **selection: Sequence[str]) -> pd.DataFrame:
    """Select the rows with the given values, and sort them in the order of these values.

    For example, `pick(gains, score=["ARO-R", "ARO-A"], run=models)` sorts by score, in this order,
    and then by run. Columns are searched one after the other. A value that occurs in none of the
    rows that are left gives a warning, which lists the values that do.

    Args:
        rows: The rows to select from.
        **selection: The values to select, by the name of the column.

    Raises:
        DataError: If no row is left.
    """
    for column, values in selection.items():
        present = list(dict.fromkeys(rows[column]))
        if absent := [value for value in values if value not in present]:
            warnings.warn(f"no {column} {absent}: there are {present}", stacklevel=2)
        rows = rows[rows[column].isin(values)]
    if rows.empty:
        raise DataError(f"nothing is left of {', '.join(selection)} to be drawn")
    order = {column: list(values).index for column, values in selection.items()}
    # Stable, so that rows with the same values keep their order.
    return rows.sort_values([*selection], kind="stable", key=lambda of: of.map(order[of.name]))


def forest(
    rows: pd.DataFrame,
    y: str,
    hue: str | None = None,
    *,
    ax: Axes | None = None,
    scale: float = 100.0,
    palette: str | Sequence[str] | Mapping[str, str] = "colorblind",
    zero_line: bool = True,
) -> Axes:
    """Draw a forest plot: estimates with intervals, one line per value of `y`, dodged by `hue`.

    Args:
        rows: Frame with the columns `estimate`, `low` and `high`, as `cae_bench.statistics` returns
            them, and those that `y` and `hue` name. Where `low` is NaN, the figure says so.
        y: Column whose values label the lines, from top to bottom in the order of the rows.
        hue: Column whose values distinguish the marks of a line; None if each line has one mark.
            Word roles and the labels of the paper's methods and of the runs in
            `RUN_MARKERS_AND_COLORS` have the same markers on each page.
        ax: Axes to draw into; None creates a figure of fitting height.
        scale: Factor of the numbers; 100 gives percentage points.
        palette: Colours of the marks: a list with a colour for each value of `hue`, a mapping from
            some of these values to colours, or the name of a seaborn palette. Except with a list,
            the labels of the runs in `RUN_MARKERS_AND_COLORS` have the runs' colours unless the
            mapping has others; all other values have colours of the named palette or, with a
            mapping, of "colorblind".
        zero_line: Whether to draw a vertical line at zero.
    """
    lines = list(dict.fromkeys(rows[y]))
    marks = list(dict.fromkeys(rows[hue])) if hue else [None]
    if ax is None:
        height = 0.7 + len(lines) * (0.18 + 0.17 * len(marks))
        ax = plt.subplots(figsize=(TEXT_WIDTH_INCHES, height))[1]
    # A line need not have all marks; those that it has lie around its middle.
    marks_of_line = {
        line: [
            mark
            for mark in marks
            if mark is None or mark in set(rows.loc[rows[y].to_numpy() == line, hue])
        ]
        for line in lines
    }
    step = 0.6 / max(2, len(marks) - 1)  # two marks of a line lie closer than two lines
    named_colors = dict(palette) if isinstance(palette, Mapping) else {}
    palette_name = "colorblind" if isinstance(palette, Mapping) else palette
    looks = {label(run): marker_and_color(run) for run in RUN_MARKERS_AND_COLORS}
    own_colors = {mark: looks[mark][1] for mark in marks if mark in looks}
    colors = dict(zip(marks, sns.color_palette(palette_name, len(marks)), strict=True))
    colors |= (own_colors if isinstance(palette, Mapping | str) else {}) | named_colors
    for mark, shape in zip(marks, "os^Dv<>PX*" * len(marks), strict=False):
        part = rows if mark is None else rows[rows[hue] == mark]
        place = [
            lines.index(line)
            + step * (marks_of_line[line].index(mark) - (len(marks_of_line[line]) - 1) / 2)
            for line in part[y]
        ]
        markers = ROLE_MARKERS | METHOD_MARKERS
        shape = looks[mark][0] if mark in looks else markers.get(str(mark), shape)
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
        # Without a word, an estimate without an interval would look like a very exact one.
        for x, level, end in zip(middle, place, low, strict=True):
            if np.isnan(end):
                ax.annotate(
                    NO_INTERVAL, (x, level), (5, 0), textcoords="offset points", va="center"
                )
    if zero_line:
        ax.axvline(0, color=INK, lw=0.8)
    ax.set_yticks(range(len(lines)), lines)
    ax.set_ylim(len(lines) - 0.5, -0.5)  # the first line on top
    ax.grid(axis="y", visible=False)
    if hue and len(marks) > 1:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=min(4, len(marks)))
    return ax


def bold(text: str) -> CellOutput:
    """Return a text in bold type, for a cell of a table."""
    return CellOutput(f"<b>{_escaped(text)}</b>", text)


def code(text: str) -> CellOutput:
    """Return a text in the typeface of code, for a cell of a table."""
    return CellOutput(f"<code>{_escaped(text)}</code>", text)


def script_json(content: Any) -> str:
    """Format a value as JSON that can be embedded in a script or in an HTML element `<script>`."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    # "<" could begin a tag or a comment, and JavaScript before 2019 takes the others for line ends.
    for character in "<\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def folded(table: CellOutput, summary: str) -> CellOutput:
    """Return a table that the book shows when its summary is clicked."""
    return CellOutput(f"<details><summary>{summary}</summary>{table.html}</details>", table.text)


def csv_link(data: pd.DataFrame, name: str) -> str:
    """Return an HTML link that saves a frame as NAME.csv; the link contains the data.

    The index is left out, and floats have six significant digits.
    """
    rows = data.to_csv(index=False, float_format="%.6g")
    content = base64.b64encode(rows.encode()).decode("ascii")
    name = html.escape(name)
    return (
        f'<p class="cae-data"><a download="{name}.csv" '
        f'href="data:text/csv;base64,{content}">{name}.csv</a></p>'
    )


def table(
    frame: pd.DataFrame,
    caption: str | CellOutput = "",
    fold: Sequence[Hashable] = (),
    data: pd.DataFrame | None = None,
    name: str = "table",
) -> CellOutput:
    """Return a frame as an HTML table in a box of its own that scrolls sideways.

    Missing values are shown as "–". Texts of the frame and the caption are escaped. If a cell or
    the caption is a `CellOutput`, its HTML is inserted unchanged.

    Args:
        frame: The content of the table, whose index is shown first.
        caption: Text above the table.
        fold: Columns that a narrow screen shows only if the reader asks for all columns. If there
            are two header rows, these are names in the upper one.
        data: Rows that a link below the table saves without their index (see `csv_link`), such as
            the unformatted numbers or rows that the table leaves out; None adds no link.
        name: Name of the file that the link saves, without the suffix `.csv`.

    Raises:
        DataError: If `fold` names a column that does not exist.
    """
    single = frame.index.nlevels == 1
    if single and frame.columns.nlevels == 1:
        # pandas shows the name of the index in a row of its own, that of the columns in the header.
        frame = frame.rename_axis(index=None, columns=frame.index.name)
    else:
        # What a pivot calls its levels is no header.
        frame = frame.rename_axis(columns=[None] * frame.columns.nlevels)
        frame = frame.rename_axis(index=None) if single else frame
    cells = _escaped_frame(frame)
    body = cells.to_html(classes="table cae-table", escape=False, na_rep="–", index_names=single)
    if not single:
        # Write the names of the levels of the index into the last header row.
        names = iter([name or "" for name in cells.index.names])
        head, end, rest = body.partition("</thead>")
        above, start, row = head.rpartition("<tr")
        row = re.sub("<th></th>", lambda _: f"<th>{next(names, '')}</th>", row)
        body = above + start + row + end + rest
    body = re.sub(r'(<(?:table|th)\b[^>]*?) (?:border|halign)="\w+"', r"\1", body)
    # An empty cell heads nothing.
    body = re.sub(r"<th( [^>]*)?></th>", r"<td\1></td>", body)
    title = f'<p class="cae-caption">{_escaped(caption)}</p>' if caption else ""
    if fold:
        tops = list(frame.columns.get_level_values(0))
        if unknown := [name for name in fold if name not in tops]:
            raise DataError(f"no columns {unknown} to fold; there are {list(dict.fromkeys(tops))}")
        body = _folded(body, [top in fold for top in tops])
        title += '<label class="cae-all"><input type="checkbox"> all columns</label>'
    link = "" if data is None else csv_link(data, name)
    return CellOutput(
        f'{title}<div class="cae-box">{body}</div>{link}', frame.to_string(na_rep="–")
    )


def _escaped(value: Any) -> Any:
    """Return a value of a table as HTML; numbers, timestamps and missing values are unchanged."""
    if isinstance(value, CellOutput):
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
    """Add the class `cae-fold` to the cells of the columns for which `fold` is true."""

    def mark(row: re.Match) -> str:
        cells = re.split(r"(?=<t[hd]\b)", row[0])
        # From the right, since the index on the left may have any number of cells.
        right = len(fold)
        for place in range(len(cells) - 1, 0, -1):
            span = re.match(r'<t[hd][^>]*\bcolspan="(\d+)"', cells[place])
            left = right - (int(span[1]) if span else 1)
            if left >= 0 and all(fold[left:right]):
                cells[place] = f'{cells[place][:3]} class="cae-fold"{cells[place][3:]}'
            right = left
        return "".join(cells)

    return re.sub(r"<tr.*?</tr>", mark, body, flags=re.DOTALL)


SIGNS = {"supported": "✓", "contradicted": "✗", "negligible": "≈", "undecided": "?"}
"""The sign that stands for an outcome behind the name of a method."""


def badge(verdict: str) -> CellOutput:
    """Return a verdict as a badge in its colour, with a small one of each method that differs.

    Args:
        verdict: Such as "negligible (gradient undecided)"; see `cae_bench.statistics.verdict`.
    """

    def span(kind: str, classes: str, content: str) -> str:
        return f'<span class="{classes} verdict-{kind.replace(" ", "-")}">{content}</span>'

    outcome, _, details = html.escape(verdict).removesuffix(")").partition(" (")
    badges = [span(outcome, "verdict", f"{SIGNS.get(outcome, '')} {outcome}".strip())]
    for group in details.split("; ") if details else []:
        names, _, own = group.rpartition(" ")
        # The sign is read as the word that it stands for.
        sign = f'<span role="img" aria-label="{own}" title="{own}">{SIGNS[own]}</span>'
        badges += [span(own, "verdict-method", f"{name} {sign}") for name in names.split(", ")]
    return CellOutput(" ".join(badges), verdict)


def format_number(
    value: float | None, digits: int = 1, scale: float = 1.0, sign: bool = False
) -> str:
    """Format `scale * value` with a true minus sign, or as "–" if it is missing or not finite.

    Args:
        value: The number; None is missing.
        digits: Number of decimals.
        scale: Factor, such as 100 for percentage points.
        sign: Whether positive numbers get a plus sign. Numbers rounded to zero have no sign.
    """
    if value is None or not np.isfinite(value):
        return "–"
    text = f"{scale * value:{'+' if sign else ''}.{digits}f}"
    if not float(text):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def format_intervals(
    rows: pd.DataFrame, digits: int = 1, scale: float = 100.0, sign: bool = False
) -> pd.Series:
    """Format each row as `estimate [low, high]`, or as `estimate (no interval)` if `low` is NaN.

    A line may break before the bracket, but not inside it. `format_number` explains the arguments
    other than `rows`, a frame with the columns `estimate`, `low` and `high`. The texts have its
    index.
    """
    columns = (
        [format_number(v, digits, scale, sign) for v in rows[name]]
        for name in ("estimate", "low", "high")
    )
    texts = [
        f"{e} ({NO_INTERVAL})" if is_missing else f"{e} [{a},\u00a0{b}]"
        for e, a, b, is_missing in zip(*columns, rows["low"].isna(), strict=True)
    ]
    return pd.Series(texts, rows.index, dtype=object)


def format_estimates(rows: pd.DataFrame) -> pd.Series:
    """Format each row in percentage points as `estimate ±h`, for the cells of a table.

    `h` is `estimate - low`, half the width of a symmetric interval, in small type; if it is NaN,
    the cell says "no interval" instead. The cells have the index of `rows`.
    """
    estimates = [format_number(100 * value) for value in rows["estimate"]]
    halves = [
        f"({NO_INTERVAL})" if pd.isna(value) else f"±{format_number(100 * value)}"
        for value in rows["estimate"] - rows["low"]
    ]
    texts = [
        CellOutput(f"{estimate} <small>{half}</small>", f"{estimate} {half}")
        for estimate, half in zip(estimates, halves, strict=True)
    ]
    return pd.Series(texts, rows.index, dtype=object)


def format_range(
    values: Sequence[float] | pd.Series, digits: int = 1, scale: float = 100.0, sign: bool = True
) -> str:
    """Format the range of some values as `smallest to largest`.

    By default the numbers are percentage points with signs; `format_number` explains the arguments.
    Values that are not finite are left out. The text is a single number if both ends are equal when
    rounded, and "–" if there are no values.
    """
    finite = [value for value in values if np.isfinite(value)]
    ends = (min(finite), max(finite)) if finite else (None,)
    return " to ".join(dict.fromkeys(format_number(end, digits, scale, sign) for end in ends))
