"""A map of all comparisons and families: the differences, and which of them survive."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from cae_lib.report.benchmarks import FAMILIES
from cae_lib.report.figure import NEUTRAL, WIDTH, Figure, finish, style
from cae_lib.report.markup import Text, number
from cae_lib.report.significance import LEVEL, Cell, Comparison, Significance

COLORS = "PuOr_r"
SURVIVES, UNCORRECTED = "survives Holm's correction", "p < 0.05 before it only"


def matrix(found: Significance) -> Figure | Text:
    """Rows are comparisons, columns families; the colour is the difference in points."""
    if not found.cells:
        return found.without()
    table = found.by_comparison()
    names = [name for name in FAMILIES if any(name in row for row in table.values())]
    largest = max(abs(100 * cell.test.estimate) for cell in found.cells)
    grid = [[100 * row[name].test.estimate if name in row else float("nan") for name in names]
            for row in table.values()]  # fmt: skip
    with style():
        size = (WIDTH, 1.5 + 0.42 * len(table))
        canvas, axis = plt.subplots(figsize=size, layout="constrained")
        image = axis.imshow(grid, cmap=COLORS, vmin=-largest, vmax=largest, aspect="auto")
        for y, row in enumerate(table.values()):
            for x, name in enumerate(names):
                if name in row:
                    _mark(axis, x, y, row[name], largest)
        axis.set_xticks(range(len(names)), names, rotation=25, ha="right")
        axis.set_yticks(range(len(table)), [_row_label(comparison) for comparison in table])
        axis.grid(visible=False)
        axis.spines[:].set_visible(False)
        _separate(axis, list(table))
        canvas.colorbar(image, ax=axis, label="difference, points", pad=0.02)
        canvas.legend(handles=_legend(), loc="outside upper center", ncols=2)
        return finish(canvas, _alt(table))


def _row_label(comparison: Comparison) -> str:
    return comparison.label.replace(" \N{MINUS SIGN} ", "\n\N{MINUS SIGN} ")


def _mark(axis: Axes, x: int, y: int, cell: Cell, largest: float) -> None:
    """The number, with a filled or a hollow mark where it is significant."""
    color = _ink(50 * (cell.test.estimate / largest) + 0.5 if largest else 0.5)
    significant = cell.test.p_value < LEVEL
    text = number(100 * cell.test.estimate, 1, sign=True)
    shift = -0.1 if significant else 0.0
    axis.text(x + shift, y, text, ha="center", va="center", color=color, fontsize=9.5)
    if significant:
        axis.plot(x + 0.33, y, **_marker(cell.holm < LEVEL, color))


def _ink(place: float) -> str:
    """Black or white, whichever can be read on the colour at a place of the scale, 0 to 1."""
    red, green, blue, _ = colormaps[COLORS](place)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def _marker(filled: bool, color: str) -> dict:
    return {"marker": "o", "markersize": 6, "linestyle": "", "markeredgecolor": color,
            "markerfacecolor": color if filled else "none"}  # fmt: skip


def _separate(axis: Axes, rows: list[Comparison]) -> None:
    """A line between kinds of comparison."""
    for y in range(1, len(rows)):
        if rows[y].kind != rows[y - 1].kind:
            axis.axhline(y - 0.5, color=NEUTRAL, linewidth=1.5)


def _legend() -> list[Line2D]:
    return [Line2D([], [], label=name, **_marker(filled, "black"))
            for filled, name in ((True, SURVIVES), (False, UNCORRECTED))]  # fmt: skip


def _alt(table: dict[Comparison, dict[str, Cell]]) -> str:
    parts = [
        f"{comparison.label}: " + ", ".join(_alt_cell(cell) for cell in row.values())
        for comparison, row in table.items()
    ]
    return (
        "Differences in percentage points by comparison and benchmark family, with those that "
        f"are significant at 5 % over seeds and items. {'; '.join(parts)}."
    )


def _alt_cell(cell: Cell) -> str:
    size = f"{cell.family} {number(100 * cell.test.estimate, 1, sign=True)}"
    if cell.test.p_value >= LEVEL:
        return size
    return f"{size} ({SURVIVES if cell.holm < LEVEL else UNCORRECTED})"
