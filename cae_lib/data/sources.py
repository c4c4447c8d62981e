"""What is known of a data set or weight file: whence it comes, where it goes, what it holds.

The entries of `data/sources.yml` are read into these types by `source_list`. Places are relative:
those of a source to `data/raw`, those of its parts to the source's folder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cae_lib.config import paths

KINDS = ("weights", "pictures", "training", "retrieval", "benchmark", "similarity")
WAYS = ("url", "drive", "hub", "open_clip", "how")
DOWNLOADS = "downloads"


@dataclass(frozen=True)
class Unpack:
    """Where the content of an archive goes.

    Attributes:
        to: Folder below the source's folder.
        only: Beginnings of the members' paths to take, after `drop_top`; empty takes all.
        drop_top: Leave out the one folder that holds everything else, if the archive has one.
    """

    to: str = "."
    only: tuple[str, ...] = ()
    drop_top: bool = False


@dataclass(frozen=True)
class Item:
    """One file to fetch, in one of five ways.

    Attributes:
        url: Address of a plain download.
        drive: Id of a file at Google Drive.
        hub: Hugging Face repository, `datasets/OWNER/NAME` or `OWNER/NAME`; `path` is the file in
            it, or None for the whole repository.
        open_clip: Model and tag; open_clip keeps these weights in its own cache, under the name
            of the hub repository `cache`.
        how: What a person has to do; the only way where no address is open or known.
        file: Name of an archive among the downloads; by default the last part of the address.
        to: Place of a plain file below the source's folder; "." for a whole repository.
        unpack: What an archive holds, and where that goes; empty for a plain file.
        bytes: Size of the download, where known.
        sha256: Of the download, where known; otherwise it is recorded at the first one.
    """

    url: str | None = None
    drive: str | None = None
    hub: str | None = None
    path: str | None = None
    open_clip: tuple[str, ...] = ()
    cache: str | None = None
    how: str | None = None
    file: str = ""
    to: str | None = None
    unpack: tuple[Unpack, ...] = ()
    bytes: int | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        """Name of the file among the downloads, or what stands for it."""
        address = self.file or self.to or self.path or self.hub or " ".join(self.open_clip)
        return address.rsplit("/", 1)[-1]

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
        file: Path below the source's folder; `{a,b}` stands for several, `*` for any.
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
        field: Keys or positions of the fields that name a picture.
        folders: Folders, below the source's, that a picture may lie in.
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
        gated: Page where the terms have to be accepted first.
        folder: Place below `data/raw`.
        gb: Rough size of the downloads in GB; None if not known.
        needs: Other sources whose pictures this one shows.
        get: What to fetch.
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

    @property
    def root(self) -> Path:
        """The source's folder."""
        return paths().raw / self.folder

    @property
    def downloads(self) -> Path:
        """Folder of its archives, also of those that somebody fetched by hand."""
        return paths().raw / DOWNLOADS / self.name
