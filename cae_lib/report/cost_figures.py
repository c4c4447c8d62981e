"""The figure of the page `cost`: how long a training step takes, in steps of open_clip."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from cae_lib.records import Record
from cae_lib.report.cost import STEP, Spread, candidates, labels, notice, ratio
from cae_lib.report.figure import METHOD_COLORS, NEUTRAL, WIDTH, Figure, finish, style
from cae_lib.report.markup import Text, number


def step_bars(record: Record | None) -> Figure | Text:
    """Seconds of a step in units of open_clip's; lines mark open_clip and CLIP-FT."""
    if record is None:
        return notice(STEP)
    steps = [name for name in candidates(record) if not name.startswith("images")]
    found = {name: ratio(record, name, "open_clip") for name in steps}
    rows = {name: spread for name, spread in found.items() if spread is not None}
    if not rows:
        return Text("The stored measurement has no step of open_clip to compare with.")
    with style():
        canvas, axis = plt.subplots(figsize=(WIDTH, 1.3 + 0.36 * len(rows)), layout="constrained")
        _bars(axis, record, rows)
        axis.axvline(1, color=NEUTRAL, linewidth=1.2, label="(a) open_clip")
        if "clip-ft" in rows:
            axis.axvline(rows["clip-ft"].median, color=NEUTRAL, linewidth=1.2, linestyle="--",
                         label="(b) CLIP-FT")  # fmt: skip
        axis.set_xlabel("time of a training step \N{DIVISION SIGN} (a)")
        axis.grid(axis="y", visible=False)
        canvas.legend(loc="outside upper center", ncols=2)
        return finish(canvas, _alt(record, rows))


def _bars(axis: Axes, record: Record, rows: dict[str, Spread]) -> None:
    """A bar a candidate, its range over rounds, and its number at the end."""
    names = list(rows)
    middle = [rows[name].median for name in names]
    error = [[s.median - s.low for s in rows.values()], [s.high - s.median for s in rows.values()]]
    bars = axis.barh(range(len(names)), middle, height=0.62, xerr=error, capsize=3,
                     color=[_color(name) for name in names], ecolor=NEUTRAL)  # fmt: skip
    for bar, name in zip(bars, names, strict=True):
        bar.set_hatch("//" if name.startswith(("plain-", "reference-")) else None)
        bar.set_edgecolor("white")
    for place, spread in enumerate(rows.values()):
        axis.annotate(number(spread.median, 2), (spread.high, place), xytext=(6, 0),
                      textcoords="offset points", va="center",
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})  # fmt: skip
    axis.set_yticks(range(len(names)), [labels(record)[name] for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlim(0, 1.12 * max(spread.high for spread in rows.values()))


def _color(name: str) -> object:
    return METHOD_COLORS.get(name.rpartition("-")[2], "#8a8a8a")


def _alt(record: Record, rows: dict[str, Spread]) -> str:
    parts = ", ".join(f"{labels(record)[name]} {spread.text()}" for name, spread in rows.items())
    return (
        "Bars: time of a training step in units of open_clip's, median over rounds [least, "
        f"largest]: {parts}. Lines mark open_clip and CLIP-FT."
    )
