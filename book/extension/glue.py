"""Values and figures that cells of the pages hand to the text of the book."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cae_lab.plots import FIGURE_MIME_TYPE, CellOutput


def html_of(bundle: Mapping[str, Any]) -> str:
    """Return the HTML of a stored output, whether of a figure or not; "" if it has none."""
    return "".join(bundle.get(FIGURE_MIME_TYPE) or bundle.get("text/html") or "")


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
    if isinstance(value, CellOutput):
        bundle["text/html"] = value.html
    if isinstance(value, CellOutput) and display:
        bundle = value._repr_mimebundle_()
    prefix = "" if display else "application/papermill.record/"
    show_raw(
        {prefix + kind: content for kind, content in bundle.items()},
        raw=True,
        metadata={"scrapbook": {"name": name, "mime_prefix": prefix}},
    )
