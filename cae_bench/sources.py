"""Read `sources.yml`, the list of datasets and weights with their downloads.

Each entry is a source. The folder of a source is relative to `data/raw`; all other paths in an
entry are relative to the folder of its source.
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

from cae_bench.benchmarks import BENCHMARK_FAMILIES
from cae_lib.config import paths
from cae_lib.errors import ConfigError, DataError

DOWNLOAD_METHODS = {
    "url": "from the web",
    "drive": "from Google Drive",
    "hub": "from the Hugging Face hub",
    "how": "by hand",
}
"""Fields of `Download` that say where it comes from, each with its description in listings."""

CHECKSUM_PATTERN = "sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}|git:[0-9a-f]{40}"
"""Regular expression of a checksum; "git" is the id of a git blob."""

REVISION_PATTERN = "[0-9a-f]{40}|main"
"""Regular expression of the revision of a repository on the hub: a commit, or "main"."""

SOURCES_FILE = Path(__file__).with_name("sources.yml")
"""The list of sources that comes with the package."""


@dataclass(frozen=True)
class Download:
    """A file, or a repository of the hub, that belongs to a source and has to be fetched.

    Exactly one of `url`, `drive`, `hub` and `how` says where it comes from.
    """

    url: str | None = None  # address of a plain download
    drive: str | None = None  # id of a file at Google Drive
    hub: str | None = None  # repository, `datasets/OWNER/NAME` or `OWNER/NAME`
    how: str | None = None  # what a person has to do, where no address is open or known
    revision: str | None = None  # commit of the repository, or "main" where none is known
    path: str | None = None  # the file in the repository; None for the whole repository
    open_clip: tuple[str, ...] = ()  # model and tag of weights that stay in the hub's own cache
    file: str = ""  # name of the downloaded file, where its address does not end in it
    # Path of the file, or folder of a whole repository; by default, `path` or ".". There is no
    # usable default for a file from `url` or `drive` that is not unpacked.
    to: str = ""
    unpack: str = ""  # folder for the content of an archive, without its outer folder; "" for none
    only: tuple[str, ...] = ()  # prefixes of the paths to keep from the archive; () keeps all
    checksum: str | None = None  # sha256:..., md5:... or git:..., the id of a git blob; None where
    # none is published

    def __post_init__(self) -> None:
        if sum(getattr(self, way) is not None for way in DOWNLOAD_METHODS) != 1:
            raise ValueError(f"an item has one of {', '.join(DOWNLOAD_METHODS)}")
        if self.checksum is not None and not re.fullmatch(CHECKSUM_PATTERN, self.checksum):
            raise ValueError(f"checksum {self.checksum!r} is not like {CHECKSUM_PATTERN}")
        # Files of the hub change; a commit says which were meant.
        if self.hub is not None and not re.fullmatch(REVISION_PATTERN, self.revision or ""):
            raise ValueError(
                f"revision {self.revision!r} of {self.hub}: expected the commit to "
                f"fetch, or main where none is known ({REVISION_PATTERN})"
            )
        if self.hub is None and self.revision is not None:
            raise ValueError("only a repository of the hub has a revision")

    @property
    def name(self) -> str:
        """Name of the downloaded file, the last part of the first field set; "" if none is."""
        # The query of an address is no name, nor is the folder "." of a whole repository.
        url, to = (self.url or "").partition("?")[0], self.to.removeprefix(".")
        return (self.file or url or to or self.path or self.hub or "").rpartition("/")[2]

    @property
    def host(self) -> str:
        """Host that the file is fetched from, such as "huggingface.co"; "" if none is known."""
        return urlsplit(self.browser_url).hostname or ""

    @property
    def browser_url(self) -> str:
        """Address where a browser finds the file or repository; "" if none is known."""
        if self.drive:
            return f"https://drive.google.com/file/d/{self.drive}/view"
        if self.hub:
            location = f"blob/{self.revision}/{self.path}" if self.path else f"tree/{self.revision}"
            return f"https://huggingface.co/{self.hub}/{location}"
        return self.url or ""


@dataclass(frozen=True)
class ExpectedRows:
    """Files that a complete source has, and the number of rows in all of them together.

    Attributes:
        file: Path in the folder of the source. `{a,b}` stands for several files that are all
            expected, and `*` for any text.
        n: Number of rows, or of files if `file` contains `*`; None if it is not published.
        lines: Whether rows are the lines that are not blank, whatever the suffix of the file.
        skip: Number of rows at the beginning of each file that are not counted.
    """

    file: str
    n: int | None = None
    lines: bool = False
    skip: int = 0


@dataclass(frozen=True)
class ReferencedImages:
    """Images that the annotation files of a source name, and where their files may be.

    Attributes:
        file: Path of the annotation files in the folder of the source, with `{a,b}` and `*` as in
            `ExpectedRows`.
        fields: Fields of a row that each name an image, as `Row.value` reads them. In a text file,
            each line is a name; give any single field, whose name is ignored.
        names: Paths that an image may have in the folder of the source; `{}` stands for the name of
            the image.
        drop: Prefix that is removed from the name of an image.
    """

    file: str
    fields: tuple[str | int, ...]
    names: tuple[str, ...]
    drop: str = ""


@dataclass(frozen=True)
class Source:
    """A dataset or a set of weights: how to fetch it, and what a complete copy has."""

    name: str  # as in `cae data get NAME`
    title: str
    kind: str  # "weights", or what a data set is for
    homepage: str  # page that describes it
    licence: str  # short name of the licence, or that none is given
    terms: str  # what the licence demands, in a sentence
    folder: str  # below data/raw
    files: tuple[Download, ...]
    gb: float | None = None  # rough size of the downloads
    gated: str | None = None  # page where the terms have to be accepted first; None if nowhere
    needs: tuple[str, ...] = ()  # names of the sources whose images this one uses
    links: Mapping[str, str] = field(default_factory=dict)  # path of a symbolic link: its target
    rows: tuple[ExpectedRows, ...] = ()
    images: tuple[ReferencedImages, ...] = ()
    note: str = ""  # what else one should know

    @property
    def root(self) -> Path:
        """Folder of the source, below `data/raw`."""
        return paths().raw / self.folder

    @property
    def download_folder(self) -> Path:
        """Folder of downloaded archives, into which the user may also put archives by hand."""
        return paths().raw / "downloads" / self.name

    def local_path(self, download: Download) -> Path:
        """Return where a download is saved; weights in the hub's cache have no such path."""
        if download.unpack:
            # Archives are apart from what they unpack to, and the user may put them there.
            return self.download_folder / download.name
        return self.root / (download.to or download.path or ".")


@lru_cache(maxsize=4)
def load_sources(path: Path = SOURCES_FILE) -> Mapping[str, Source]:
    """Read all sources, and return them by name; the result is cached."""
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
    # A new benchmark may have no entry yet; it can be counted all the same.
    for family in BENCHMARK_FAMILIES.values():
        for name in family.source_names:
            new = Source(name, name, "benchmark", "", "unknown", "", family.folder, ())
            sources.setdefault(name, new)
    return sources


def _build(kind: type, entry: dict[str, Any]) -> Any:
    """Build a dataclass from a mapping whose lists become tuples."""
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()})


def find_source(name: str) -> Source:
    """Look up a source by its name in `sources.yml`; underscores may stand for its hyphens."""
    sources = load_sources()
    if (plain := name.replace("_", "-")) not in sources:
        raise ConfigError(f"no data set or weights {name!r}. Known: {', '.join(sources)}.")
    return sources[plain]


def fetch_command(names: Iterable[str]) -> str:
    """Return the shell command that fetches the named sources and all that they need."""
    # A dict as a set in order: what a source needs comes before it.
    fetched: dict[str, None] = {}

    def add(name: str) -> None:
        # None if the benchmark was registered after the sources were read.
        entry = load_sources().get(name)
        for needed in entry.needs if entry else ():
            add(needed)
        fetched[name] = None

    for name in names:
        add(name)
    return f"cae data get {' '.join(fetched)}"


def expand_braces(pattern: str) -> list[str]:
    """Expand the braces of a pattern: `x/{1,2}.csv` gives `x/1.csv` and `x/2.csv`."""
    parts = re.split(r"\{([^}]*)\}", pattern)
    # `split` with a group returns the texts inside braces at odd positions.
    options = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(choice) for choice in itertools.product(*options)]
