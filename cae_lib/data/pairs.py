"""Image-caption pairs, and how the rows of a file become them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cae_lib.errors import DataError

Missing = Literal["raise", "drop", "ignore"]


@dataclass(frozen=True)
class Pairs:
    """Image-caption pairs; one row is one caption together with its picture.

    `image_index` (n,) gives the row's place in `image_paths`, where each picture stands once.
    `n_expected` counts the rows of the file, `n_used` those kept. Only NegCLIP's files fill
    `negatives` (false captions of each row) and `hard_images` (rows with a similar picture).
    """

    image_paths: list[Path]
    captions: list[str]
    image_index: Tensor
    name: str
    n_used: int
    n_expected: int
    negatives: list[list[str]] | None = None
    hard_images: list[list[int]] | None = None


def kept(pictures: list[Path], missing: Missing, source: Path) -> list[int]:
    """Numbers of the rows to keep; each distinct picture is looked for once.

    Raises:
        DataError: pictures are missing and `missing` is "raise".
    """
    if missing == "ignore":
        return list(range(len(pictures)))
    there = {picture: picture.is_file() for picture in dict.fromkeys(pictures)}
    lost = [i for i, picture in enumerate(pictures) if not there[picture]]
    if lost and missing == "raise":
        raise DataError(
            f"{source}: {len(lost)} of {len(pictures)} rows have no picture, first row {lost[0]}: "
            f'{pictures[lost[0]]}. Complete the pictures, or pass missing="drop" to go on without.'
        )
    return [i for i, picture in enumerate(pictures) if there[picture]]


def checked_pairs(rows: list[tuple[Path, str]], name: str, missing: Missing, src: Path) -> Pairs:
    """Pairs of the rows (picture, caption) that `kept` leaves, of the file `src`."""
    keep = kept([picture for picture, _ in rows], missing, src)
    return pairs_of((rows[i] for i in keep), name, len(rows))


def pairs_of(rows: Iterable[tuple[Path, str]], name: str, n_expected: int) -> Pairs:
    """Pairs of rows (picture, caption), each picture once in `image_paths`."""
    places: dict[Path, int] = {}
    index, captions = [], []
    for picture, caption in rows:
        index.append(places.setdefault(picture, len(places)))
        captions.append(caption)
    image_index = torch.tensor(index, dtype=torch.long)
    return Pairs(list(places), captions, image_index, name, len(captions), n_expected)


def existing(path: str | Path) -> Path:
    """The path of a file; DataError if there is none."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file. Download the data set or correct the path.")
    return path


def read_json(path: Path) -> Any:
    """What a JSON file holds; DataError if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}). Download it again.") from error


def field(path: Path, place: str, value: Any, name: str) -> Any:
    """A field of an object in a file; DataError, with its place, if it is missing."""
    if not isinstance(value, dict) or name not in value:
        raise DataError(f"{path}, {place}: expected an object with the field {name!r}.")
    return value[name]


def text_of(path: Path, row: int, value: Any, column: str) -> str:
    """A text of a row of a file; DataError if it is empty or no text."""
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{path}, row {row}: {column} is {value!r}; expected some text.")
    return value
