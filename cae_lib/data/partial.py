"""A file that has come in part: its bytes, and which version of the file they belong to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from cae_lib.errors import DataError


@dataclass(frozen=True)
class Version:
    """What tells one version of a file from another.

    Attributes:
        validator: Strong ETag or date of last change, as the server gives it; None if it does not.
        total: Size in bytes, if the server says it.
    """

    validator: str | None = None
    total: int | None = None


class Partial:
    """`NAME.part` beside a target, with its version in `NAME.part.json`."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")

    @property
    def size(self) -> int:
        """Bytes that are here."""
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def version(self) -> Version:
        """Version that the bytes belong to; of an unknown one nothing is known."""
        try:
            return Version(**json.loads(self._note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return Version()

    def begin(self, version: Version, start: int) -> None:
        """Note the version before bytes of it are written; from the start, drop older bytes."""
        if start == 0:
            self.discard()
        self._note.write_text(json.dumps(vars(version)), encoding="utf-8")

    def discard(self) -> None:
        """Remove the bytes and the note."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def accept(self, size: int | None, sha256: str | None) -> str:
        """Check the complete file, move it to the target and return its SHA-256.

        Raises:
            DataError: Size or checksum is not the expected one; the bytes are removed.
        """
        found, have = file_sha256(self.path), self.size
        if sha256 is not None and found != sha256:
            self.discard()
            raise DataError(
                f"SHA-256 is {found}, {sha256} was expected. The file was damaged on its way or "
                "has changed at its source; the download was removed"
            )
        if size is not None and have != size:
            self.discard()
            raise DataError(f"{have:,} bytes came, {size:,} were expected")
        self.path.replace(self.target)
        self._note.unlink(missing_ok=True)
        return found


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
