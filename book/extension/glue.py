"""Values and figures that cells of the pages hand to the text of the book."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cae_lab.mime_types import FIGURE_MIME_TYPE
from cae_lab.plots import CellOutput


def html_of(bundle: Mapping[str, Any]) -> str:
    """Return the HTML of a stored output, whether of a figure or not; "" if it has none."""
    return "".join(bundle.get(FIGURE_MIME_TYPE) or bundle.get("text/html") or "")


def glue(name: str, value: object, display: bool = False) -> None:
    """Store a number, word or `CellOutput` of a cell under a name; `display` shows it there, too.

    The text refers to numbers and words by `{glue:text}`, and to other values by `{glue}`. Other
    pages use the name `experiments/PAGE.ipynb::name`.
    """
    # IPython comes with the kernel, not with the library.
    from IPython.display import display as show_raw

    # The repr of a word of NumPy's is "np.str_('word')".
    if isinstance(value, np.generic):
        value = value.item()
    # A word is quoted, or the book would take "2,000" for a pair of numbers.
    word = isinstance(value, str)
    bundle = {"text/plain": repr(value) if word else str(value)}
    if isinstance(value, CellOutput):
        bundle["text/html"] = value.html
    if isinstance(value, CellOutput) and display:
        bundle = value._repr_mimebundle_()
    # The names of MyST-NB's own `glue`; the prefix keeps viewers from showing the output.
    prefix = "" if display else "application/papermill.record/"
    show_raw(
        {prefix + kind: content for kind, content in bundle.items()},
        raw=True,
        metadata={"scrapbook": {"name": name, "mime_prefix": prefix}},
    )
