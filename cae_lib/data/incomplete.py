"""Compare the size of a dataset with its expected size, and report which rows are left out."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path

from PIL import Image

from cae_lib.errors import DataError, MissingDataError

MAX_ROWS_LISTED, MAX_MISSING_LISTED = 10, 3
"""Largest numbers of left-out rows of a dataset that are printed one by one: in all, and of those
whose image is missing."""

LeftOut = Sequence[tuple[str, str]]
"""Rows, items or whole parts of a dataset that cannot be used: the name of each in messages, such
as "row 3", and the reason."""


def validate_row_count(path: Path, n_rows: int, n_expected: int, left_out: LeftOut) -> None:
    """Check that a dataset has the expected number of rows, and that all of them can be used.

    Args:
        path: The annotation file, which errors name.
        n_rows: Number of rows in the file.
        n_expected: Number of rows that the file should have.
        left_out: Rows that cannot be used, each with the reason.

    Raises:
        MissingDataError: If rows are missing or cannot be used.
        DataError: If there are too many rows.
    """
    if left_out:
        row, reason = left_out[0]
        raise MissingDataError(
            f"{path}, {row}: {reason}. In all {len(left_out)} of {n_rows} rows cannot be used. "
            "Complete the images."
        )
    if n_rows != n_expected:
        error = MissingDataError if n_rows < n_expected else DataError
        raise error(f"{path}: {n_rows} rows, {n_expected} expected. Fetch the official file again.")


def log_left_out(
    name: str, path: Path, n_used: int, n_expected: int, left_out: LeftOut, advice: str = ""
) -> None:
    """Print how many rows of a dataset are used, and why others are left out.

    Nothing is printed if the expected number of rows is used and none is left out, or if this
    process has printed the same message before. At most `MAX_ROWS_LISTED` of the left-out rows are
    listed, or one if no row is used, and then the number of the others. Rows whose reason ends in
    "is missing", as that of a missing image does, come last, and at most `MAX_MISSING_LISTED` of
    them are listed, because an incomplete dataset may have many. Rows that are not in the
    annotation files are counted, and the message says to fetch these files again.

    Args:
        name: Name of the dataset.
        path: Its annotation file or folder.
        n_used: Number of rows that are used.
        n_expected: Number of rows that the dataset should have.
        left_out: Rows that cannot be used, each with the reason.
        advice: A sentence without full stop about how to complete the dataset; "" for none.
    """
    if n_used == n_expected and not left_out:
        return
    rows = sorted(left_out, key=lambda row: row[1].endswith("is missing"))
    n_present = sum(not reason.endswith("is missing") for _, reason in rows)
    n_listed = min(n_present + MAX_MISSING_LISTED, MAX_ROWS_LISTED) if n_used else 1
    lines = [f"\n  {row}: {reason}" for row, reason in rows[:n_listed]]
    if lines and len(lines) < len(left_out):
        lines.append(f"\n  and {len(left_out) - len(lines):,} more")
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
    print(message, flush=True)


def image_problem(path: Path, decode: bool = True) -> str:
    """Return why an image cannot be used, such as "its image a.jpg is missing".

    Args:
        path: The image file.
        decode: Whether to decode the file, too; otherwise only its existence is checked.

    Returns:
        The reason, which ends in "is missing" only if there is no such file; "" if the image can be
        used.
    """
    if not os.path.isfile(path):  # unlike Path.is_file, this is no error if the name is too long
        return f"its image {path} is missing"
    reason = decoding_problem(path) if decode else ""
    return reason and f"its image {path} cannot be decoded ({reason})"


def decoding_problem(path: Path) -> str:
    """Return why Pillow cannot decode an image file completely.

    Of a PNG, only the check sums are verified, and the pixels are not decoded. The result is "" if
    no problem is found or the file does not exist. It is cached until the size or the modification
    time of the file changes.
    """
    try:
        status = path.stat()
    except OSError:
        return ""
    return _decode_problem(path, status.st_size, status.st_mtime_ns)


@cache
def _decode_problem(path: Path, size: int, changed: int) -> str:
    """Compute the result of `decoding_problem`, once for each path, size and modification time."""
    if not size:
        return "the file is empty"
    try:
        with Image.open(path) as image:
            image.draft("L", (1, 1))  # which reads all of a JPEG, and computes little
            image.verify() if image.format == "PNG" else image.load()  # a PNG has check sums
    except Exception as error:  # whatever Pillow's readers of broken files raise
        return str(error).replace(f" {str(path)!r}", "") or type(error).__name__
    return ""
