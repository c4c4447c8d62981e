"""Gathering items from rows: nothing is dropped in silence, and n used stands beside n expected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack

from cae_lib.data.benchmarks.base import Benchmark, Choice, ImageRef
from cae_lib.data.picture_files import fault, tell, tell_left_out, trouble
from cae_lib.data.rows import RowError
from cae_lib.errors import ConfigError, DataError

ALLOW = "allow the set to be incomplete (`--allow-missing`)"
LEFT_OUT = MALFORMED, MISSING, BROKEN = "malformed", "missing_images", "broken_images"
"""Names in `Benchmark.counts` of why rows are left out."""


class Options(TypedDict, total=False):
    """What every loader is told beside the folder of its data.

    Every loader raises a ConfigError if a subset is unknown, and a DataError if a file or a picture
    is missing, a row is malformed, or the number of rows is not the expected one.

    Attributes:
        subsets: Parts of the family to read; None for all those that are there or expected.
        expected: Number of items by subset; of one that is not named, the rows of its file.
        official: Expect the published numbers of items, where nothing else is `expected`.
        allow_missing: Read the annotation files that are there; leave out, tell and count files
            that cannot be read, malformed rows, and rows without their picture, or with one that
            cannot be decoded.
    """

    subsets: Sequence[str] | None
    expected: Mapping[str, int] | None
    official: bool
    allow_missing: bool


class Family(NamedTuple):
    """A benchmark: its name, its published numbers of items, and where its pictures come from."""

    name: str
    published: Mapping[str, int]
    images_from: str

    def parts(self, files: Mapping[str, Path], required: Collection[str] | None = None, *,
              subsets: Sequence[str] | None = None, expected: Mapping[str, int] | None = None,
              official: bool = False, allow_missing: bool = False) -> list[Collector]:
        """A collector for each subset to read, as `Options` asks. `files` are the annotation files
        by subset that the family may have; `required` are subsets that have to be there beside
        those expected, None for all."""
        if expected is None:
            expected = self.published if official else {}
        unknown = [name for name in subsets or () if name not in files]
        if unknown:
            raise ConfigError(f"{self.name} has no subset {unknown}. Known: {', '.join(files)}.")
        wanted = {*(files if required is None else required), *expected}
        chosen = subsets if subsets is not None else [
            name for name, path in files.items()
            if path.is_file() or (name in wanted and not allow_missing)
        ]
        if not chosen:
            raise DataError(
                f"{self.name}: no annotation file is there, such as {next(iter(files.values()))}. "
                "Put the data set there in its official layout."
            )
        return [Collector(self, n, files[n], expected.get(n), allow_missing, official)
                for n in chosen]

    def read(self, files: Mapping[str, Path], make: Callable[[Collector], Benchmark],
             required: Collection[str] | None = None,
             **options: Unpack[Options]) -> list[Benchmark]:
        """The benchmark of each of `parts`; one whose file cannot be read is an error, or left out
        and told."""
        found = []
        for part in self.parts(files, required, **options):
            try:
                found.append(make(part))
            except DataError as error:
                if not part.allow_missing:
                    raise
                tell(f"Left out: {self.name}/{part.subset}. {error}")
        return found


@dataclass
class Collector:
    """Takes the rows of one annotation file, `source`, and makes a benchmark of them. `n_expected`
    is None for as many items as there are rows; `items` are those gathered so far; `counts` facts
    counted on the way, for example identical captions; `n_rows` the rows that ask something,
    whether they can be used or not; `left_out` those that cannot, and why. The pictures of an
    `official` set, and of one that may be incomplete, are looked into, see `fault`: one that is
    broken shall not end a long measurement.
    """

    family: Family
    subset: str
    source: Path
    n_expected: int | None
    allow_missing: bool
    official: bool = False
    items: list[Choice] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    n_rows: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def rows(
        self,
        entries: Mapping[str, Any] | Iterable[tuple[int, Any]],
        read: Callable[[str, Any], Choice | None],
        where: str = "row {}",
    ) -> Collector:
        """Add `read(key, entry)` for each pair of key and entry; None stands for no question. A
        malformed row is named as `where` says. Where a file breaks off, the rows before are used,
        if rows may be missing and their number is known."""
        try:
            for key, entry in entries.items() if isinstance(entries, Mapping) else entries:
                try:
                    choice = read(str(key), entry)
                except RowError as error:
                    self.refuse(where.format(key), error)
                    continue
                if choice is not None:
                    self.add(choice)
        except DataError as error:
            if not self.allow_missing or self.n_expected is None:
                raise
            tell(f"Left out: {self.family.name}/{self.subset}, rows that cannot be read. {error}")
        return self

    def refuse(self, row: str, error: RowError) -> None:
        """Count a malformed row, or raise a `DataError` that names file and row."""
        if not self.allow_missing:
            raise DataError(
                f"{self.source}, {row}: {error}. Fetch the file again, or {ALLOW}, to leave such "
                "rows out and count them."
            ) from error
        self.n_rows += 1
        self._leave_out(MALFORMED, row, str(error))

    def add(self, choice: Choice) -> None:
        """Count a row and keep its item, or note why a picture of it cannot be used."""
        self.n_rows += 1
        for path in (image.path for image in choice.images if not self.usable(image)):
            kind = BROKEN if path.is_file() else MISSING
            self._leave_out(kind, f"row {choice.id}", f"its picture {path} {trouble(path)}")
            return
        if len(choice.images) == 1 < len(choice.texts):
            self.counts["identical"] += choice.texts.count(choice.texts[choice.truth]) > 1
        self.items.append(choice)

    def _leave_out(self, kind: str, row: str, why: str) -> None:
        self.counts[kind] += 1
        self.left_out.append((row, why))

    def usable(self, image: ImageRef) -> bool:
        """Whether a picture is there and not known to be broken."""
        looked_into = self.official or self.allow_missing
        return image.path.is_file() and not (looked_into and fault(image.path))

    def picture(self, *places: Path, crop: tuple[float, ...] | None = None) -> ImageRef:
        """The first of several possible places of a picture that has it, or else the first."""
        return ImageRef(next(filter(Path.is_file, places), places[0]), crop)

    def finish(self, **fields: Any) -> Benchmark:
        """Check the numbers and make the benchmark; `fields` are those of `Benchmark`."""
        n_expected = self.n_rows if self.n_expected is None else self.n_expected
        if self.left_out and not self.allow_missing:
            row, why = self.left_out[0]
            raise DataError(
                f"{self.source}, {row}: {why}. So are those of {len(self.left_out)} of "
                f"{self.n_rows} rows in all. The pictures are {self.family.images_from}. Put them "
                f"there, or {ALLOW}, to leave such rows out and count them."
            )
        tell_left_out(self.family.name, self.source, len(self.items), n_expected, self.left_out)
        if self.n_rows != n_expected and not self.allow_missing:
            raise DataError(
                f"{self.source}: {self.n_rows} items, {n_expected} expected. Fetch the official "
                f"file again, or {ALLOW}, to go on with both numbers recorded."
            )
        items, counts = tuple(self.items), dict(self.counts)
        return Benchmark(self.family.name, self.subset, items, n_expected, counts=counts, **fields)
