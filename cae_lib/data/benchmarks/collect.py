"""Gathering items from rows: nothing is dropped in silence, and n used stands beside n expected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cae_lib.data.benchmarks.base import Benchmark, Choice
from cae_lib.data.benchmarks.files import RowError
from cae_lib.errors import DataError


@dataclass(frozen=True)
class Policy:
    """How many items are expected, and what happens when some cannot be used.

    Attributes:
        expected: Number of items by subset; a subset that is not named is expected to have as
            many items as its annotation file lists rows.
        allow_missing: Leave out malformed rows and rows without their picture, and count them,
            instead of raising an error.
    """

    expected: Mapping[str, int]
    allow_missing: bool = False

    @classmethod
    def of(
        cls,
        expected: Mapping[str, int] | None,
        official: bool,
        counts: Mapping[str, int],
        allow_missing: bool,
    ) -> Policy:
        """Take `expected` if given, the published `counts` if `official`, else nothing."""
        if expected is None:
            expected = counts if official else {}
        return cls(dict(expected), allow_missing)


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

    @contextmanager
    def row(self, where: str | int) -> Iterator[None]:
        """Count one row; a `RowError` inside becomes an error that names file and row.

        Raises:
            DataError: If the row is malformed and missing data are not allowed.
        """
        self.n_rows += 1
        try:
            yield
        except RowError as error:
            if not self.policy.allow_missing:
                raise DataError(
                    f"{self.source}, row {where}: {error}. Fetch the file again, or give "
                    "allow_missing=True to leave such rows out and count them."
                ) from error
            self.counts["malformed"] += 1

    def rows(
        self, entries: Sequence[Any] | Mapping[str, Any], read: Callable[[str, Any], Choice]
    ) -> None:
        """Add `read(key, entry)` for each entry of a list (key = position) or of a dict."""
        pairs = entries.items() if isinstance(entries, Mapping) else enumerate(entries)
        for key, entry in pairs:
            with self.row(key):
                self.add(read(str(key), entry))

    def add(self, choice: Choice) -> None:
        """Keep an item, or note that a picture of it is missing."""
        absent = next((ref.path for ref in choice.images if not self._is_there(ref.path)), None)
        if absent is None:
            self.items.append(choice)
        else:
            self._missing.append((choice.id, absent))

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
            self._refuse_other_count(n_expected)
        counts = dict(self.counts)
        if self._missing:
            counts["missing_images"] = len(self._missing)
        return Benchmark(
            self.name, self.subset, tuple(self.items), n_expected, counts=counts, **fields
        )

    def _refuse_missing_images(self) -> None:
        if self._missing:
            row, path = self._missing[0]
            raise DataError(
                f"{self.source}, row {row}: its picture {path} is missing, as are those of "
                f"{len(self._missing)} of {self.n_rows} rows in all. The pictures are "
                f"{self.images_from}. Put them there, or give allow_missing=True to leave such "
                "rows out and count them."
            )

    def _refuse_other_count(self, n_expected: int) -> None:
        if self.n_rows != n_expected:
            raise DataError(
                f"{self.source}: {self.n_rows} items, {n_expected} expected. Fetch the official "
                "file again, or give allow_missing=True to go on with both numbers recorded."
            )


def first_existing(candidates: Sequence[Path]) -> Path:
    """The first of several possible places of a file that exists, or else the first of them."""
    return next((path for path in candidates if path.is_file()), candidates[0])


def with_expected(present: Sequence[str], policy: Policy) -> list[str]:
    """The parts to read when none are named: those that are there and those that are expected.

    A part that is expected and not there then fails when its file is opened.
    """
    return list(dict.fromkeys([*present, *policy.expected]))
