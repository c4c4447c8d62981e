"""Write folders of datasets, and know when they are complete."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol

from cae_lib.errors import DataError
from cae_lib.runtime import Progress

MANIFEST = "manifest.json"


class Image(Protocol):
    """Something that can write an image file, or a link to one."""

    def write(self, path: Path) -> None:
        """Write the file."""


class Link(NamedTuple):
    """A link to an image, or to a folder of images."""

    target: Path

    def write(self, path: Path) -> None:
        """Make the link."""
        # Windows has to know whether it is to a folder.
        path.symlink_to(self.target, target_is_directory=not self.target.suffix)


@dataclass
class Dataset:
    """One dataset that is ready to be written.

    Attributes:
        name: Name of its counts in the manifest; for a benchmark, that of its family.
        images: Images by their path below the folder of all datasets.
        texts: Contents of text files by their path.
        counts: Numbers of items that the loader expects, by subset.
        left_out: Reasons why official parts are not written, by part.
    """

    name: str
    images: dict[str, Image] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, path: str, text: str, n_items: int, *subsets: str) -> None:
        """Add a text file, and its number of items for the subsets that a loader reads from it."""
        self.texts[path] = text
        self.counts |= dict.fromkeys(subsets, n_items)


def write_datasets(folder: Path, datasets: Iterable[Dataset], label: str) -> Iterator[Dataset]:
    """Make all datasets, write them into a folder, and yield each one once it is written."""
    # All are made before the first is written, so that the bar knows the number of files.
    complete = []
    with Progress(None, f"{label}: datasets described") as progress:
        for dataset in datasets:
            complete.append(dataset)
            progress.update()
    n_files = sum(len(dataset.images) + len(dataset.texts) for dataset in complete)
    with Progress(n_files, f"{label}: files written") as progress:
        for dataset in complete:
            for path, image in dataset.images.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                image.write(folder / path)
                progress.update()
            for path, text in dataset.texts.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                # newline: the manifest has hashes of texts, which Windows would change
                (folder / path).write_text(text, encoding="utf-8", newline="")
                progress.update()
            yield dataset


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a new folder that replaces `target` when the block ends without an error."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target, since a folder can be moved within one file system only; the old folder
        # goes with the temporary one.
        with TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as temporary:
            new, old = Path(temporary, "new"), Path(temporary, "old")
            new.mkdir()
            yield new
            if target.exists():
                os.replace(target, old)
            os.replace(new, target)
    except OSError as error:
        raise DataError(
            f"{error.filename or target}: cannot be written ({error.strerror or error}). Free some "
            "disk space (up to 200 MB) or make the folder writable, or set CAE_HOME to another "
            "folder, and run the same command again"
        ) from error


def stored_key(folder: Path) -> str | None:
    """Return the key of the configuration that a folder was built with, None if incomplete."""
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["key"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
