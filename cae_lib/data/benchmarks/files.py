"""Readers of annotation files, and checks of their rows, whose errors say which row is at fault."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cae_lib.errors import DataError

_END = "\x1fend of file"


class RowError(ValueError):
    """A row that is not what the layout promises; says which field and what was expected."""


def read_text(path: Path) -> str:
    """Read a UTF-8 annotation file.

    Raises:
        DataError: If the file is missing or is not UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no such annotation file. Put the data set there in its official layout, "
            "or name another folder, or only the parts that are there."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read as text ({error}). Fetch the file again."
        ) from error


def parse_json(text: str, where: str) -> Any:
    """Parse JSON; `where` names the file, and the line if there is one, in the error.

    Raises:
        DataError: If `text` is not JSON.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: not valid JSON at line {error.lineno}, column {error.colno} ({error.msg}). "
            "Fetch the file again."
        ) from error


def read_json(path: Path, kind: type[list] | type[dict]) -> Any:
    """Read a JSON file whose top level has to be a list or a dict.

    Raises:
        DataError: If the file is missing, malformed, or of another shape.
    """
    content = parse_json(read_text(path), str(path))
    if not isinstance(content, kind):
        raise DataError(
            f"{path}: the top level is a {type(content).__name__}, a {kind.__name__} was expected. "
            "Check that this is the official file."
        )
    return content


def read_csv(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict | list]]:
    """Yield `(line number, row)` of a comma-separated file with a header.

    Quotes are read leniently, as the official scripts read them, and fields may be of any length
    and hold line breaks; the number is that of the row's last line. A row with fewer or more
    fields than the header comes as a plain list, for the caller to refuse.

    Raises:
        DataError: If the file is missing, lacks one of `columns`, or ends inside a quoted field.
    """
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.StringIO(read_text(path).rstrip() + "\n" + _END, newline=""))
    header = next(reader)
    missing = [name for name in columns if name not in header]
    if missing:
        raise DataError(
            f"{path}: the header lacks {', '.join(missing)}. Check that this is the official file "
            "and that its first line is the header."
        )
    for row in reader:
        if row == [_END]:
            return
        if row:
            fits = len(row) == len(header)
            yield reader.line_num, dict(zip(header, row, strict=True)) if fits else row
    raise DataError(
        f"{path}: the file ends inside a quoted field. It was cut short; fetch it again."
    )


def value(entry: object, key: str) -> Any:
    """Field `key` of a row.

    Raises:
        RowError: If the row is no mapping or has no such field.
    """
    if isinstance(entry, list):
        raise RowError(f"has {len(entry)} fields, those of the header were expected")
    if not isinstance(entry, Mapping):
        raise RowError(f"is a {type(entry).__name__}, an object with fields was expected")
    if entry.get(key) is None:
        raise RowError(f"has no field '{key}'")
    return entry[key]


def text(entry: object, key: str) -> str:
    """Field `key` of a row as the text that it is, line breaks and outer spaces kept.

    Raises:
        RowError: If the field is absent, is not text, or is blank.
    """
    found = value(entry, key)
    if not isinstance(found, str) or not found.strip():
        raise RowError(f"field '{key}' is {found!r}, a text was expected")
    return found


def number(entry: object, key: str) -> float:
    """Field `key` of a row as a finite number, also when it is written as text.

    Raises:
        RowError: If the field is absent or is no number.
    """
    found = value(entry, key)
    try:
        result = float(found)
    except (TypeError, ValueError):
        result = math.nan
    if isinstance(found, bool) or not math.isfinite(result):
        raise RowError(f"field '{key}' is {found!r}, a number was expected")
    return result


def box(
    entry: object, x: str, y: str, width: str, height: str
) -> tuple[float, float, float, float]:
    """Crop `(x, y, x + width, y + height)` in pixels from the four named fields of a row.

    Raises:
        RowError: If a field is no number, or the box is empty.
    """
    left, top = number(entry, x), number(entry, y)
    wide, high = number(entry, width), number(entry, height)
    if wide <= 0 or high <= 0:
        raise RowError(f"the box is {wide:g} x {high:g} pixels, a positive size was expected")
    return left, top, left + wide, top + high
