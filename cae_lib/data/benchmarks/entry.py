"""What there is to say of how a benchmark is published: an entry of `table`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from cae_lib.data.benchmarks.base import Task
from cae_lib.errors import DataError

Varied = str | Mapping[str, str]
"""The same for all subsets, or by patterns of their names, of which the first that fits counts."""

TASKS = frozenset(get_args(Task))
SUBSET_FIELDS = ("file", "pictures", "texts", "group", "only")


@dataclass(frozen=True)
class Layout:
    """How a benchmark is published.

    Attributes:
        folder: Its folder below that of all data sets.
        sizes: Published numbers of items by subset; None where no verified one is known. A part of
            a subset's name that is a `Task` says how its items are scored, the rest is `{file}`.
        pictures_are: Where its pictures come from, for who lacks them.
        file: Place of an annotation file below `folder`. Of names in braces but `{file}` the reader
            takes all files that fit; the writer takes them from the columns of an item.
        form: What a file holds: "list" or "keyed" (a JSON object) of rows, "lines" of JSON, "csv".
            A Parquet table is read in place of any.
        columns: Official names in order, or paths in a row such as `1.POS.0`, as `official=name`
            where we know the column by another name. Those are `picture`, `caption` (true of the
            picture), `false`, `x y width height` of a box, `truth` (place of the true text),
            `picture_1` and `caption_1` (a second picture and its caption, or a second true text),
            `id` and `number` (of a written item, or of its picture). With "?" a column may lack.
        texts: Names of the columns of an item's texts, in the order of the reference loader.
        image: Name of the column of the picture, `picture` or `id`.
        pictures: Places below `folder` that a picture is looked for, the first one first; `{}` is
            what the column says, `{name}` its last part.
        group: What items are averaged by: columns in braces, or a function of a row.
        id: Column of numbers that name the items and stand once; else the rows are numbered.
        only: Numbers of the items that a subset has, empty for all. One that has not all is read
            where it is asked for or expected.
        least: A column and the number that it has to reach for an item to be valid.
        task: How items are scored, where no part of a subset's name says it.
        fields: Further fields of `Benchmark` that are the same for all subsets.
        summary: Of what was read, further counts and fields of `Benchmark`.
        open: Further files in the place of `file` are subsets, too.
        sources: Names in `data/sources.yml` of what it reads; by default its own, with hyphens.
        written: Columns that are the same for all items that are written.
        listed: Numbers of rows of files that list more than items.
        paper: Whether the paper's tables have it; others are read where their folder is there.
        again: Patterns of those subsets that score the items of others once more, so that they are
            not counted twice; `evaluation.amounts.subsets` refuses one that is not named.
        loader: Module of this package that reads its rows, see `read.load`.
    """

    folder: str
    sizes: Mapping[str, int | None]
    pictures_are: str
    file: Varied
    form: Literal["list", "keyed", "lines", "csv"] = "list"
    columns: str = ""
    texts: Varied = "caption false"
    image: str = "picture"
    pictures: tuple[str, ...] | Mapping[str, tuple[str, ...]] = ("images/{}",)
    group: Varied | Callable[[object], str] = "{file}"
    id: str = ""
    only: Iterable[int] | Mapping[str, Iterable[int]] = ()
    least: tuple[str, int] | None = None
    task: Task = "choice"
    fields: Mapping[str, Any] = field(default_factory=dict)
    summary: Callable[[Any], Mapping[str, Any]] | None = None
    open: bool = False
    sources: tuple[str, ...] = ()
    written: Mapping[str, Any] = field(default_factory=dict)
    listed: Mapping[str, int] = field(default_factory=dict)
    paper: bool = False
    again: tuple[str, ...] = ()
    loader: str = ""

    @cached_property
    def official(self) -> dict[str, str]:
        """The official name of each column, by ours."""
        pairs = (column.rstrip("?").partition("=") for column in self.columns.split())
        return {name or official: official for official, _, name in pairs}

    @cached_property
    def needed(self) -> tuple[str, ...]:
        """Official names of the columns that no row lacks."""
        columns = (column for column in self.columns.split() if not column.endswith("?"))
        return tuple(column.partition("=")[0] for column in columns)

    @property
    def published(self) -> dict[str, int]:
        """The numbers of items by subset, as far as they are published and verified."""
        return {name: n for name, n in self.sizes.items() if n is not None}

    def of(self, subset: str) -> Layout:
        """The layout of one subset, of which nothing is given by patterns any more."""
        return replace(self, **{name: self.chosen(name, subset) for name in SUBSET_FIELDS})

    def chosen(self, name: str, subset: str) -> Any:
        """What a field is for one subset; DataError if no pattern fits its name."""
        given = getattr(self, name)
        if not isinstance(given, Mapping):
            return given
        for pattern, value in given.items():
            if fnmatchcase(subset, pattern):
                return value
        raise DataError(
            f"{self.folder}/{subset}: cannot tell its {name}. Name the file, or a folder above it, "
            f"so that it is like one of {', '.join(given)}, as the official tree does."
        )

    def task_of(self, subset: str) -> Task:
        """How items of a subset are scored."""
        return next((word for word in subset.split("/") if word in TASKS), self.task)

    def pattern(self, subset: str) -> str:
        """Return the annotation file of a subset, with "*" for what the writer takes from items."""
        names = defaultdict(lambda: "*", file=file_of(subset))
        return self.chosen("file", subset).format_map(names)

    def paths(self, root: Path, subset: str) -> list[Path]:
        """The annotation files of a subset, or where they ought to be."""
        pattern = self.pattern(subset)
        return "*" in pattern and sorted(root.glob(pattern)) or [root / pattern]

    def columns_of_pictures(self) -> list[str]:
        """Official names of the columns that name the one or two pictures of an item."""
        names = (self.image, f"{self.image}_1")
        return [self.official[name] for name in names if name in self.official]

    def files(self, root: Path) -> dict[str, list[Path]]:
        """The annotation files of all subsets; of an `open` layout also of those that are there."""
        names = dict.fromkeys(self.sizes)
        if self.open:
            start, _, end = self.file.partition("{file}")
            for path in sorted(root.glob(f"{start}**/*{end.format_map(defaultdict(lambda: '*'))}")):
                stem = path.relative_to(root / start).with_suffix("").as_posix()
                names |= dict.fromkeys(self.subsets(stem))
        return {name: self.paths(root, name) for name in names}

    def subsets(self, file: str) -> list[str]:
        """The subsets that are read of a file, by what stands for `{file}`."""
        ends = dict.fromkeys(name.removeprefix(file_of(name)) for name in self.sizes)
        own = [name for name in self.sizes if file_of(name) == file]
        return own or [file + end for end in ends]


def place(pattern: str, value: object) -> str:
    """A place of a picture, of what its column says."""
    return pattern.format(value, name=str(value).replace("\\", "/").rpartition("/")[2])


def file_of(subset: str) -> str:
    """What stands for `{file}` in a layout: a subset's name without its task."""
    return "/".join(word for word in subset.split("/") if word not in TASKS)
