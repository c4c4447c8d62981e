"""Reading a benchmark by its layout: nothing is dropped in silence, and n used stands beside n
expected."""

from __future__ import annotations

import importlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from cae_lib.data import rows
from cae_lib.data.benchmarks.base import Benchmark, Choice, ImageRef
from cae_lib.data.benchmarks.entry import Layout, file_of, place
from cae_lib.data.incomplete import settle, tell, trouble
from cae_lib.data.rows import RowError
from cae_lib.errors import ConfigError, DataError

LEFT_OUT = MALFORMED, MISSING, BROKEN = "malformed", "missing_images", "broken_images"
"""Names in `Benchmark.counts` of why rows are left out."""

EMPTY = 3
"""Bytes of a file that lists nothing."""


def load(
    name: str,
    layout: Layout,
    root: Path,
    expected: Mapping[str, int],
    *,
    subsets: Sequence[str] | None,
    official: bool,
    allow_missing: bool,
    **more: Any,
) -> list[Benchmark]:
    """Read a benchmark from its folder, with so many items `expected` of subsets; see
    `load_benchmark`. A module that the layout names as `loader` has a function `read(collector,
    **more)`, which adds rows to a `Collector` and returns further fields of the `Benchmark`."""
    files = layout.files(root)
    if subsets is None:
        usual = [subset for subset in files if not layout.chosen("only", subset)]
        wanted = {*expected, *(usual if official else ())}
        subsets = [
            subset
            for subset, paths in files.items()
            if subset in wanted
            and not allow_missing
            or subset in {*usual, *wanted}
            and _lists_something(paths[0])
        ]
    elif not {*subsets} <= files.keys():
        unknown = [subset for subset in subsets if subset not in files]
        raise ConfigError(f"{name} has no subset {unknown}. Known: {', '.join(files)}.")
    else:
        expected = {subset: n for subset, n in expected.items() if subset in subsets}
    absent = (
        f"{name}: no annotation file is there, such as {next(iter(files.values()))[0]}. Put "
        "the data set there in its official layout."
    )
    if not subsets and not (official and allow_missing):
        raise DataError(absent)
    read = importlib.import_module(f"{__package__}.{layout.loader}").read if layout.loader else None
    found, tables = [], {}
    for subset in subsets:
        collector = Collector(
            name,
            subset,
            layout,
            root,
            files[subset],
            expected.get(subset),
            allow_missing,
            official,
            tables,
        )
        try:
            found.append(collector.benchmark(read, more))
        except DataError as error:
            if not allow_missing:
                raise
            tell(f"Left out: {name}/{subset}. {error}")
    if official and not found:
        tell(f"Left out: {name}. {absent}")
    return found + _absent(name, root, expected, found) if official else found


def _lists_something(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > EMPTY


def _absent(
    name: str, root: Path, expected: Mapping[str, int], found: Sequence[Benchmark]
) -> list[Benchmark]:
    """Return an empty benchmark for each expected subset that was not read, and log it."""
    lacking = {
        subset: n for subset, n in expected.items() if subset not in {part.subset for part in found}
    }
    if found and lacking:
        tell(
            f"Left out: {name}, {', '.join(lacking)}. No annotation file that can be read in "
            f"{root}; {sum(lacking.values())} items are expected"
        )
    rule = "nothing of it is there"
    return [Benchmark(name, subset, (), n, rule=rule) for subset, n in lacking.items()]


@dataclass
class Collector:
    """Takes the rows of a subset and makes a benchmark of them.

    `n_expected` is None for as many items as there are rows. `items` are those gathered so far,
    `counts` facts counted on the way, for example identical captions, `n_rows` the rows that ask
    something, whether they can be used or not, `left_out` those that cannot, and why. The pictures
    of an `official` set, and of one that may be incomplete, are looked into: one that is broken
    shall not end a long measurement.
    """

    name: str
    subset: str
    layout: Layout
    root: Path
    paths: Sequence[Path]
    n_expected: int | None = None
    allow_missing: bool = False
    official: bool = False
    tables: dict[Path, list[Any]] = field(default_factory=dict)  # read once for all subsets
    items: list[Choice] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    n_rows: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)
    numbers: set[float] = field(default_factory=set)

    @property
    def source(self) -> Path:
        """The annotation file, or the folder of several."""
        return self.paths[0] if len(self.paths) == 1 else self.paths[0].parent

    def benchmark(
        self, read: Callable[..., Mapping[str, Any]] | None, more: Mapping[str, Any]
    ) -> Benchmark:
        """Read all rows, settle what is missing, and make the benchmark."""
        self.layout = own = self.layout.of(self.subset)
        if read is None:
            self.add_rows(self.entries(), self.choice)
        fields = {"task": own.task_of(self.subset), **own.fields}
        fields |= read(self, **more) if read else {}
        if own.open and not self.n_rows and self.n_expected is None:
            raise DataError(f"{self.source}: the file lists no rows. Leave it out of subsets.")
        n_expected = self.n_rows if self.n_expected is None else self.n_expected
        settle(
            self.name,
            self.source,
            len(self.items),
            self.n_rows,
            n_expected,
            self.left_out,
            allowed=self.allow_missing,
            pictures=f"Its pictures are {own.pictures_are}: put them there",
        )
        fields |= own.summary(self) if own.summary else {}
        return Benchmark(
            self.name,
            self.subset,
            tuple(self.items),
            n_expected,
            counts=dict(self.counts),
            **fields,
        )

    def entries(self) -> Iterator[tuple[str, str, Any]]:
        """Key, name for errors, and content of all rows."""
        if self.paths[0].suffix != ".parquet":
            return chain.from_iterable(
                rows.read_rows(path, self.layout.form, self.layout.needed) for path in self.paths
            )
        for path in self.paths:
            if path not in self.tables:
                self.tables[path] = rows.read_table(path, self.root / "images")
        found = chain.from_iterable(map(self.tables.__getitem__, self.paths))
        return ((str(number), f"row {number}", row) for number, row in enumerate(found))

    def add_rows(
        self, entries: Iterable[tuple[str, str, Any]], read: Callable[[str, Any], Choice | None]
    ) -> None:
        """Add `read(key, row)` for each entry; None stands for no question. Where a file breaks
        off, the rows before are used, if rows may be missing and their number is known."""
        try:
            for key, where, row in entries:
                try:
                    choice = read(key, row)
                except RowError as error:
                    self.n_rows += 1
                    self.leave_out(MALFORMED, where, str(error))
                    continue
                if choice is not None:
                    self.add(choice, where)
        except DataError as error:
            begun = self.n_rows or len(self.paths) > 1
            if not self.allow_missing or self.n_expected is None or not begun:
                raise
            tell(f"Left out: {self.name}/{self.subset}, rows that cannot be read. {error}")

    def add(self, choice: Choice, where: str) -> None:
        """Count a row and keep its item, or note why a picture of it cannot be used."""
        self.n_rows += 1
        for image in choice.images:
            why = self.trouble(image)
            if why:
                self.leave_out(BROKEN if image.path.is_file() else MISSING, where, why)
                return
        if len(choice.images) == 1 < len(choice.texts):
            self.counts["identical"] += choice.texts.count(choice.texts[choice.truth]) > 1
        self.items.append(choice)

    def leave_out(self, kind: str, where: str, why: str) -> None:
        """Count a row that cannot be used."""
        self.counts[kind] += 1
        self.left_out.append((where, why))

    def trouble(self, image: ImageRef) -> str:
        """Why a picture cannot be used, "" if it can."""
        return trouble(image.path, inside=self.official or self.allow_missing)

    def picture(self, value: str, crop: tuple[float, ...] | None = None) -> ImageRef:
        """The first of the layout's places of a picture that has it, or else the first."""
        value = value.strip().removesuffix(".0")  # some ids went through floats
        places = [
            Path(os.path.normpath(self.root / place(each, value))) for each in self.layout.pictures
        ]
        return ImageRef(next(filter(Path.is_file, places), places[0]), crop)

    def choice(self, key: str, row: Any) -> Choice | None:
        """The item of a row, as the layout says."""
        own, name = self.layout, self.layout.official
        if own.form == "lines" and isinstance(row, str):
            row = rows.parse_json(row)
        width = len({column.partition(".")[0] for column in own.needed})
        if own.form == "list" and isinstance(row, list) and len(row) != width:
            raise RowError(f"has {len(row)} fields, {width} were expected")
        if own.id:
            number = rows.number(row, own.id)
            if number in self.numbers:
                raise RowError(f"its {own.id} {number:g} is that of another row")
            self.numbers.add(number)
            if own.only and number not in own.only:
                return None
        if own.least and rows.number(row, own.least[0]) < own.least[1]:
            self.counts["not_valid"] += 1
            return None
        sides = [name[side] for side in ("x", "y", "width", "height") if side in name]
        crop = rows.box(row, *sides) if sides else None
        images = tuple(
            self.picture(rows.text(row, column), crop) for column in own.columns_of_pictures()
        )
        texts = tuple(rows.text(row, name[text]) for text in own.texts.split())
        truth = int(own.texts.startswith("false"))
        if "truth" in name:
            truth = rows.number(row, name["truth"])
            if truth not in range(len(texts)):
                raise RowError(
                    f"field '{name['truth']}' is {truth:g}, 0 to {len(texts) - 1} was expected"
                )
        return Choice(images, texts, int(truth), self._group(row), f"{number:g}" if own.id else key)

    def _group(self, row: Any) -> str:
        if callable(self.layout.group):
            return self.layout.group(row)
        return re.sub(
            r"\{(.*?)\}",
            lambda found: file_of(self.subset) if found[1] == "file" else rows.text(row, found[1]),
            self.layout.group,
        )
