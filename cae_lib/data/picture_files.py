"""Picture files of benchmarks: whether one can be used, and those that come inside of tables."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from PIL import Image

from cae_lib.data.rows import RowError
from cae_lib.errors import DataError
from cae_lib.runtime import write_atomic


def fault(path: Path) -> str:
    """Why a file cannot be used as a picture, by what Pillow says of its beginning, as of an empty
    file or a web page; "" if it can, or is missing. One that only ends too early can be used."""
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
            image.verify()
    except Exception as error:  # whatever Pillow's readers of broken files raise
        told = str(error).replace(f" {str(path)!r}", "")
        return "" if "truncated" in told.lower() else told or type(error).__name__
    return ""


@cache
def tell(message: str) -> None:
    """Print a message, each but once."""
    print(message, flush=True)


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
