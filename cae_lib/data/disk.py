"""Whether something fits the disk, asked before it is written."""

from __future__ import annotations

import shutil
from pathlib import Path

from cae_lib.errors import DataError

MARGIN = 200e6


def require_space(folder: Path, needed: float, what: str) -> None:
    """Refuse to begin what would fill the disk.

    Args:
        folder: Existing folder on the disk.
        needed: Bytes to be written; 200 MB more have to stay free.
        what: What is to be written, named in the error.

    Raises:
        DataError: Less is free; says how much is needed and what to do.
    """
    free = shutil.disk_usage(folder).free
    if needed > 0 and free < needed + MARGIN:
        raise DataError(
            f"{what}: needs {format_size(needed + MARGIN)} on the disk of {folder}, "
            f"{format_size(free)} are free. Free some space, or set CAE_HOME to a folder on a "
            "larger disk"
        )


def format_size(size: float) -> str:
    """Bytes for people: "340 kB", "19 GB"."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size / 1e3:.3g} kB"
