"""`cae data check`: how much of a source is here, and what is missing, by name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cae_lib.data.benchmarks.entry import place
from cae_lib.data.rows import RowError, parse_json, read_rows, value
from cae_lib.data.sources import Pictures, Rows, Source, expand
from cae_lib.errors import DataError

SHOWN = 3
OPEN_CLIP_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass
class Tally:
    """How many files, rows or pictures are here, and the names of those that are not."""

    what: str
    found: int = 0
    expected: int | None = 0  # None if nobody knows
    missing: list[str] = field(default_factory=list)  # below data/raw, where names are known

    @property
    def complete(self) -> bool:
        """Whether nothing is known to be missing, or too much."""
        return not self.missing and self.expected in (None, self.found)

    def count(self, is_here: bool, name: str) -> None:
        """Count one thing that should be here."""
        self.expected += 1
        self.found += is_here
        if not is_here:
            self.missing.append(name)

    def __str__(self) -> str:
        of = "" if self.expected is None else f" of {self.expected:,}"
        return f"{self.found:,}{of} {self.what}"


@dataclass(frozen=True)
class Report:
    """What is here of one source."""

    source: Source
    tallies: list[Tally]  # files, rows and pictures, as far as they apply
    faults: list[str]  # files that are here and cannot be read

    @property
    def state(self) -> str:
        """ "complete", "incomplete", "not here", or "unknown" where no counts are known."""
        if not any(tally.found for tally in self.tallies):
            return "not here"
        if self.faults or not all(tally.complete for tally in self.tallies):
            return "incomplete"
        return "complete" if any(tally.expected for tally in self.tallies) else "unknown"

    def lines(self) -> list[str]:
        """The report as text, first the numbers, then what is missing."""
        lines = [f"{self.source.name}: {self.state}; {', '.join(map(str, self.tallies))}"]
        for tally in self.tallies:
            more = len(tally.missing) - SHOWN
            rest = f" and {more:,} more" if more > 0 else ""
            if tally.missing:
                lines.append(f"  {tally.what} missing: {', '.join(tally.missing[:SHOWN])}{rest}")
        return lines + [f"  {fault}" for fault in self.faults]


def check(source: Source) -> Report:
    """Count the files, rows and pictures of a source and name those that are missing."""
    files, rows, pictures = Tally("files"), Tally("rows"), Tally("pictures")
    faults: list[str] = []
    for item in source.get:
        if item.open_clip:
            files.count(open_clip_file(item.hub) is not None, " ".join(item.open_clip))
    for entry in source.rows:
        _count_rows(source, entry, files, rows, faults)
    for name, places in expected_pictures(source, faults):
        pictures.count(any(path.is_file() for path in places), name)
    if not files.expected and not source.rows:
        files.expected = None
        files.found = sum(path.is_file() for path in source.root.rglob("*"))
    tallies = [files, *(tally for tally in (rows, pictures) if tally.expected or tally.found)]
    return Report(source, tallies, list(dict.fromkeys(faults)))


def _count_rows(source: Source, entry: Rows, files: Tally, rows: Tally, faults: list[str]) -> None:
    """Count one entry: files of a `*` as they are, the rows of named files where n is known."""
    if "*" in entry.file:
        found = sum(path.is_file() for path in source.root.glob(entry.file))
        files.found += found
        files.expected += (found or 1) if entry.n is None else entry.n
        if found < (entry.n or 1):
            number = f"{entry.n - found:,}" if entry.n else "all"
            files.missing.append(f"{source.folder}/{entry.file} ({number})")
        return
    rows.expected += entry.n or 0
    for name in expand(entry.file):
        path = source.root / name
        files.count(path.is_file(), f"{source.folder}/{name}")
        if entry.n is not None and path.is_file():
            try:
                here = read_rows(path, "lines" if entry.lines else "")
                rows.found += len(list(here)[entry.skip :])
            except DataError as error:
                faults.append(str(error))


def expected_pictures(source: Source, faults: list[str]) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Name and possible places of each picture that the source's own annotations name."""
    seen: set[tuple[Path, ...]] = set()
    for entry in source.pictures:
        for path in sorted(path for name in expand(entry.file) for path in source.root.glob(name)):
            for name in _named(path, entry, faults):
                places = tuple(source.root / place(each, name) for each in entry.names)
                if places not in seen:
                    seen.add(places)
                    yield f"{source.folder}/{places[0].relative_to(source.root)}", places


def _named(path: Path, entry: Pictures, faults: list[str]) -> Iterable[str]:
    """What a file names pictures by, without what is no part of a name."""
    names = {}
    try:
        for _, _, row in read_rows(path):
            if path.suffix == ".jsonl":
                row = parse_json(row)
            for key in entry.field:
                with suppress(RowError):
                    name = row if isinstance(row, str) else str(value(row, str(key)))
                    names[name.strip().removeprefix(entry.drop).removesuffix(".0")] = None
    except (DataError, RowError) as error:
        faults.append(str(error))
    return filter(None, names)


def open_clip_file(repository: str) -> Path | None:
    """Weights of open_clip in the hub's cache; None if they are not there. Asks no server."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(repository, name) for name in OPEN_CLIP_NAMES)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Return the checksum of a file in hexadecimal; "git" is the id of the file as a git blob."""
    digest = hashlib.new("sha1" if algorithm == "git" else algorithm)
    if algorithm == "git":
        digest.update(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
