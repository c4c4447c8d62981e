"""`cae data check`: how much of a source is here, and what is missing, by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cae_lib.data import services
from cae_lib.data.annotations import count_rows, named_pictures
from cae_lib.data.source_list import expand
from cae_lib.data.sources import Rows, Source
from cae_lib.errors import DataError

SHOWN = 3


@dataclass
class Tally:
    """How many of some kind of thing are here.

    Attributes:
        what: "files", "rows" or "pictures".
        found: Number that is here.
        expected: Number that there should be; None if nobody knows.
        missing: Names of what is not here, below `data/raw`, where names are known.
    """

    what: str
    found: int = 0
    expected: int | None = 0
    missing: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing is known to be missing, or too much."""
        return not self.missing and self.expected in (None, self.found)

    def line(self) -> str:
        """For example "7,511 of 7,511 rows"."""
        if self.expected is None:
            return f"{self.found:,} {self.what}"
        return f"{self.found:,} of {self.expected:,} {self.what}"


@dataclass(frozen=True)
class Report:
    """What is here of one source.

    Attributes:
        source: The source.
        tallies: Files, rows and pictures, as far as they apply.
        faults: Files that are here and cannot be read.
    """

    source: Source
    tallies: tuple[Tally, ...]
    faults: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether all that is expected is here."""
        return not self.faults and all(tally.complete for tally in self.tallies)

    @property
    def state(self) -> str:
        """ "complete", "incomplete", "not here", or "unknown" where no counts are known."""
        if not any(tally.found for tally in self.tallies):
            return "not here"
        if not self.complete:
            return "incomplete"
        return "complete" if any(t.expected for t in self.tallies) else "unknown"

    def lines(self) -> list[str]:
        """The report as text, first the numbers, then what is missing."""
        counts = ", ".join(tally.line() for tally in self.tallies)
        lines = [f"{self.source.name}: {self.state}; {counts}"]
        for tally in self.tallies:
            if tally.missing:
                names = ", ".join(tally.missing[:SHOWN])
                more = len(tally.missing) - SHOWN
                rest = f" and {more:,} more" if more > 0 else ""
                lines.append(f"  {tally.what} missing: {names}{rest}")
        return lines + [f"  {fault}" for fault in self.faults]


def check(source: Source) -> Report:
    """Count the files, rows and pictures of a source and name those that are missing."""
    files, rows, pictures = Tally("files"), Tally("rows"), Tally("pictures")
    faults: list[str] = []
    for item in source.get:
        if item.open_clip:
            _count_file(files, services.open_clip_file(item), " ".join(item.open_clip))
    for entry in source.rows:
        _count_rows(source, entry, files, rows, faults)
    for path, places in expected_pictures(source, faults):
        pictures.expected = (pictures.expected or 0) + 1
        if any(place.is_file() for place in places):
            pictures.found += 1
        else:
            pictures.missing.append(path)
    if not files.expected and not source.rows:
        files.expected = None
        files.found = sum(path.is_file() for path in source.root.rglob("*"))
    tallies = [files] + [tally for tally in (rows, pictures) if tally.expected != 0 or tally.found]
    return Report(source, tuple(tallies), tuple(faults))


def _count_file(files: Tally, path: Path | None, name: str) -> None:
    files.expected = (files.expected or 0) + 1
    if path is not None and path.is_file():
        files.found += 1
    else:
        files.missing.append(name)


def _count_rows(source: Source, entry: Rows, files: Tally, rows: Tally, faults: list[str]) -> None:
    """Count one entry: files of a `*` as they are, the rows of named files where n is known."""
    if "*" in entry.file:
        found = sum(path.is_file() for path in source.root.glob(entry.file))
        files.found += found
        files.expected = (files.expected or 0) + (entry.n if entry.n is not None else found or 1)
        if found < (entry.n or 1):
            number = f"{entry.n - found:,}" if entry.n else "all"
            files.missing.append(f"{source.folder}/{entry.file} ({number})")
        return
    paths = [source.root / name for name in expand(entry.file)]
    for path in paths:
        _count_file(files, path, f"{source.folder}/{path.relative_to(source.root)}")
    if entry.n is None:
        return
    rows.expected = (rows.expected or 0) + entry.n
    for path in filter(Path.is_file, paths):
        try:
            rows.found += count_rows(path, entry)
        except DataError as error:
            faults.append(str(error))


def expected_pictures(source: Source, faults: list[str]) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Name and possible places of each picture that the source's own annotations name."""
    seen: set[tuple[Path, ...]] = set()
    for entry in source.pictures:
        for name in expand(entry.file):
            for path in sorted(source.root.glob(name)):
                try:
                    for places in named_pictures(source.root, path, entry):
                        if places not in seen:
                            seen.add(places)
                            yield f"{source.folder}/{places[0].relative_to(source.root)}", places
                except DataError as error:
                    faults.append(str(error))
