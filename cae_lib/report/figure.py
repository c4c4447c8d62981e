"""Figures as pages show them: one style, and an alternative text that comes from the data."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure as Canvas

from cae_lib.errors import DataError

WIDTH = 7.2
"""Inches, the width of the book's text."""

PIXELS = 720
RESOLUTION = 180
MOST_BYTES = 150_000

_PALETTE = sns.color_palette("colorblind")
ROLE_COLORS = {
    "object": _PALETTE[0],
    "attribute": _PALETTE[1],
    "relation": _PALETTE[2],
    "composition": _PALETTE[4],
}
ROLE_MARKERS = {"object": "o", "attribute": "s", "relation": "^", "composition": "D"}
METHOD_COLORS = {
    "attention": _PALETTE[0],
    "gradcam": _PALETTE[3],
    "perturbation": _PALETTE[2],
    "gradient": _PALETTE[4],
}
METHOD_MARKERS = {"attention": "o", "gradcam": "s", "perturbation": "^", "gradient": "D"}
NEUTRAL = "#444444"


@dataclass(frozen=True)
class Figure:
    """A picture with its alternative text; a cell that returns it shows both in any viewer.

    Attributes:
        png: The picture.
        alt: What it shows, in words and numbers.
    """

    png: bytes
    alt: str

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.png).decode("ascii")
        alt = html.escape(self.alt, quote=True)
        return f'<img src="data:image/png;base64,{data}" alt="{alt}" width="{PIXELS}">'

    def __repr__(self) -> str:
        return self.alt


@contextmanager
def style() -> Iterator[None]:
    """White background, thin grid, letters of at least 9 points."""
    sizes = {
        "font.size": 10,
        "axes.titlesize": 10,
        "axes.labelsize": 10,
        "xtick.labelsize": 9.5,
        "ytick.labelsize": 9.5,
        "legend.fontsize": 9.5,
    }
    looks = {
        "figure.facecolor": "white",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": "#dddddd",
        "axes.axisbelow": True,
        "legend.frameon": False,
    }
    with sns.axes_style("whitegrid"), plt.rc_context(sizes | looks):
        yield


def finish(canvas: Canvas, alt: str, most: int = MOST_BYTES) -> Figure:
    """Close a figure and keep it as a PNG file of at most `most` bytes.

    Raises:
        DataError: The file is too large for a page.
    """
    stream = io.BytesIO()
    canvas.savefig(stream, format="png", dpi=RESOLUTION, metadata={"Software": None})
    plt.close(canvas)
    png = stream.getvalue()
    if len(png) > most:
        png = _fewer_colors(png)
    if len(png) > most:
        raise DataError(f"a figure of {len(png)} bytes is too large: at most {most}")
    return Figure(png, " ".join(alt.split()))


def _fewer_colors(png: bytes) -> bytes:
    """The picture with the 256 colours that come nearest to its own."""
    from PIL import Image

    stream = io.BytesIO()
    image = Image.open(io.BytesIO(png)).convert("RGB")
    few = image.quantize(256, kmeans=3, dither=Image.Dither.NONE)
    few.save(stream, format="PNG", optimize=True)
    return stream.getvalue()
