"""The list of data sets and weight files, `data/sources.yml`, and which of them may be incomplete.

Places are relative: those of a source to `data/raw`, those of its parts to the source's folder.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from cae_lib.config import paths
from cae_lib.errors import ConfigError, DataError

KINDS = ("weights", "pictures", "training", "retrieval", "benchmark", "similarity")
WAYS = ("url", "drive", "hub", "how")
CHECKSUM = "sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}"
ALL = "all"

_ALLOWED: ContextVar[frozenset[str]] = ContextVar("allowed", default=frozenset())


@dataclass(frozen=True)
class Item:
    """One file to fetch: from a plain address, Google Drive or the Hugging Face hub, or by hand.

    Attributes:
        url: Address of a plain download.
        drive: Id of a file at Google Drive.
        hub: Repository of the hub, `datasets/OWNER/NAME` or `OWNER/NAME`.
        how: What a person has to do, where no address is open or known.
        path: The file in the repository `hub`; None for the whole repository.
        open_clip: Model and tag whose weights these are: they stay in the hub's own cache, where
            open_clip looks for them.
        file: Name of an archive among the downloads; by default the last part of the address.
        to: Place of a plain file; "." for a whole repository.
        unpack: Folder that the content of an archive goes to, without the one folder that holds
            all of it, if there is one.
        only: Beginnings of the paths in the archive that are taken; empty takes all.
        checksum: `sha256:...` or `md5:...` of the download. Without one, the SHA-256 is noted at
            the first download and holds for later ones.
    """

    url: str | None = None
    drive: str | None = None
    hub: str | None = None
    how: str | None = None
    path: str | None = None
    open_clip: tuple[str, ...] = ()
    file: str = ""
    to: str = ""
    unpack: str = ""
    only: tuple[str, ...] = ()
    checksum: str | None = None

    def __post_init__(self) -> None:
        if sum(getattr(self, way) is not None for way in WAYS) != 1:
            raise ValueError(f"an item has one of {', '.join(WAYS)}")
        if self.checksum is not None and not re.fullmatch(CHECKSUM, self.checksum):
            raise ValueError(f"checksum {self.checksum!r} is not like {CHECKSUM}")

    @property
    def name(self) -> str:
        """Name of the file among the downloads, or what stands for it."""
        url = (self.url or "").partition("?")[0]
        return (self.file or url or self.to or self.path or self.hub or "").rpartition("/")[2]

    @property
    def address(self) -> str:
        """Where a person can find it with a browser; "" where that is not known."""
        if self.drive:
            return f"https://drive.google.com/file/d/{self.drive}/view"
        if self.hub:
            place = f"/blob/main/{self.path}" if self.path else ""
            return f"https://huggingface.co/{self.hub}{place}"
        return self.url or ""


@dataclass(frozen=True)
class Rows:
    """Files that a complete set has, and what is counted in them.

    Attributes:
        file: Path; `{a,b}` stands for several, `*` for any.
        n: Rows of all these files together, or number of files that fit a `*`; None where nobody
            has published it, and only the presence of the files is checked.
        at: Field of a JSON file that holds the rows; by default its top level.
        lines: Count lines that are not blank, whatever the file's ending.
        skip: Lines of a header that are not counted.
    """

    file: str
    n: int | None = None
    at: str | None = None
    lines: bool = False
    skip: int = 0


@dataclass(frozen=True)
class Pictures:
    """Pictures that annotation files name.

    Attributes:
        file: Annotation files, as in `Rows`.
        field: Keys or positions of the fields that name a picture; a line of text is a name itself.
        folders: Folders that a picture may lie in.
        names: Patterns of the file name, tried in turn.
        drop: Beginning of the name to leave out.
        base: Use the last part of the name only.
    """

    file: str
    field: tuple[str | int, ...]
    folders: tuple[str, ...]
    names: tuple[str, ...] = ("{}",)
    drop: str = ""
    base: bool = False


@dataclass(frozen=True)
class Source:
    """A data set or weight file.

    Attributes:
        name: Key, as in `cae data get NAME`.
        title: Full name.
        kind: One of `KINDS`.
        home: Page that describes it.
        licence: Short name of the licence, or that none is given.
        terms: What it demands, in a sentence.
        folder: Place below `data/raw`.
        get: What to fetch.
        gb: Rough size of the downloads in GB; None if not known.
        gated: Page where the terms have to be accepted first.
        needs: Other sources whose pictures this one shows.
        links: `{new name: folder it shows}`, for pictures that several sets share.
        rows: Files and counts of a complete set.
        pictures: Pictures that its annotations name.
        note: What else one should know.
    """

    name: str
    title: str
    kind: str
    home: str
    licence: str
    terms: str
    folder: str
    get: tuple[Item, ...]
    gb: float | None = None
    gated: str | None = None
    needs: tuple[str, ...] = ()
    links: Mapping[str, str] = dataclasses.field(default_factory=dict)
    rows: tuple[Rows, ...] = ()
    pictures: tuple[Pictures, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; expected one of {', '.join(KINDS)}")

    @property
    def root(self) -> Path:
        """The source's folder."""
        return paths().raw / self.folder

    @property
    def downloads(self) -> Path:
        """Folder of its archives, also of those that somebody fetched by hand."""
        return paths().raw / "downloads" / self.name

    def place(self, item: Item) -> Path:
        """Where a download goes: an archive among the downloads, other files to their own place."""
        if item.unpack:
            return self.downloads / item.name
        return self.root / (item.to or item.path or ".")


def sources_path() -> Path:
    """The list in the repository that holds this package, else below the data folder."""
    own = Path(__file__).resolve().parents[2] / "data" / "sources.yml"
    return own if own.is_file() else paths().data / "sources.yml"


@lru_cache(maxsize=4)
def load_sources(path: Path | None = None) -> Mapping[str, Source]:
    """All sources by name, in the order of the file.

    Raises:
        DataError: The file is missing or an entry is malformed; names the entry and the field.
    """
    path = path or sources_path()
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8")).items()
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        wrong = f"{path}: cannot be read ({error}). Restore it from the repository"
        raise DataError(wrong) from error
    found = {}
    for name, entry in entries:
        try:
            found[name] = _source(name, entry)
        except (TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}, {name}: {error}") from error
    return found


def source(name: str) -> Source:
    """The source of that name.

    Raises:
        ConfigError: There is none; the message lists the known ones.
    """
    known = load_sources()
    if name not in known:
        raise ConfigError(f"no data set or weights {name!r}. Known: {', '.join(known)}.")
    return known[name]


def _source(name: str, entry: dict[str, Any]) -> Source:
    parts = {
        field: tuple(_build(kind, part) for part in entry.get(field, ()))
        for field, kind in (("get", Item), ("rows", Rows), ("pictures", Pictures))
    }
    return _build(Source, {"name": name, **entry, **parts})


def _build(kind: type, entry: dict[str, Any]) -> Any:
    """A dataclass from a mapping whose lists become tuples."""
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()})


def expand(pattern: str) -> list[str]:
    """All paths that a pattern with `{a,b}` stands for.

    >>> expand("{a,b}/{1,2}.csv")
    ['a/1.csv', 'a/2.csv', 'b/1.csv', 'b/2.csv']
    """
    parts = re.split(r"\{([^}]*)\}", pattern)
    options = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(choice) for choice in itertools.product(*options)]


def may_be_incomplete(name: str) -> bool:
    """Whether the set of that name may be used as it is; n used and n expected are then told."""
    return name in _ALLOWED.get()


@contextmanager
def allowing(names: Iterable[str]) -> Iterator[None]:
    """Allow the named sets to be incomplete while the block runs: `--allow-missing`.

    Args:
        names: Names of `cae data list`; "all" stands for every one.

    Raises:
        ConfigError: A name is unknown.
    """
    chosen = set(names)
    if ALL in chosen:
        chosen = chosen - {ALL} | set(load_sources())
    token = _ALLOWED.set(frozenset(source(name).name for name in chosen))
    try:
        yield
    finally:
        _ALLOWED.reset(token)
