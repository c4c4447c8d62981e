"""Readers of annotation files, and checks of their rows, whose errors say which row is at fault."""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cae_lib.errors import DataError
from cae_lib.runtime import write_atomic

_END = "\x1fend of file"
DELIMITERS = {".csv": ",", ".tsv": "\t"}
KINDS = {"list": list, "keyed": dict}


class RowError(ValueError):
    """A row that is not what the layout promises; says which field and what was expected."""


@contextmanager
def in_row(path: Path, row: str, advice: str = "Fetch the file again.") -> Iterator[None]:
    """Turn a `RowError` inside into a `DataError` that names the file and the row."""
    try:
        yield
    except RowError as error:
        raise DataError(f"{path}, {row}: {error}. {advice}") from error


def read_text(path: Path) -> str:
    """Read a UTF-8 annotation file, with or without a byte order mark, its line ends as they are;
    `DataError` if it is none."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no such annotation file. Put the data set there in its official layout, or "
            "name another folder, or only the parts that are there."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error  # which would repeat the path
        raise DataError(f"{path}: cannot be read as text ({why}). Fetch it again.") from error


def parse_json(text: str) -> Any:
    """Parse JSON; `RowError` if it is none."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise RowError(
            f"not valid JSON at line {error.lineno}, column {error.colno} ({error.msg})"
        ) from error


def read_json(path: Path, kind: type[list] | type[dict] | None = None) -> Any:
    """Read a JSON file; `DataError` if it is none, or its top level is not of the `kind`."""
    with in_row(path, "top level"):
        content = parse_json(read_text(path))
        if kind and not isinstance(content, kind):
            raise RowError(f"is a {type(content).__name__}, a {kind.__name__} was expected")
    return content


def read_csv(
    path: Path, columns: tuple[str, ...] = (), delimiter: str = ","
) -> Iterator[tuple[int, dict | list]]:
    """Yield `(line number, row)` of a file of separated values with a header.

    Quotes are read leniently, as the official scripts read them, and fields may be of any length
    and hold line breaks; the number is that of the row's last line. A row with fewer or more
    fields than the header comes as a plain list, for the caller to refuse.

    Raises:
        DataError: If the file is missing, lacks one of `columns`, or ends inside a quoted field.
    """
    csv.field_size_limit(sys.maxsize)
    content = read_text(path).rstrip("\r\n") + "\n" + _END
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter)
    header = next(reader)
    missing = [name for name in columns if name not in header]
    if missing:
        raise DataError(
            f"{path}: the header lacks {', '.join(missing)}; expected {', '.join(columns)}. Check "
            "that this is the right file and that its first line is the header."
        )
    for row in reader:
        if row == [_END]:
            return
        if row:
            fits = len(row) == len(header)
            yield reader.line_num, dict(zip(header, row, strict=True)) if fits else row
    raise DataError(f"{path}: the file ends inside a quoted field: cut short, fetch it again.")


def read_table(path: Path, folder: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet table of the hub, whose pictures are unpacked into a folder, where
    their content names them: one that came as bytes becomes `{"path": name}`."""
    import pandas as pd
    from pyarrow import ArrowInvalid

    def plain(cell: Any) -> Any:
        if not (isinstance(cell, dict) and cell.get("bytes")):
            return cell
        name = f"{hashlib.sha256(cell['bytes']).hexdigest()[:16]}.jpg"
        if not (folder / name).is_file():
            write_atomic(folder / name, cell["bytes"])
        return {"path": name}

    try:
        found = pd.read_parquet(path).to_dict("records")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such annotation file. Fetch it.") from error
    except (OSError, ArrowInvalid) as error:
        raise DataError(f"{path}: cannot be read ({error}). Fetch it again.") from error
    return [{name: plain(cell) for name, cell in row.items()} for row in found]


def read_rows(
    path: Path, form: str = "", columns: tuple[str, ...] = ()
) -> Iterator[tuple[str, str, Any]]:
    """Yield key, name for errors, and content of each row of a file of JSON, separated values, or
    lines of text, those of JSON not parsed.

    `form` is "list" or "keyed" for JSON of that kind, "lines" for lines whatever the file's ending;
    "" goes by the ending. `columns` are needed of separated values.
    """
    if form == "lines" or path.suffix not in (".json", *DELIMITERS):
        for number, line in enumerate(read_text(path).split("\n")):
            if line.strip():
                yield str(number), f"line {number + 1}", line
    elif path.suffix in DELIMITERS:
        for line, row in read_csv(path, columns, DELIMITERS[path.suffix]):
            yield str(line), f"row ending at line {line}", row
    else:
        content = read_json(path, KINDS.get(form))
        with in_row(path, "top level"):
            if not isinstance(content, list | dict):
                raise RowError(f"is a {type(content).__name__}, a list or dict was expected")
        for key, row in content.items() if isinstance(content, dict) else enumerate(content):
            yield str(key), f"row {key}", row


def value(entry: object, key: str) -> Any:
    """Field `key` of a row, or a place further in by its path: `1.POS.0` is of `["x", {"POS":
    ["y"]}]` the text "y". `RowError` if the row is no mapping or lacks the field."""
    for step in key.split("."):
        if isinstance(entry, list) and step.isdecimal():
            entry = entry[int(step)] if int(step) < len(entry) else None
        elif isinstance(entry, list):
            raise RowError(f"has {len(entry)} fields, those of the header were expected")
        elif isinstance(entry, Mapping):
            entry = entry.get(step)
        else:
            raise RowError(f"is a {type(entry).__name__}, an object with fields was expected")
        if entry is None:
            raise RowError(f"has no field '{key}'")
    return entry


def text(entry: object, key: str) -> str:
    """Field `key` as the text that it is, line breaks and outer spaces kept; not blank."""
    found = value(entry, key)
    if not isinstance(found, str) or not found.strip():
        raise RowError(f"field '{key}' is {found!r}, a text was expected")
    return found


def texts(entry: object, key: str, least: int = 1) -> tuple[str, ...]:
    """Field `key` as a list of at least so many texts, none of them blank."""
    found = value(entry, key)
    if not is_texts(found) or len(found) < least:
        raise RowError(f"field '{key}' is {found!r}, a list of {least} texts or more was expected")
    return tuple(found)


def is_texts(found: object) -> bool:
    """Whether a value is a list of texts that are not blank."""
    return isinstance(found, list) and all(isinstance(t, str) and t.strip() for t in found)


def number(entry: object, key: str) -> float:
    """Field `key` as a finite number, also when it is written as text."""
    found = value(entry, key)
    try:
        result = float(found)
    except (TypeError, ValueError):
        result = math.nan
    if isinstance(found, bool) or not math.isfinite(result):
        raise RowError(f"field '{key}' is {found!r}, a number was expected")
    return result


def box(entry: object, *keys: str) -> tuple[float, float, float, float]:
    """Crop `(x, y, x + width, y + height)` in pixels from the fields x, y, width and height."""
    left, top, wide, high = (number(entry, key) for key in keys)
    if wide <= 0 or high <= 0:
        raise RowError(f"the box is {wide:g} x {high:g} pixels, a positive size was expected")
    return left, top, left + wide, top + high


def literal(entry: object, key: str, kind: type = str) -> list[Any]:
    """Field `key` as the Python list or set that it is written as, its elements of one `kind`."""
    cell = text(entry, key)
    found = None
    try:
        node = ast.parse(cell.strip(), mode="eval").body
        if isinstance(node, ast.List | ast.Set):
            found = [ast.literal_eval(element) for element in node.elts]
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    if found is None or not all(isinstance(element, kind) for element in found):
        name = {str: "texts", int: "whole numbers"}[kind]
        raise RowError(f"field '{key}' is {cell[:60]!r}, a Python list of {name} was expected")
    return found
