"""Gathering items from rows: nothing is dropped in silence, and n used stands beside n expected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from cae_lib.data.benchmarks.base import Benchmark, Choice, ImageRef
from cae_lib.data.rows import RowError
from cae_lib.errors import ConfigError, DataError


class Checks(TypedDict, total=False):
    """What every loader is told about completeness.

    Attributes:
        expected: Number of items by subset; a subset that is not named is expected to have as
            many items as its annotation file lists rows. None for the default.
        official: Expect the published numbers of items, where nothing else is `expected`.
        allow_missing: Read the annotation files that are there; leave out and count malformed rows
            and rows without their picture. By default each of these is a `DataError`.
    """

    expected: Mapping[str, int] | None
    official: bool
    allow_missing: bool


@dataclass(frozen=True)
class Policy:
    """How many items are expected, and whether some may be missing; see `Checks`."""

    expected: Mapping[str, int]
    allow_missing: bool = False

    @classmethod
    def of(
        cls,
        published: Mapping[str, int],
        expected: Mapping[str, int] | None = None,
        official: bool = False,
        allow_missing: bool = False,
    ) -> Policy:
        """Take `expected` if given, the published numbers if `official`, else nothing."""
        if expected is None:
            expected = published if official else {}
        return cls(expected, allow_missing)

    def choose(
        self,
        root: Path,
        files: Mapping[str, Path],
        subsets: Sequence[str] | None,
        wanted: Collection[str] | None = None,
    ) -> dict[str, Path]:
        """The subsets of `root` to read, out of all annotation `files` that it may have.

        These are the named `subsets`, or else those that are there and, unless data may be missing,
        those that are `wanted`: by default those that are expected.

        Raises:
            ConfigError: If a subset is unknown.
            DataError: If there is none.
        """
        if subsets is not None:
            unknown = [name for name in subsets if name not in files]
            if unknown:
                raise ConfigError(f"no such subset: {unknown}. Known: {', '.join(files)}.")
            return {name: files[name] for name in subsets}
        wanted = self.expected if wanted is None else wanted
        chosen = {
            name: path
            for name, path in files.items()
            if path.is_file() or (name in wanted and not self.allow_missing)
        }
        if not chosen:
            raise DataError(
                f"{root}: no annotation file of {', '.join(files) or 'any subset'} is there. Put "
                "the data set there in its official layout."
            )
        return chosen


@dataclass
class Collector:
    """Takes the rows of one annotation file and makes a benchmark of them.

    Attributes:
        name: Family of the benchmark.
        subset: Part of the family.
        source: Annotation file, named in errors.
        policy: Expected counts and what to do about rows that cannot be used.
        images_from: Where the pictures come from, told when one is missing.
        items: The items gathered so far.
        counts: Facts counted on the way, for example identical captions.
        n_rows: Rows that ask something, whether they can be used or not.
    """

    name: str
    subset: str
    source: Path
    policy: Policy
    images_from: str
    items: list[Choice] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    n_rows: int = 0
    _missing: list[tuple[str, Path]] = field(default_factory=list)
    _exists: dict[Path, bool] = field(default_factory=dict)

    def rows(
        self,
        entries: Iterable[tuple[Any, Any]] | Mapping[str, Any],
        read: Callable[[str, Any], Choice | None],
        where: str = "row {}",
    ) -> Collector:
        """Add `read(key, entry)` for each pair of key and entry; None stands for no question.

        Raises:
            DataError: If a row is malformed, named as `where` says, and data may not be missing.
        """
        pairs = entries.items() if isinstance(entries, Mapping) else entries
        for key, entry in pairs:
            try:
                choice = read(str(key), entry)
            except RowError as error:
                self.refuse(where.format(key), error)
                continue
            if choice is not None:
                self.add(choice)
        return self

    def refuse(self, row: str, error: RowError) -> None:
        """Count a malformed row, or raise a `DataError` that names file and row."""
        if not self.policy.allow_missing:
            raise DataError(
                f"{self.source}, {row}: {error}. Fetch the file again, or give allow_missing=True "
                "to leave such rows out and count them."
            ) from error
        self.n_rows += 1
        self.counts["malformed"] += 1

    def add(self, choice: Choice) -> None:
        """Count a row and keep its item, or note that a picture of it is missing."""
        self.n_rows += 1
        if len(choice.images) == 1 < len(choice.texts):
            true = choice.texts[choice.truth]
            self.counts["identical"] += choice.texts.count(true) > 1
        absent = [image.path for image in choice.images if not self._is_there(image.path)]
        if absent:
            self._missing.append((choice.id, absent[0]))
        else:
            self.items.append(choice)

    def picture(self, *places: Path, crop: tuple[float, ...] | None = None) -> ImageRef:
        """The first of several possible places of a picture that has it, or else the first."""
        return ImageRef(next(filter(self._is_there, places), places[0]), crop)

    def _is_there(self, path: Path) -> bool:
        if path not in self._exists:
            self._exists[path] = path.is_file()
        return self._exists[path]

    def finish(self, **fields: Any) -> Benchmark:
        """Check the counts and make the benchmark; `fields` are those of `Benchmark`.

        Raises:
            DataError: If pictures are missing, or the number of rows is not the expected one, and
                missing data are not allowed.
        """
        n_expected = self.policy.expected.get(self.subset, self.n_rows)
        if not self.policy.allow_missing:
            self._refuse_missing_images()
            if self.n_rows != n_expected:
                raise DataError(
                    f"{self.source}: {self.n_rows} items, {n_expected} expected. Fetch the "
                    "official file again, or give allow_missing=True to go on with both numbers "
                    "recorded."
                )
        if self._missing:
            self.counts["missing_images"] = len(self._missing)
        items, counts = tuple(self.items), dict(self.counts)
        return Benchmark(self.name, self.subset, items, n_expected, counts=counts, **fields)

    def _refuse_missing_images(self) -> None:
        if self._missing:
            row, path = self._missing[0]
            raise DataError(
                f"{self.source}, row {row}: its picture {path} is missing, as are those of "
                f"{len(self._missing)} of {self.n_rows} rows in all. The pictures are "
                f"{self.images_from}. Put them there, or give allow_missing=True to leave such "
                "rows out and count them."
            )
