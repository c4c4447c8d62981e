"""Count how much of a source is on this machine, and name what is missing (`cae data check`).

A source is a dataset or a set of weights that `sources.yml` lists. Its files lie below `data/raw`,
except weights that open_clip keeps in the hub's cache.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from cae_bench.benchmarks import BENCHMARK_FAMILIES
from cae_bench.benchmarks.base import Family
from cae_bench.benchmarks.load import read_all_items
from cae_bench.sources import ExpectedRows, ReferencedImages, Source, expand_braces
from cae_lib.config import cached_open_clip_weights, paths
from cae_lib.data.rows import MissingFileError, rows_of, text_rows
from cae_lib.errors import DataError

MAX_MISSING_NAMES = 3
"""Largest number of missing files, and of missing images, that a report names."""


@dataclass
class Tally:
    """Number of files, rows or images that are on this machine, and the names of missing ones.

    Attributes:
        what: What is counted, such as "files", for printing.
        n_expected: How many there should be; None if the number is unknown.
        n_unverified: How many more are here of which no number is published.
    """

    what: str
    n_present: int = 0
    n_expected: int | None = 0
    missing: list[str] = field(default_factory=list)
    n_unverified: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing or surplus, as far as the expected number is known."""
        return not self.missing and self.n_expected in (None, self.n_present)

    def count(self, is_present: bool, name: str) -> None:
        """Count one expected file or image, and note its name if it is missing."""
        self.n_expected = (self.n_expected or 0) + 1
        self.n_present += is_present
        if not is_present:
            self.missing.append(name)

    def __str__(self) -> str:
        of = "" if self.n_expected is None else f" of {self.n_expected:,}"
        verified = f"{self.n_present:,}{of} {self.what}"
        if not self.n_unverified:
            return verified
        if not self.n_expected:
            return f"{self.n_unverified:,} {self.what} read (number published unknown)"
        return f"{verified} ({self.n_unverified:,} more read; number published unknown)"


@dataclass(frozen=True)
class SourceReport:
    """Counts of how much of one source is on this machine.

    Attributes:
        tallies: The files; then the rows or items and the images, if any are expected or present.
        faults: Messages about files that cannot be read or are malformed.
    """

    source: Source
    tallies: list[Tally]
    faults: list[str]

    @property
    def state(self) -> str:
        """State of the source: "complete", "incomplete", "not here" or "unknown"."""
        if not any(tally.n_present or tally.n_unverified for tally in self.tallies):
            return "not here"
        if self.faults or not all(tally.is_complete for tally in self.tallies):
            return "incomplete"
        # Without a published number, nobody can tell whether what is here is all of it.
        is_verified = not any(tally.n_unverified for tally in self.tallies)
        expects_any = any(tally.n_expected for tally in self.tallies)
        return "complete" if is_verified and expects_any else "unknown"

    def lines(self) -> list[str]:
        """Return the report as lines of text: the counts, then missing names, then the faults."""
        lines = [f"{self.source.name}: {self.state}; {', '.join(map(str, self.tallies))}"]
        for tally in self.tallies:
            n_unnamed = len(tally.missing) - MAX_MISSING_NAMES
            rest = f" and {n_unnamed:,} more" if n_unnamed > 0 else ""
            if tally.missing:
                names = ", ".join(tally.missing[:MAX_MISSING_NAMES])
                lines.append(f"  {tally.what} missing: {names}{rest}")
        return lines + [f"  {fault}" for fault in self.faults]


def source_report(source: Source) -> SourceReport:
    """Count the files, rows and images of a source, and name missing files and images.

    Files that cannot be read raise no error but are faults of the report. Images inside annotation
    files, such as BiVLC's, are written to files of their own if they are not there yet.
    """
    files, rows, images = Tally("files"), Tally("rows"), Tally("images")
    faults: list[str] = []
    for item in source.files:
        if item.open_clip:
            files.count(
                cached_open_clip_weights(item.hub or "") is not None, " ".join(item.open_clip)
            )
    for entry in source.rows:
        _count_listed_rows(source, entry, files, rows, faults)
    for name, places in _expected_images(source, faults):
        images.count(any(os.path.isfile(path) for path in places), name)
    for family in _families_of(source):
        _count_benchmark(family, files, rows, images, faults)
    # Nothing is listed, so whatever lies in the folder counts, and its full number is unknown.
    if not files.n_expected and not source.rows:
        files.n_expected = None
        files.n_present = sum(path.is_file() for path in source.root.rglob("*"))
    counted = [
        tally
        for tally in (rows, images)
        if tally.n_expected or tally.n_present or tally.n_unverified
    ]
    # Subsets that share an annotation file report the same fault.
    return SourceReport(source, [files, *counted], list(dict.fromkeys(faults)))


def annotation_files(source: Source) -> list[Path]:
    """Return the annotation files of a source that are on this machine, sorted by path."""
    # Only folders of images are listed with a `*`.
    patterns = [
        name for row in source.rows if "*" not in row.file for name in expand_braces(row.file)
    ]
    files = {path for name in patterns if (path := source.root / name).is_file()}
    for family in _families_of(source):
        files |= {path for pattern in family.files for path in paths().raw.glob(pattern)}
    return sorted(files)


def _families_of(source: Source) -> list[Family]:
    """Return the benchmarks that read this source and no other."""
    return [
        family for family in BENCHMARK_FAMILIES.values() if family.source_names == (source.name,)
    ]


def _count_benchmark(
    family: Family, files: Tally, items: Tally, images: Tally, faults: list[str]
) -> None:
    """Add the files of a benchmark, and the items and images that its reader yields, to tallies."""
    root = paths().raw
    for pattern in family.files:
        matches = sorted(root.glob(pattern))
        for path in matches:
            files.count(True, path.name)
        if not matches:
            files.count(False, pattern)
    image_paths: set[Path] = set()
    for subset in family.published_counts:
        if family.is_rescored(subset):
            continue
        n_items = 0
        try:
            for item in read_all_items(family, root, subset, Counter()):
                n_items += 1
                image_paths.update(image.path for image in item.images)
        except MissingFileError:
            # The missing file itself is counted above.
            pass
        except DataError as error:
            faults.append(str(error))
        n_published = family.published_counts[subset]
        if n_published is None:
            items.n_unverified += n_items
        else:
            items.n_present += n_items
            items.n_expected = (items.n_expected or 0) + n_published
    items.what = "items"
    for path in sorted(image_paths):
        images.count(os.path.isfile(path), _name_below_raw(path))


def _count_listed_rows(
    source: Source, entry: ExpectedRows, files: Tally, rows: Tally, faults: list[str]
) -> None:
    """Add the files and rows of one entry under `rows` in `sources.yml` to tallies."""
    if "*" in entry.file:
        # With a `*`, the number of the entry counts files, not rows.
        n_files = sum(path.is_file() for path in source.root.glob(entry.file))
        files.n_present += n_files
        files.n_expected = (files.n_expected or 0) + (
            # Without a published number at least one file is expected.
            (n_files or 1) if entry.n is None else entry.n
        )
        if n_files < (entry.n or 1):
            number = f"{entry.n - n_files:,}" if entry.n else "all"
            files.missing.append(f"{source.folder}/{entry.file} ({number})")
        return
    rows.n_expected = (rows.n_expected or 0) + (entry.n or 0)
    for name in expand_braces(entry.file):
        path = source.root / name
        files.count(path.is_file(), f"{source.folder}/{name}")
        if entry.n is not None and path.is_file():
            try:
                lines = text_rows(path) if entry.lines else rows_of(path)
                rows.n_present += sum(1 for _ in islice(lines, entry.skip, None))
            except DataError as error:
                faults.append(str(error))


def _expected_images(source: Source, faults: list[str]) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Yield the images that annotation files name, each once: its name, and where it may lie.

    Messages about files that cannot be read are appended to `faults` while the iterator runs.
    """
    seen: set[tuple[Path, ...]] = set()
    for entry in source.images:
        files = (path for name in expand_braces(entry.file) for path in source.root.glob(name))
        for path in sorted(files):
            for name in _image_names(path, entry, faults):
                places = tuple(source.root / pattern.format(name) for pattern in entry.names)
                if places not in seen:
                    seen.add(places)
                    yield _name_below_raw(places[0]), places


def _image_names(path: Path, entry: ReferencedImages, faults: list[str]) -> Iterable[str]:
    """Return the distinct image names in an annotation file, in order; note a fault of the file."""
    names = {}
    try:
        for row in rows_of(path):
            for key in entry.fields:
                with suppress(DataError):
                    is_line = isinstance(row.content, str)
                    name = row.content if is_line else str(row.value(str(key)))
                    # Some tables hold image ids that went through floats, such as "7.0".
                    names[name.strip().removeprefix(entry.drop).removesuffix(".0")] = None
    except DataError as error:
        faults.append(str(error))
    return filter(None, names)


def _name_below_raw(path: Path) -> str:
    """Return a path relative to `data/raw`; a path elsewhere is returned whole."""
    root = paths().raw
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
