"""Read the rows of annotation files; errors name the file, the row and what was expected."""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cae_lib.errors import DataError, MissingDataError
from cae_lib.runtime import write_atomic

_END = "\x1fend of file"
DELIMITERS = {".csv": ",", ".tsv": "\t"}


class MissingFileError(MissingDataError):
    """An annotation file that does not exist."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of an annotation file.

    Its methods return one field each, and raise a DataError that names file, row and field if the
    field is missing or has another type.

    Attributes:
        path: The annotation file.
        place: What errors call the row, for example "row 3".
        content: A mapping, a list, or a line of text.
        key: The key of the row in a JSON object, else its position or line number.
    """

    path: Path
    place: str
    content: Any
    key: str = ""

    def error(self, problem: str) -> DataError:
        """Return the error that says what is wrong with the row."""
        return DataError(f"{self.path}, {self.place}: {problem}. Fetch the file again.")

    def value(self, field: str) -> Any:
        """Return a field, or a nested value by its path.

        `1.POS.0` is "y" in the row `["x", {"POS": ["y"]}]`.
        """
        inner = self.content
        for step in field.split("."):
            if isinstance(inner, list) and step.isdecimal():
                inner = inner[int(step)] if int(step) < len(inner) else None
            elif isinstance(inner, list):
                raise self.error(f"has {len(inner)} fields, those of the header were expected")
            elif isinstance(inner, Mapping):
                inner = inner.get(step)
            else:
                kind = type(inner).__name__
                raise self.error(f"is a {kind}, an object with the field '{field}' was expected")
            if inner is None:
                raise self.error(f"has no field '{field}'")
        return inner

    def text(self, field: str) -> str:
        """Return a text that is not blank, unchanged."""
        value = self.value(field)
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"field '{field}' is {value!r}, a text was expected")
        return value

    def texts(self, field: str, at_least: int = 1) -> tuple[str, ...]:
        """Return a list of texts, none of them blank."""
        value = self.value(field)
        if not is_list_of_texts(value) or len(value) < at_least:
            raise self.error(
                f"field '{field}' is {value!r}, a list of {at_least} texts or more was expected"
            )
        return tuple(value)

    def number(self, field: str) -> float:
        """Return a finite number, which may be written as text."""
        value = self.value(field)
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if isinstance(value, bool) or not math.isfinite(number):
            raise self.error(f"field '{field}' is {value!r}, a number was expected")
        return number

    def box(self, x: str, y: str, width: str, height: str) -> tuple[float, float, float, float]:
        """Return the crop `(left, top, right, bottom)` from the fields of a box in pixels."""
        left, top, wide, high = (self.number(field) for field in (x, y, width, height))
        if wide <= 0 or high <= 0:
            raise self.error(f"the box is {wide:g} x {high:g} pixels, a positive size was expected")
        return left, top, left + wide, top + high

    def literal(self, field: str, kind: type = str) -> list[Any]:
        """Return a field that is written as a Python list or set of elements of one `kind`."""
        cell = self.text(field)
        elements = None
        try:
            node = ast.parse(cell.strip(), mode="eval").body
            if isinstance(node, ast.List | ast.Set):
                elements = [ast.literal_eval(element) for element in node.elts]
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            pass
        if elements is None or not all(isinstance(element, kind) for element in elements):
            name = {str: "texts", int: "whole numbers"}[kind]
            raise self.error(
                f"field '{field}' is {cell[:60]!r}, a Python list of {name} was expected"
            )
        return elements


def is_list_of_texts(value: object) -> bool:
    """Return whether a value is a list of texts that are not blank."""
    return isinstance(value, list) and all(isinstance(text, str) and text.strip() for text in value)


def read_text(path: Path) -> str:
    """Read a UTF-8 file, with or without a byte order mark; its line ends stay as they are."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise MissingFileError(
            f"{path}: no such annotation file. Put the dataset there in its official layout, or "
            "name another folder."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: cannot be read as text ({reason}). Fetch it again.") from error


def read_json(path: Path, *kinds: type[list] | type[dict]) -> Any:
    """Read a JSON file of a list or an object; DataError if it is malformed or not of the `kinds`.

    Without `kinds` both are read.
    """
    top = Row(path, "top level", read_text(path))
    content = parse_json(top)
    kinds = kinds or (list, dict)
    if not isinstance(content, kinds):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise top.error(f"is a {type(content).__name__}, a {expected} was expected")
    return content


def parse_json(row: Row) -> Any:
    """Parse the text that a row holds."""
    try:
        return json.loads(row.content)
    except json.JSONDecodeError as error:
        raise row.error(
            f"not valid JSON at line {error.lineno}, column {error.colno} ({error.msg})"
        ) from error


def json_rows(path: Path, *kinds: type[list] | type[dict]) -> Iterator[Row]:
    """Yield the rows of a JSON file that holds a list or an object of them."""
    content = read_json(path, *kinds)
    for key, row in content.items() if isinstance(content, dict) else enumerate(content):
        yield Row(path, f"row {key}", row, str(key))


def text_rows(path: Path) -> Iterator[Row]:
    """Yield the lines of a text file that are not blank."""
    for number, line in enumerate(read_text(path).split("\n")):
        if line.strip():
            yield Row(path, f"line {number + 1}", line, str(number))


def json_lines(path: Path) -> Iterator[Row]:
    """Yield the rows of a file of one JSON value a line."""
    for row in text_rows(path):
        yield Row(path, row.place, parse_json(row), row.key)


def csv_rows(path: Path, columns: tuple[str, ...] = (), delimiter: str = ",") -> Iterator[Row]:
    """Yield the rows of a file of separated values with a header; keys are line numbers.

    Quotes are read leniently, as the official scripts read them. Fields may be of any length and
    hold line breaks; the line number is that of the row's last line. A row with fewer or more
    fields than the header keeps them as a list, so that `Row.value` refuses it.

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
    for cells in reader:
        if cells == [_END]:
            return
        if cells:
            row = dict(zip(header, cells, strict=True)) if len(cells) == len(header) else cells
            line = reader.line_num
            yield Row(path, f"row ending at line {line}", row, str(line))
    raise DataError(f"{path}: the file ends inside a quoted field: cut short, fetch it again.")


def parquet_rows(path: Path, image_folder: Path) -> Iterator[Row]:
    """Yield the rows of a Parquet table of the Hugging Face hub.

    An image that is stored as bytes is written to `image_folder` as HASH.jpg, whatever its format,
    where HASH depends on its content, and is replaced by `{"path": "HASH.jpg"}` in the row.

    Raises:
        MissingFileError: If there is no such file.
        DataError: If it cannot be read.
        WriteError: If an image cannot be written.
    """
    import pandas as pd
    from pyarrow import ArrowInvalid

    def unpacked(cell: Any) -> Any:
        if not (isinstance(cell, dict) and cell.get("bytes")):
            return cell
        name = f"{hashlib.sha256(cell['bytes']).hexdigest()[:16]}.jpg"
        if not (image_folder / name).is_file():
            write_atomic(image_folder / name, cell["bytes"])
        return {"path": name}

    try:
        records = pd.read_parquet(path).to_dict("records")
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: no such annotation file. Fetch it.") from error
    except (OSError, ArrowInvalid) as error:
        raise DataError(f"{path}: cannot be read ({error}). Fetch it again.") from error
    for number, record in enumerate(records):
        content = {name: unpacked(cell) for name, cell in record.items()}
        yield Row(path, f"row {number}", content, str(number))


def rows_of(path: Path) -> Iterator[Row]:
    """Yield the rows of a file; its suffix tells whether it is JSON, separated values or lines."""
    if path.suffix in DELIMITERS:
        return csv_rows(path, (), DELIMITERS[path.suffix])
    if path.suffix == ".jsonl":
        return json_lines(path)
    return json_rows(path) if path.suffix == ".json" else text_rows(path)
