"""What all benchmarks share: items, averages, and the description of a family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, get_args

Task = Literal["choice", "text", "image", "group", "itt", "tot", "ordered"]
TASKS: tuple[Task, ...] = get_args(Task)

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
"""Tasks of one image and three texts: pairs of texts of which the first has to be closer."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image file and the part of it that the model sees.

    Attributes:
        path: The file.
        crop: `(left, top, right, bottom)` in pixels, cut out before any preprocessing; None for the
            whole image. PIL rounds numbers that are not whole, as in the official loaders.
    """

    path: Path
    crop: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One question: which text fits the image, or which image fits the text.

    Three shapes occur: 1 image and k texts (`truth` is the index of the true text), k images and
    1 text (`truth` is the index of the true image), 2 images and 2 texts (image i goes with text i;
    `truth` is not used). The order is that of the reference loader.

    Attributes:
        key: Names the item in its subset: its key, id or row number in the annotation file.
        images, texts: The options.
        truth: Index of the true option.
        group: The category that the item is averaged in.
    """

    key: str
    images: tuple[ImageRef, ...]
    texts: tuple[str, ...]
    truth: int = 0
    group: str = ""


@dataclass(frozen=True, slots=True)
class ExcludedRow:
    """A row of an annotation file that the benchmark itself excludes from its items.

    Attributes:
        reason: The key under which `Benchmark.counts` counts such rows.
    """

    reason: str


@dataclass(frozen=True)
class Average:
    """How the items of a subset are averaged: the mean over items, or over the means of groups.

    Attributes:
        rule: The rule in words; `{n}` and `{n_without}` are the numbers of groups that count and
            that do not.
        over_groups: Average groups alike instead of items.
        without: Groups that do not count.
        min_items: Groups of fewer items do not count.
    """

    rule: str = "mean over items"
    over_groups: bool = False
    without: frozenset[str] = frozenset()
    min_items: int = 1

    def counted_group_sizes(self, item_groups: Iterable[str]) -> dict[str, int]:
        """Return the number of items of each group that counts, given the groups of all items."""
        sizes = Counter(item_groups)
        return {
            group: n
            for group, n in sizes.items()
            if n >= self.min_items and group not in self.without
        }


NO_GROUP = Average("mean over items: no group qualifies for macro")


@dataclass(frozen=True)
class Benchmark:
    """The items of one score.

    Attributes:
        name, subset: Family and part of it, for example "sugarcrepe" and "swap_obj".
        items: The items that can be scored, in file order.
        n_expected: Number of items that the subset should have: the published number, the number
            in a manifest, or else the number of questions in the annotation file.
        average: How items are averaged in the number that the paper or the official script prints.
        task: How an item is scored: "choice" for one true option; Winoground's "text", "image" and
            "group" scores for 2 x 2 items; for one image and three texts see `ORDERS`; "tot" if the
            first two of three texts have to be closest to each other.
        counts: Further facts, for example `{"identical": 66}` for items whose negative caption
            equals the caption.
        numbers: The number of each item among the questions of the file, which does not depend on
            items that are left out; empty for 0, 1, 2, ...
    """

    name: str
    subset: str
    items: tuple[Item, ...]
    n_expected: int
    average: Average = Average()
    task: Task = "choice"
    counts: Mapping[str, int] = field(default_factory=dict)
    numbers: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        """Name of the score in records, `name/subset`."""
        return f"{self.name}/{self.subset}"

    @property
    def n_used(self) -> int:
        """Number of items that are scored."""
        return len(self.items)

    @property
    def headline(self) -> Literal["micro", "macro"]:
        """Name of the headline's average: "micro" over items, or "macro" over groups."""
        return "macro" if self.average.over_groups else "micro"

    @property
    def rule(self) -> str:
        """The averaging rule in words."""
        groups = {item.group for item in self.items}
        n = len(self.average.counted_group_sizes(item.group for item in self.items))
        return self.average.rule.format(n=n, n_without=len(groups) - n)

    def numbered_items(self) -> zip[tuple[int, Item]]:
        """Return the items with their numbers."""
        return zip(self.numbers or range(self.n_used), self.items, strict=True)


@dataclass(frozen=True)
class Family:
    """A published benchmark: its files, its numbers of items, and how items are averaged.

    Paths are relative to the folder of all datasets.

    Attributes:
        name: Its name in tables.
        folder: The folder of the benchmark; a family that is not in the paper is read only if its
            folder exists.
        read: Yields the items of one subset, given the folder of all datasets and the name of the
            subset, and `ExcludedRow` for rows that the benchmark excludes.
        published: Number of items of each subset; None where no verified number is known.
        files: Annotation files, with `*` for several.
        images: Where to get the images, for users who lack them.
        in_paper: Whether the paper's tables include the benchmark.
        task: How items are scored, unless a part of the subset's name is a `Task`.
        average: How the items of a subset are averaged.
        averages: How the items of exceptional subsets are averaged, by the name of the subset.
        rescored: Patterns of the subsets that score the items of another subset again. Counts of
            items leave these subsets out.
        sources: Entries of `sources.yml` that the family reads; by default the entry of its name.
        summarize: Returns further `counts` of a subset's items.
    """

    name: str
    folder: str
    read: Callable[..., Iterable[Item | ExcludedRow]]
    published: Mapping[str, int | None]
    files: tuple[str, ...]
    images: str
    in_paper: bool = False
    task: Task = "choice"
    average: Average = Average()
    averages: Mapping[str, Average] = field(default_factory=dict)
    rescored: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    summarize: Callable[[str, Sequence[Item]], Mapping[str, int]] | None = None

    @property
    def source_names(self) -> tuple[str, ...]:
        """Entries of `sources.yml` that the family reads."""
        return self.sources or (self.name.replace("_", "-"),)

    def task_of(self, subset: str) -> Task:
        """Return how the items of a subset are scored."""
        for task in TASKS:
            if f"/{task}/" in f"/{subset}/":
                return task
        return self.task

    def average_of(self, subset: str) -> Average:
        """Return how the items of a subset are averaged."""
        return self.averages.get(subset, self.average)

    def is_rescored(self, subset: str) -> bool:
        """Return whether a subset scores the items of another one again."""
        return any(fnmatchcase(subset, pattern) for pattern in self.rescored)


def file_part(subset: str) -> str:
    """Return a subset's name without the part that is a `Task`."""
    return "/".join(word for word in subset.split("/") if word not in TASKS)


def find_image(*paths: Path, crop: tuple[float, float, float, float] | None = None) -> ImageRef:
    """Return the first of several paths that exists, or else the first."""
    return ImageRef(next((path for path in paths if path.is_file()), paths[0]), crop)
