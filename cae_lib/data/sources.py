"""The list of datasets and weight files, `sources.yml`.

The path of a source is relative to `data/raw`; the paths of its parts are relative to its folder.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from cae_lib.config import paths
from cae_lib.data.benchmarks import BENCHMARK_FAMILIES
from cae_lib.errors import ConfigError, DataError

WAYS = {
    "url": "from the web",
    "drive": "from Google Drive",
    "hub": "from the Hugging Face hub",
    "how": "by hand",
}
CHECKSUM = "sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}|git:[0-9a-f]{40}"
REVISION = "[0-9a-f]{40}|main"
SOURCES_FILE = Path(__file__).with_name("sources.yml")


@dataclass(frozen=True)
class Download:
    """A file or hub repository to fetch, from an address, Google Drive or the hub, or by hand."""

    url: str | None = None  # address of a plain download
    drive: str | None = None  # id of a file at Google Drive
    hub: str | None = None  # repository, `datasets/OWNER/NAME` or `OWNER/NAME`
    how: str | None = None  # what a person has to do, where no address is open or known
    revision: str | None = None  # commit of the repository, or "main" where none is known
    path: str | None = None  # the file in the repository; None for the whole repository
    open_clip: tuple[str, ...] = ()  # model and tag of weights that stay in the hub's own cache
    file: str = ""  # name of an archive, where its address does not end in it
    to: str = ""  # place of a plain file; "." for a whole repository
    unpack: str = ""  # folder for the content of an archive, less the one folder that holds it all
    only: tuple[str, ...] = ()  # beginnings of the wanted paths in the archive; () for all of them
    checksum: str | None = None  # sha256:..., md5:... or git:..., the id of a git blob; None where
    # none is published

    def __post_init__(self) -> None:
        if sum(getattr(self, way) is not None for way in WAYS) != 1:
            raise ValueError(f"an item has one of {', '.join(WAYS)}")
        if self.checksum is not None and not re.fullmatch(CHECKSUM, self.checksum):
            raise ValueError(f"checksum {self.checksum!r} is not like {CHECKSUM}")
        if self.hub is not None and not re.fullmatch(REVISION, self.revision or ""):
            raise ValueError(
                f"revision {self.revision!r} of {self.hub}: expected the commit to "
                f"fetch, or main where none is known ({REVISION})"
            )
        if self.hub is None and self.revision is not None:
            raise ValueError("only a repository of the hub has a revision")

    @property
    def name(self) -> str:
        """Return the name of the downloaded file, or a name that stands for it."""
        url = (self.url or "").partition("?")[0]
        return (self.file or url or self.to or self.path or self.hub or "").rpartition("/")[2]

    @property
    def host(self) -> str:
        """Return the host of the file; "" if no address is known."""
        return urlsplit(self.browser_url).hostname or ""

    @property
    def browser_url(self) -> str:
        """Return the page where a browser finds the file; "" if none is known."""
        if self.drive:
            return f"https://drive.google.com/file/d/{self.drive}/view"
        if self.hub:
            place = f"blob/{self.revision}/{self.path}" if self.path else f"tree/{self.revision}"
            return f"https://huggingface.co/{self.hub}/{place}"
        return self.url or ""


@dataclass(frozen=True)
class ExpectedRows:
    """Files that a complete dataset has, and how many rows they hold together.

    Attributes:
        file: Path; `{a,b}` stands for several files, `*` for any.
        n: Number of rows, or of files if `file` has a `*`; None if it has not been published.
        lines: Count lines that are not blank, whatever the file's ending.
        skip: Number of lines of a header.
    """

    file: str
    n: int | None = None
    lines: bool = False
    skip: int = 0


@dataclass(frozen=True)
class ReferencedImages:
    """Images that annotation files name, and where their files may be.

    Attributes:
        file: The annotation files, as in `ExpectedRows`.
        field: Columns that name an image, as in `rows.value`; a line of text is itself a name.
        names: Paths that the image may have; `{}` stands for its name.
        drop: Prefix to remove from the name.
    """

    file: str
    field: tuple[str | int, ...]
    names: tuple[str, ...]
    drop: str = ""


@dataclass(frozen=True)
class Source:
    """A dataset, or weights, with what is needed to fetch and to check it."""

    name: str  # as in `cae data get NAME`
    title: str
    kind: str  # "weights", or what a data set is for
    home: str  # page that describes it
    licence: str  # short name of the licence, or that none is given
    terms: str  # what it demands, in a sentence
    folder: str  # below data/raw
    files: tuple[Download, ...]
    gb: float | None = None  # rough size of the downloads
    gated: str | None = None  # page where the terms have to be accepted first
    needs: tuple[str, ...] = ()  # sources whose images this one shows
    links: Mapping[str, str] = field(default_factory=dict)  # new name: folder shown
    rows: tuple[ExpectedRows, ...] = ()
    images: tuple[ReferencedImages, ...] = ()
    note: str = ""  # what else one should know

    @property
    def root(self) -> Path:
        """Return the folder of the source."""
        return paths().raw / self.folder

    @property
    def download_folder(self) -> Path:
        """Return the folder of the downloaded archives, which users may also fill by hand."""
        return paths().raw / "downloads" / self.name

    def place(self, item: Download) -> Path:
        """Return the path of a download: an archive is among the downloads, a file at its place."""
        if item.unpack:
            return self.download_folder / item.name
        return self.root / (item.to or item.path or ".")


@lru_cache(maxsize=4)
def load_sources(path: Path = SOURCES_FILE) -> Mapping[str, Source]:
    """Read all sources by name, from the list that comes with the package.

    Raises:
        DataError: For a file that cannot be read, or a malformed entry, which the message names.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8")).items()
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        advice = "Install cae-lib again, or restore the file from the repository"
        raise DataError(f"{path}: cannot be read ({error}). {advice}") from error
    sources: dict[str, Source] = {}
    for name, entry in entries:
        try:
            fields: dict[str, Any] = {}
            for key, kind in (
                ("files", Download),
                ("rows", ExpectedRows),
                ("images", ReferencedImages),
            ):
                fields[key] = tuple(_build(kind, values) for values in entry.get(key, ()))
            sources[name] = _build(Source, {"name": name, **entry, **fields})
        except (TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}, {name}: {error}") from error
    for family in BENCHMARK_FAMILIES.values():  # of which a new one may have no entry
        for name in family.source_names:
            new = Source(name, name, "benchmark", "", "unknown", "", family.folder, ())
            sources.setdefault(name, new)
    return sources


def _build(kind: type, entry: dict[str, Any]) -> Any:
    """Build a dataclass from a mapping whose lists become tuples."""
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()})


def source(name: str) -> Source:
    """Return the source of a name; ConfigError, with the known names, if there is none."""
    sources = load_sources()
    if name not in sources:
        raise ConfigError(f"no data set or weights {name!r}. Known: {', '.join(sources)}.")
    return sources[name]


def fetch_command(names: Iterable[str]) -> str:
    """Return the command that fetches some sources and the images that they refer to."""
    fetched: dict[str, None] = {}
    for name in names:
        entry = load_sources().get(name)  # none of a benchmark that was registered since
        fetched |= dict.fromkeys([*(entry.needs if entry else ()), name])
    return f"cae data get {' '.join(fetched)}"


def expand(pattern: str) -> list[str]:
    """Return all paths that a pattern with `{a,b}` stands for: two for `x/{1,2}.csv`."""
    parts = re.split(r"\{([^}]*)\}", pattern)
    options = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(choice) for choice in itertools.product(*options)]
