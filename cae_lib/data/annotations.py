"""What annotation files say without being understood: how many rows, and which pictures they name.

The loaders in `benchmarks` read the same files for good; this reader only tells what is missing.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cae_lib.data.sources import Pictures, Rows
from cae_lib.errors import DataError

DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read_rows(path: Path, at: str | None = None, lines: bool = False, skip: int = 0) -> list[Any]:
    """Rows of a JSON, JSON Lines, CSV, TSV or text file.

    Args:
        path: The file; its ending tells the format.
        at: Field of a JSON object that holds the rows.
        lines: Take lines that are not blank, whatever the ending.
        skip: Lines at the beginning to leave out.

    Raises:
        DataError: The file cannot be read in its format.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if lines or path.suffix == ".txt":
            return [line for line in text.split("\n")[skip:] if line.strip()]
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        if path.suffix in DELIMITERS:
            csv.field_size_limit(sys.maxsize)
            source = io.StringIO(text, newline="")
            return list(csv.DictReader(source, delimiter=DELIMITERS[path.suffix]))
        content = json.loads(text)
        content = content[at] if at else content
        return list(content.values()) if isinstance(content, dict) else list(content)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def count_rows(path: Path, rows: Rows) -> int:
    """Number of rows of one file.

    Raises:
        DataError: The file cannot be read in its format.
    """
    return len(read_rows(path, rows.at, rows.lines, rows.skip))


def named_pictures(root: Path, path: Path, pictures: Pictures) -> Iterator[tuple[Path, ...]]:
    """For each picture that a file names, the places it may lie in, once each.

    Args:
        root: Folder that `pictures.folders` are relative to.
        path: An annotation file.
        pictures: Which fields name pictures, and where these lie.

    Raises:
        DataError: The file cannot be read in its format.
    """
    seen: set[str] = set()
    for row in read_rows(path):
        for field in pictures.field:
            name = _name(row, field, pictures)
            if name and name not in seen:
                seen.add(name)
                yield tuple(
                    root / folder / pattern.format(int(name) if "d}" in pattern else name)
                    for folder in pictures.folders
                    for pattern in pictures.names
                )


def _name(row: Any, field: str | int, pictures: Pictures) -> str:
    """A field's text without what does not belong to the file name; "" if there is none."""
    try:
        name = str(row[field]).strip()
    except (KeyError, IndexError, TypeError):
        return ""
    name = name.removeprefix(pictures.drop).removesuffix(".0")
    return name.rsplit("/", 1)[-1] if pictures.base else name
