"""Text files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from cae_lib.errors import DataError


def write_atomic(path: Path, text: str) -> None:
    """Write a text file whole or not at all: a reader never meets half of it.

    Raises:
        DataError: the place cannot be written; the message says what to do.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=".", suffix=".tmp", delete=False
        ) as stream:
            temporary = Path(stream.name)
            stream.write(text)
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise DataError(
            f"cannot write {path} ({error.strerror or error}): free some space or make the folder "
            "writable, or set CAE_HOME to a folder of your own"
        ) from error
