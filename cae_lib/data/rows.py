"""Read the rows of annotation files; errors name the file, the row and what was expected."""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cae_lib.errors import DataError, MissingDataError
from cae_lib.runtime import write_atomic

_END = "\x1fend of file"  # line that `csv_rows` appends, to detect a quoted field that is open
DELIMITERS = {".csv": ",", ".tsv": "\t"}


class MissingFileError(MissingDataError):
    """An annotation file that does not exist."""


class EmptyFileError(DataError):
    """An annotation file without rows."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of an annotation file, with methods that read and check the fields of the row.

    Each of them raises a DataError that names file, row and field if the field is missing, null, or
    of another type.

    Attributes:
        location: Name of the row in error messages, for example "row 3".
        content: A mapping from fields to values, a list of values, a line of text, or another JSON
            value.
        key: Name of the row in its file: its key in a JSON object, the number of its last line in a
            CSV file (from 1), or else its position counted from 0, including blank lines.
    """

    path: Path
    location: str
    content: Any
    key: str = ""

    def error(self, problem: str) -> DataError:
        """Return a DataError that names the file and the row and says what is wrong with it."""
        return DataError(
            f"{self.path}, {self.location}: {problem}. Mend the file, or fetch it again."
        )

    def value(self, field: str) -> Any:
        """Return the value of a field, or of a path of fields and positions.

        `1.POS.0` is "y" in the row `["x", {"POS": ["y"]}]`.
        """
        inner = self.content
        steps = field.split(".")
        for number, step in enumerate(steps, start=1):
            if isinstance(inner, list) and step.isdecimal():
                is_there = int(step) < len(inner)
                inner = inner[int(step)] if is_there else None
            # `csv_rows` keeps a row as a list if it has more or fewer fields than the header.
            elif isinstance(inner, list):
                raise self.error(f"has {len(inner)} fields, those of the header were expected")
            elif isinstance(inner, Mapping):
                is_there = step in inner
                inner = inner.get(step)
            else:
                kind = type(inner).__name__
                raise self.error(f"is a {kind}, an object with the field '{field}' was expected")
            if inner is None and is_there:
                raise self.error(f"field '{'.'.join(steps[:number])}' is null")
            if inner is None:
                raise self.error(f"has no field '{field}'")
        return inner

    def values(self, field: str) -> list[Any]:
        """Return the list in a field, whatever its entries are."""
        value = self.value(field)
        if not isinstance(value, list):
            raise self.error(f"field '{field}' is {_shown(value)}, a list was expected")
        return value

    def text(self, field: str) -> str:
        """Return the text in a field, which must not be blank."""
        value = self.value(field)
        # White space at its ends is kept: it is part of the official caption.
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"field '{field}' is {_shown(value)}, a text was expected")
        return value

    def texts(self, field: str, at_least: int = 1) -> tuple[str, ...]:
        """Return the `at_least` or more texts of the list in a field, none of them blank."""
        value = self.value(field)
        if not is_list_of_texts(value) or len(value) < at_least:
            raise self.error(
                f"field '{field}' is {_shown(value)}, a list of {at_least} texts or more was "
                "expected"
            )
        return tuple(value)

    def number(self, field: str) -> float:
        """Return the finite number in a field, which may be written as text."""
        value = self.value(field)
        try:
            number = float(value)
        # Whole numbers in JSON may be too large for a float.
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        # `float(True)` is 1.
        if isinstance(value, bool) or not math.isfinite(number):
            raise self.error(f"field '{field}' is {_shown(value)}, a number was expected")
        return number

    def integer(self, field: str) -> int:
        """Return the whole number in a field, which may be written as text or as 7.0."""
        number = self.number(field)
        if not number.is_integer():
            raise self.error(f"field '{field}' is {number:g}, a whole number was expected")
        return int(number)

    def box(self, x: str, y: str, width: str, height: str) -> tuple[float, float, float, float]:
        """Return the edges `(left, top, right, bottom)` of a box in four fields, in pixels."""
        left, top, wide, high = (self.number(field) for field in (x, y, width, height))
        if wide <= 0 or high <= 0:
            raise self.error(f"the box is {wide:g} x {high:g} pixels, a positive size was expected")
        return left, top, left + wide, top + high

    def literal_list(self, field: str, element_type: type = str) -> list[Any]:
        """Parse the text of a field as a Python list or set of `str` or `int`, in its order."""
        cell = self.text(field)
        elements = None
        try:
            # Element by element, because a set would lose its order and its repetitions.
            node = ast.parse(cell.strip(), mode="eval").body
            if isinstance(node, ast.List | ast.Set):
                parsed = [ast.literal_eval(element) for element in node.elts]
                _require_unicode(parsed)
                elements = parsed
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            pass
        if elements is None or not all(isinstance(element, element_type) for element in elements):
            name = {str: "texts", int: "whole numbers"}[element_type]
            raise self.error(
                f"field '{field}' is {cell[:60]!r}, a Python list of {name} was expected"
            )
        return elements


def _shown(value: object) -> str:
    """Return a value as an error message shows it: its beginning, if it is long."""
    try:
        text = repr(value)
    # Python does not write out whole numbers of thousands of digits.
    except ValueError:
        return f"a {type(value).__name__} that is too long to show"
    return text if len(text) <= 200 else f"{text[:200]}..."


def is_list_of_texts(value: object) -> bool:
    """Return whether a value is a list, possibly empty, of texts that are not blank."""
    return isinstance(value, list) and all(isinstance(text, str) and text.strip() for text in value)


def read_text(path: Path) -> str:
    """Read a UTF-8 file with or without a byte order mark, without converting its line ends."""
    try:
        # Not `read_text`, which would turn the line ends of quoted fields into "\n".
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
    """Read a JSON file that holds one of `kinds`, or a list or an object if none is named."""
    top = Row(path, "top level", read_text(path))
    content = _parse_json(top)
    kinds = kinds or (list, dict)
    if not isinstance(content, kinds):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise top.error(f"is a {type(content).__name__}, a {expected} was expected")
    return content


def _parse_json(row: Row) -> Any:
    """Parse the content of a row, which is a text, as JSON with distinct keys and valid Unicode."""
    try:
        content = json.loads(row.content, object_pairs_hook=_object_of_pairs)
        # Only escapes such as \ud83d can be half of a surrogate pair; without any, the slower check
        # is left out.
        if "\\ud" in row.content.lower():
            _require_unicode(content)
        return content
    except json.JSONDecodeError as error:
        raise row.error(
            f"not valid JSON at line {error.lineno}, column {error.colno} ({error.msg})"
        ) from error
    # A key twice, a number of thousands of digits, deep nesting.
    except (ValueError, RecursionError) as error:
        raise row.error(f"not valid JSON ({error})") from error


def _require_unicode(content: Any) -> None:
    """Raise a ValueError if a string has half of a surrogate pair, which no tokenizer takes."""
    # UTF-8 cannot encode it, and `UnicodeEncodeError` is a ValueError.
    json.dumps(content, ensure_ascii=False).encode()


def _object_of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a mapping; by default, the last of equal keys would count."""
    content = dict(pairs)
    if len(content) < len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"an object has the key {key!r} twice")
    return content


def _no_rows_error(path: Path) -> EmptyFileError:
    return EmptyFileError(f"{path}: the file has no rows, some were expected. Fetch it again.")


def json_rows(path: Path, *kinds: type[list] | type[dict]) -> Iterator[Row]:
    """Yield the rows of a JSON file: the elements of a list, or the values of an object."""
    content = read_json(path, *kinds)
    if not content:
        raise _no_rows_error(path)
    for key, row in content.items() if isinstance(content, dict) else enumerate(content):
        yield Row(path, f"row {key}", row, str(key))


def text_rows(path: Path) -> Iterator[Row]:
    """Yield the lines of a text file that are not blank, each as the content of a row."""
    text = read_text(path)
    if not text.strip():
        raise _no_rows_error(path)
    # Not `splitlines`, which also splits at characters that a text may hold, such as U+2028. A line
    # that ends at CR LF keeps the CR.
    for number, line in enumerate(text.split("\n")):
        if line.strip():
            yield Row(path, f"line {number + 1}", line, str(number))


def jsonl_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a JSON Lines file, which has one JSON value on each line."""
    for row in text_rows(path):
        yield Row(path, row.location, _parse_json(row), row.key)


def csv_rows(path: Path, columns: tuple[str, ...] = (), delimiter: str = ",") -> Iterator[Row]:
    """Yield the rows of a file whose header has at least `columns`, such as CSV or TSV.

    Fields may contain line breaks and be of any length. Empty lines are skipped.
    """
    # The limit of 131,072 characters a field is raised for the whole process.
    csv.field_size_limit(sys.maxsize)
    content = read_text(path).rstrip("\r\n") + "\n" + _END
    # Lenient (`strict` off), as the official scripts read quotes. An open quote is then no error:
    # it takes all that follows into its field, the mark `_END` included.
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter)
    header = next(reader)
    missing = [name for name in columns if name not in header]
    if missing:
        raise DataError(
            f"{path}: the header lacks {', '.join(missing)}; expected {', '.join(columns)}. Check "
            "that this is the right file and that its first line is the header."
        )
    if twice := [name for name in columns if header.count(name) > 1]:
        raise DataError(f"{path}: the header has {', '.join(twice)} twice. Fetch the file again.")
    has_rows = False
    for cells in reader:
        if cells == [_END] and not has_rows:
            raise _no_rows_error(path)
        if cells == [_END]:
            return
        if cells and _END in cells[-1]:
            break
        if cells:
            has_rows = True
            # A row with fewer or more fields is an error only if a column of it is read.
            row = dict(zip(header, cells, strict=True)) if len(cells) == len(header) else cells
            line = reader.line_num
            yield Row(path, f"row ending at line {line}", row, str(line))
    raise DataError(f"{path}: the file ends inside a quoted field: cut short, fetch it again.")


def parquet_rows(path: Path, unpack_images_to: Path) -> Iterator[Row]:
    """Yield the rows of a Parquet table of the Hugging Face hub, and write its images to files.

    The row then has `{"path": "HASH.jpg"}`, whatever the format, in place of an image's bytes.
    """
    import pandas as pd
    from pyarrow import ArrowException

    def unpacked(cell: Any) -> Any:
        content = cell.get("bytes") if isinstance(cell, dict) else None
        if not (content and isinstance(content, bytes)):
            return cell
        # Named by its content, so an image that occurs in several rows is written once.
        name = f"{hashlib.sha256(content).hexdigest()[:16]}.jpg"
        if not (unpack_images_to / name).is_file():
            write_atomic(unpack_images_to / name, content)
        return {"path": name}

    try:
        records = pd.read_parquet(path).to_dict("records")
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: no such annotation file. Fetch it.") from error
    except (OSError, ValueError, ArrowException) as error:
        raise DataError(f"{path}: cannot be read ({error}). Fetch it again.") from error
    if not records:
        raise _no_rows_error(path)
    for number, record in enumerate(records):
        content = {name: unpacked(cell) for name, cell in record.items()}
        yield Row(path, f"row {number}", content, str(number))


def rows_of(path: Path) -> Iterator[Row]:
    """Return an iterator over the rows of a .csv, .tsv, .json, .jsonl or text file."""
    # The readers are generators: a file is opened, and errors are raised, at the first row.
    if path.suffix in DELIMITERS:
        return csv_rows(path, (), DELIMITERS[path.suffix])
    if path.suffix == ".jsonl":
        return jsonl_rows(path)
    return json_rows(path) if path.suffix == ".json" else text_rows(path)
