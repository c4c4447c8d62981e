"""Picture files of benchmarks: whether one can be used, and those that come inside of tables."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from PIL import Image

from cae_lib.data.rows import RowError
from cae_lib.errors import DataError
from cae_lib.runtime import write_atomic

SHOWN = 10
"""Rows of a set that are named at most."""


def fault(path: Path) -> str:
    """Why a file cannot be decoded to its end, by what Pillow says, as of a web page or a download
    that broke off; "" if it can, or is missing."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return _fault(path, status.st_size, status.st_mtime_ns)


def trouble(path: Path) -> str:
    """Why a picture cannot be used, as the end of a sentence; "" if it can."""
    why = fault(path)
    return (why and f"cannot be decoded ({why})") if path.is_file() else "is missing"


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


@cache
def tell(message: str) -> None:
    """Print a message, each but once."""
    print(message, flush=True)


def tell_left_out(name: str, file: Path, used: int, expected: int,
                  left_out: Sequence[tuple[str, str]]) -> None:
    """Print how many rows of a set's file are left out, as (row, reason), beside the numbers of
    those used and expected, and the first ones; if none is used, the first one. Those without a
    picture come last: of an incomplete set they are many."""
    told = sorted(left_out, key=lambda each: each[1].endswith("is missing"))
    first = "".join(f"\n  {row}: {why}" for row, why in told[: SHOWN if used else 1])
    if left_out:
        tell(f"Left out: {len(left_out):,} rows of {name}, {file}; {used:,} used of {expected:,} "
             f"expected{first}")


def read_parquet(path: Path) -> list[dict[str, Any]]:
    """The rows of a table; `DataError` if it cannot be read."""
    try:
        return pd.read_parquet(path).to_dict("records")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such annotation file. Fetch it.") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: cannot be read ({error}). Fetch it again.") from error


def unpacked(image: Any, folder: Path, key: str = "image") -> Path:
    """The file of a picture as the hub's tables hold it in the field `key`: below `folder` by its
    path, or written there, named by its content, if it comes as bytes. `RowError` if neither is
    there."""
    if not isinstance(image, dict) or not (image.get("bytes") or image.get("path")):
        raise RowError(f"field '{key}' holds neither bytes nor a path; a picture was expected")
    if not image.get("bytes"):
        return folder / image["path"]
    path = folder / f"{hashlib.sha256(image['bytes']).hexdigest()[:16]}.jpg"
    if not path.is_file():
        write_atomic(path, image["bytes"])
    return path
