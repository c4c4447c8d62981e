"""Compare the size of a dataset with its expected size, and report which rows are left out."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path

from PIL import Image

from cae_lib.errors import DataError, MissingDataError

# Left-out rows that are printed one by one: in all, and of those whose image is missing.
MAX_ROWS_LISTED, MAX_MISSING_LISTED = 10, 3

# What cannot be used of a dataset: its name in messages, such as "row 3", and the reason.
LeftOut = Sequence[tuple[str, str]]


def validate_row_count(path: Path, n_rows: int, n_expected: int, left_out: LeftOut) -> None:
    """Check that the annotation file has the expected number of rows, all of which can be used."""
    if left_out:
        row, reason = left_out[0]
        raise MissingDataError(
            f"{path}, {row}: {reason}. In all {len(left_out)} of {n_rows} rows cannot be used. "
            "Complete the images."
        )
    if n_rows != n_expected:
        # Too many rows are no lack of data: another file has the official name.
        error = MissingDataError if n_rows < n_expected else DataError
        raise error(f"{path}: {n_rows} rows, {n_expected} expected. Fetch the official file again.")


def log_left_out(
    name: str, path: Path, n_used: int, n_expected: int, left_out: LeftOut, advice: str = ""
) -> None:
    """Print how many rows of a dataset are used, and why others are left out, unless all are used.

    `path` is the annotation file or folder, `left_out` the rows that cannot be used, and `advice` a
    sentence without full stop about how to complete the dataset.
    """
    if n_used == n_expected and not left_out:
        return
    # Missing images come last and only a few are listed, because an incomplete dataset may have
    # very many, which would hide a broken row.
    rows = sorted(left_out, key=lambda row: row[1].endswith("is missing"))
    n_present = sum(not reason.endswith("is missing") for _, reason in rows)
    n_listed = min(n_present + MAX_MISSING_LISTED, MAX_ROWS_LISTED) if n_used else 1
    lines = [f"\n  {row}: {reason}" for row, reason in rows[:n_listed]]
    if lines and len(lines) < len(left_out):
        lines.append(f"\n  and {len(left_out) - len(lines):,} more")
    # Rows that the annotation files lack are not in `left_out`.
    n_left_out = max(n_expected - n_used, len(left_out))
    counted = f"{n_left_out:,} rows; {n_used:,} used of {n_expected:,} expected"
    if n_absent := n_left_out - len(left_out):
        counted += f". {n_absent:,} are not in its annotation files: remove these, fetch them again"
    advice = f". {advice}" if advice else ""
    log_once(f"Left out of {name}, {path}: {counted}{advice}{''.join(lines)}")


def listed(names: Collection[str]) -> str:
    """Join names by commas: at most `MAX_ROWS_LISTED` of them, and the number of the others."""
    n_more = len(names) - MAX_ROWS_LISTED
    more = f" and {n_more:,} more" if n_more > 0 else ""
    return ", ".join([*names][:MAX_ROWS_LISTED]) + more


@cache
def log_once(message: str) -> None:
    """Print a message unless this process has printed it before."""
    # The cache remembers the messages.
    print(message, flush=True)


def image_problem(path: Path, decode: bool = True) -> str:
    """Return why an image cannot be used; "" if it can.

    The reason ends in "is missing" only if there is no such file, which `log_left_out` reads.
    """
    # Unlike `Path.is_file`, this is no error if the name is too long.
    if not os.path.isfile(path):
        return f"its image {path} is missing"
    reason = decoding_problem(path) if decode else ""
    return reason and f"its image {path} cannot be decoded ({reason})"


def decoding_problem(path: Path) -> str:
    """Return why Pillow cannot decode all of an image file; "" if it can or there is no file."""
    try:
        status = path.stat()
    except OSError:
        return ""
    # A file with another size or modification time is read anew.
    return _decode_problem(path, status.st_size, status.st_mtime_ns)


@cache
def _decode_problem(path: Path, size: int, changed: int) -> str:
    if not size:
        return "the file is empty"
    try:
        with Image.open(path) as image:
            # At the smallest scale, all of a JPEG is read, but little is computed.
            image.draft("L", (1, 1))
            # A PNG has check sums, which are verified without decoding its pixels.
            image.verify() if image.format == "PNG" else image.load()
    # Pillow's readers of broken files raise errors of many types.
    except Exception as error:
        # Without the path, which the caller's message has in front.
        return str(error).replace(f" {str(path)!r}", "") or type(error).__name__
    return ""
