"""The one item type that every benchmark is read into, and the benchmark that holds such items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Headline = Literal["micro", "macro"]
Task = Literal["choice", "text", "image", "group", "itt", "tot", "ordered"]

CHANCE_OF_TASKS: Mapping[str, float] = {
    "text": 1 / 4,
    "image": 1 / 4,
    "group": 1 / 6,
    "itt": 1 / 3,
    "tot": 1 / 3,
    "ordered": 1 / 6,
}
ORDERS: Mapping[str, tuple[tuple[int, int], ...]] = {
    "itt": ((0, 2), (1, 2)),
    "ordered": ((0, 1), (1, 2)),
}
"""Tasks of one picture and three texts: pairs of texts of which the first has to be closer."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """A picture on disk and the part of it that is shown to the model. `crop` is `(left, top,
    right, bottom)` in pixels, cut out before any preprocessing, or None for the whole picture.
    Numbers that are not whole are rounded by PIL, as the official loaders let it."""

    path: Path
    crop: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """One question: which text fits the picture, or which picture fits the text.

    Three shapes occur: 1 picture and k texts (`truth` is the index of the true text), k pictures
    and 1 text (`truth` is the index of the true picture), 2 pictures and 2 texts (picture i goes
    with text i; `truth` is not used). The order is that of the reference loader. `group` is the
    category that the item is averaged in, `id` its row, key or number in its annotation file.
    """

    images: tuple[ImageRef, ...]
    texts: tuple[str, ...]
    truth: int
    group: str
    id: str


@dataclass(frozen=True)
class Benchmark:
    """The items of one score, with what is needed to average and to judge them.

    Attributes:
        name, subset: Family and part of it, for example "sugarcrepe" and "swap_obj".
        items: The items that can be scored, in file order.
        n_expected: Items that there should be: the published count, that of the small world's
            manifest, or else the number of rows that the annotation file lists.
        headline: "micro" (mean over items) or "macro" (mean over groups): the average that the
            paper or the official script prints.
        rule: The averaging rule in words, for the page that prints the number.
        macro_groups: Groups that the macro average runs over; None means all.
        task: How an item is scored: "choice" for one true option, or Winoground's "text", "image"
            and "group" scores for 2 x 2 items; for a picture and three texts, see `ORDERS`; or
            "tot", the first two of three texts closest to each other.
        counts: What a reader has to know beside n, for example `{"identical": 66}` for rows whose
            negative equals the caption.
        sets: Positions of items that have to be right together, by the name of the accuracy; for
            example `{"pair_accuracy": ((0, 1), (2, 3))}`.
    """

    name: str
    subset: str
    items: tuple[Choice, ...]
    n_expected: int
    headline: Headline = "micro"
    rule: str = "mean over items"
    macro_groups: tuple[str, ...] | None = None
    task: Task = "choice"
    counts: Mapping[str, int] = field(default_factory=dict)
    sets: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Name of the score in records, `name/subset`."""
        return f"{self.name}/{self.subset}"

    @property
    def n_used(self) -> int:
        """Number of items that are scored."""
        return len(self.items)
