"""Data classes that all benchmarks share.

A `Family` describes a published benchmark, such as SugarCrepe, and how to read it. Each of its
subsets, such as "swap_obj", is loaded as a `Benchmark` of `Item`s, the questions to the model.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, get_args

Task = Literal["choice", "text", "image", "group", "itt", "tot", "ordered"]
"""How the similarities of an item decide whether it is right: see `Benchmark.task`."""

ITEM_KEY = ("family", "subset", "item")
"""Columns that together identify an item of a benchmark."""

TASKS: tuple[Task, ...] = get_args(Task)
"""All values of `Task`."""

# "group": of the 24 orders of four scores, 4 have both true pairs before both wrong ones. "itt",
# "tot": one of three scores is the last, or the first. "ordered": one of 6 orders.
CHANCE_ACCURACY_OF_TASK: Mapping[str, float] = {
    "text": 1 / 4,
    "image": 1 / 4,
    "group": 1 / 6,
    "itt": 1 / 3,
    "tot": 1 / 3,
    "ordered": 1 / 6,
}
"""Probability that random scores get an item right; for "choice" see `choice.chance`."""

CLOSER_TEXT_PAIRS: Mapping[str, tuple[tuple[int, int], ...]] = {
    "itt": ((0, 2), (1, 2)),
    "ordered": ((0, 1), (1, 2)),
}
"""Pairs `(closer, other)` of texts, for tasks that compare an image with three texts.

An item is right if the text `closer` is closer to the image than `other`, in each pair.
"""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image file and the part of it that the model sees.

    Attributes:
        path: The file.
        crop: Box `(left, top, right, bottom)` in pixels that is cut out before any preprocessing;
            None for the whole image. PIL rounds fractions of pixels, as in the official loaders.
    """

    path: Path
    crop: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One question to the model: which text fits the image, or which image fits the text.

    An item has 1 image and k texts, or k images and 1 text, or 2 images and 2 texts, where image i
    goes with text i. Images and texts have the order of the benchmark's official loader.

    Attributes:
        key: Identifies the item in its subset, for example by its id or row number in the file.
        truth: Index of the true text or image among k; 0 if several texts are true, and without
            meaning for 2 images and 2 texts.
        group: Category within the subset; a macro average is taken over these categories.
    """

    key: str
    images: tuple[ImageRef, ...]
    texts: tuple[str, ...]
    truth: int = 0
    group: str = ""


@dataclass(frozen=True, slots=True)
class ExcludedRow:
    """A row of an annotation file that the benchmark itself excludes from its items.

    Rows are counted in `Benchmark.property_counts` by their `reason`, for example "not_valid".
    """

    reason: str


@dataclass(frozen=True)
class Average:
    """How the items of a subset are averaged: the mean over items, or over the means of groups.

    Attributes:
        description: Description of the average. The placeholders `{n}` and `{n_without}` stand for
            the number of groups that count and the number of groups that do not.
        over_groups: Whether to average the means of the groups, with equal weights (macro average),
            instead of the items (micro average). The following attributes apply only if it is True.
        excluded_groups: Names of groups that do not count.
        min_items: Number of items that a group needs in order to count.
    """

    description: str = "mean over items"
    over_groups: bool = False
    excluded_groups: frozenset[str] = frozenset()
    min_items: int = 1

    def counted_group_sizes(self, item_groups: Iterable[str]) -> dict[str, int]:
        """Return the number of items of each group that counts, from the group of each item."""
        sizes = Counter(item_groups)
        return {
            group: n
            for group, n in sizes.items()
            if n >= self.min_items and group not in self.excluded_groups
        }

    def of_groups(self, item_groups: Iterable[str]) -> Average:
        """Return this average, or `FALLBACK_AVERAGE` if it is over groups, none of which counts."""
        if self.over_groups and not self.counted_group_sizes(item_groups):
            return FALLBACK_AVERAGE
        return self


FALLBACK_AVERAGE = Average("mean over items: no group qualifies for macro")
"""Replaces an average over groups where no group of the loaded items counts."""


@dataclass(frozen=True)
class Benchmark:
    """A subset of a benchmark: its items, and how they are scored and averaged.

    Attributes:
        name: Name of the family, for example "sugarcrepe".
        subset: Name of the subset, for example "swap_obj".
        items: The items that can be scored, in the order of the annotation file.
        n_expected: Number of items of the complete subset: the published number, the number in a
            manifest, or else the number of items in the annotation file.
        average: Average of the headline score. Except for ties and for SVO-Probes, that is the
            score that the benchmark's paper or official script reports.
        task: When an item is right. Every comparison is strict, so a tie is wrong.
            "choice": The true option is closer than every other option.
            "text": 2 images and 2 texts; each image is closer to its own text.
            "image": 2 images and 2 texts; each text is closer to its own image.
            "group": Both "text" and "image" are right (the three scores of Winoground).
            "itt", "ordered": 1 image and 3 texts, compared as `CLOSER_TEXT_PAIRS` lists.
            "tot": Of 3 texts, the first two are closer to each other than each is to the third.
        property_counts: Numbers of items or rows with a property, for example `{"identical": 66}`
            for items with another text that equals the true one.
        item_numbers: Position of each item in the subset, from 0, before items are left out because
            of their images. Empty stands for 0, 1, 2, ...
    """

    name: str
    subset: str
    items: tuple[Item, ...]
    n_expected: int
    average: Average = Average()
    task: Task = "choice"
    property_counts: Mapping[str, int] = field(default_factory=dict)
    item_numbers: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        """Name of the family and the subset, `name/subset`."""
        return f"{self.name}/{self.subset}"

    @property
    def n_used(self) -> int:
        """Number of items that can be scored."""
        return len(self.items)

    @property
    def average_kind(self) -> Literal["micro", "macro"]:
        """Kind of average of the headline score: "micro" over items, "macro" over groups."""
        return "macro" if self.average.over_groups else "micro"

    @property
    def average_description(self) -> str:
        """Description of the average of the headline score, with the numbers of groups."""
        groups = {item.group for item in self.items}
        n = len(self.average.counted_group_sizes(item.group for item in self.items))
        return self.average.description.format(n=n, n_without=len(groups) - n)

    def numbered_items(self) -> zip[tuple[int, Item]]:
        """Return an iterator over pairs `(number, item)`; see `item_numbers`."""
        return zip(self.item_numbers or range(self.n_used), self.items, strict=True)


@dataclass(frozen=True)
class Family:
    """A published benchmark: how to read its files, and how its items are scored and averaged.

    Paths are relative to the folder of all datasets.

    Attributes:
        name: Name of the benchmark in tables.
        folder: Folder of the benchmark; "" if it has no folder of its own. With real data, a family
            that is not `in_paper` is used only if this folder exists.
        read_items: Function of the folder of all datasets and the name of a subset. It yields the
            items of the subset, and an `ExcludedRow` for each row that the benchmark excludes. It
            raises a `MissingFileError` if the annotation file is missing, and another DataError if
            the file or a row is malformed. It may have further optional arguments.
        published_counts: Published number of items of each subset; None where no verified number is
            known.
        files: Glob patterns of the annotation files.
        images_advice: Where to get the images; completes the sentence "Its images are ...".
        in_paper: Whether the family belongs to the benchmarks of the CAE paper.
        task: How the items of a subset are scored, unless a part of the subset's name is a `Task`.
        average: How the items of a subset are averaged.
        averages: Exceptions to `average`, by the name of the subset.
        rescored: Patterns, as in `fnmatch`, of the names of subsets that only score items of
            another subset again. Totals of items leave these subsets out.
        sources: Entries of `sources.yml` that the family reads; empty if it reads only the entry
            that has the family's name, with hyphens for underscores. See `source_names`.
        extra_counts: Function of a subset's name and those of its items that can be scored. It
            returns further entries of `Benchmark.property_counts`. None if there are no further
            entries.
    """

    name: str
    folder: str
    read_items: Callable[..., Iterable[Item | ExcludedRow]]
    published_counts: Mapping[str, int | None]
    files: tuple[str, ...]
    images_advice: str
    in_paper: bool = False
    task: Task = "choice"
    average: Average = Average()
    averages: Mapping[str, Average] = field(default_factory=dict)
    rescored: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    extra_counts: Callable[[str, Sequence[Item]], Mapping[str, int]] | None = None

    @property
    def source_names(self) -> tuple[str, ...]:
        """Names of the entries of `sources.yml` that the family reads."""
        return self.sources or (self.name.replace("_", "-"),)

    def task_of(self, subset: str) -> Task:
        """Return the task by which the items of a subset are scored.

        This is the part of the subset's name that is a `Task`, as in "itt/swap_obj", or else the
        `task` of the family.
        """
        for task in TASKS:
            # Only a whole part of the name counts: not the "image" in "controlled_images".
            if f"/{task}/" in f"/{subset}/":
                return task
        return self.task

    def average_of(self, subset: str) -> Average:
        """Return how the items of a subset are averaged."""
        return self.averages.get(subset, self.average)

    def is_rescored(self, subset: str) -> bool:
        """Return whether a subset only scores items of another one again; see `rescored`."""
        return any(fnmatchcase(subset, pattern) for pattern in self.rescored)


def strip_task(subset: str) -> str:
    """Return a subset's name without the part that is a `Task`: "swap_obj" for "itt/swap_obj"."""
    return "/".join(word for word in subset.split("/") if word not in TASKS)


def find_image(*paths: Path, crop: tuple[float, float, float, float] | None = None) -> ImageRef:
    """Return a reference to the first path that is a file, or to the first path if none is."""
    return ImageRef(next((path for path in paths if os.path.isfile(path)), paths[0]), crop)
