"""Incomplete sets: which rows cannot be used, and the one place that refuses a set for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image

from cae_lib.errors import DataError

ALLOW = "allow the set to be incomplete (`--allow-missing`)"
SHOWN = 10
"""Rows of a set that are named at most."""

LeftOut = Sequence[tuple[str, str]]
"""Rows that cannot be used, as errors name them, each with the reason."""


def settle(
    name: str,
    source: Path,
    used: int,
    rows: int,
    expected: int,
    left_out: LeftOut,
    *,
    allowed: bool,
    pictures: str = "Complete the pictures",
) -> None:
    """Refuse a set that is not complete, unless it is `allowed`: then print what it lacks.

    Args:
        name, source: of the set, and its annotation file.
        used, rows, expected: numbers of rows that can be used, that are there and ask something,
            and that there should be.
        left_out: the rows that cannot be used.
        pictures: what to do about missing pictures.

    DataError, which names file, row and reason, and says what to do.
    """
    if allowed:
        _tell_left_out(name, source, used, expected, left_out)
    elif left_out:
        row, why = left_out[0]
        advice = pictures if why.startswith("its picture") else "Fetch the file again"
        raise DataError(
            f"{source}, {row}: {why}. In all {len(left_out)} of {rows} rows cannot be used. "
            f"{advice}, or {ALLOW}, to leave such rows out and count them."
        )
    elif rows != expected:
        raise DataError(
            f"{source}: {rows} items, {expected} expected. Fetch the official file again, or "
            f"{ALLOW}, to go on with both numbers recorded."
        )


def _tell_left_out(name: str, source: Path, used: int, expected: int, left_out: LeftOut) -> None:
    """Print how many rows are left out and the first ones; if none is used, the first one. Those
    without a picture come last: of an incomplete set they are many."""
    told = sorted(left_out, key=lambda each: each[1].endswith("is missing"))
    first = "".join(f"\n  {row}: {why}" for row, why in told[: SHOWN if used else 1])
    if left_out:
        tell(
            f"Left out: {len(left_out):,} rows of {name}, {source}; {used:,} used of {expected:,} "
            f"expected{first}"
        )


@cache
def tell(message: str) -> None:
    """Print a message, each but once."""
    print(message, flush=True)


def trouble(path: Path, inside: bool = True) -> str:
    """Why a picture cannot be used, as the end of a sentence; "" if it can. `inside` looks into
    the file."""
    if not path.is_file():
        return f"its picture {path} is missing"
    why = fault(path) if inside else ""
    return why and f"its picture {path} cannot be decoded ({why})"


def fault(path: Path) -> str:
    """Why a file cannot be decoded to its end, by what Pillow says, as of a web page or a download
    that broke off; "" if it can, or is missing."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return _fault(path, status.st_size, status.st_mtime_ns)


@cache
def _fault(path: Path, size: int, changed: int) -> str:
    """As `fault`, once for each state of a file."""
    if not size:
        return "the file is empty"
    try:
        with Image.open(path) as image:
            image.draft("L", (1, 1))  # which reads all of a JPEG, and computes little
            image.verify() if image.format == "PNG" else image.load()  # a PNG has check sums
    except Exception as error:  # whatever Pillow's readers of broken files raise
        return str(error).replace(f" {str(path)!r}", "") or type(error).__name__
    return ""
