"""Pictures with class labels: one folder a class, or a list of file names and classes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cae_lib.errors import DataError

LIST = "labels.csv"
COLUMNS = ("image", "label")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


@dataclass(frozen=True)
class LabelledImages:
    """Pictures and the classes that they show.

    Attributes:
        paths: Picture files.
        labels: For each picture, the positions of its classes in `classes`.
        classes: Names of the classes, as a prompt words them.
        n_expected: Pictures that there should be.
    """

    paths: Sequence[Path]
    labels: Sequence[tuple[int, ...]]
    classes: Sequence[str]
    n_expected: int


def load_labelled_folder(folder: str | Path) -> LabelledImages:
    """Read a set of pictures with one class each.

    The folder holds either `labels.csv` with the columns `image` (relative to the folder) and
    `label`, or one folder of pictures for each class. An underscore in a class stands for a space.

    Raises:
        DataError: There is no picture, or the list is malformed or names a file that is missing.
    """
    folder = Path(folder)
    rows = _listed(folder) if (folder / LIST).is_file() else _by_folder(folder)
    if not rows:
        raise DataError(
            f"{folder}: no labelled picture. Expected {LIST} with the columns "
            f"{' and '.join(COLUMNS)}, or one folder of pictures for each class."
        )
    classes = sorted({label for _, label in rows})
    place = {label: number for number, label in enumerate(classes)}
    return LabelledImages(
        paths=[path for path, _ in rows],
        labels=[(place[label],) for _, label in rows],
        classes=[label.replace("_", " ") for label in classes],
        n_expected=len(rows),
    )


def _listed(folder: Path) -> list[tuple[Path, str]]:
    path = folder / LIST
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if not set(COLUMNS) <= set(reader.fieldnames or ()):
            raise DataError(
                f"{path}: its columns are {reader.fieldnames}; expected {', '.join(COLUMNS)}."
            )
        rows = [(folder / (row["image"] or ""), (row["label"] or "").strip()) for row in reader]
    for number, (picture, label) in enumerate(rows, start=2):
        if not picture.is_file() or not label:
            raise DataError(
                f"{path}, line {number}: picture {picture.name!r}, label {label!r}; expected a "
                "picture that is there and its class. Complete the pictures or correct the line."
            )
    return rows


def _by_folder(folder: Path) -> list[tuple[Path, str]]:
    return [
        (picture, place.name)
        for place in sorted(folder.glob("*"))
        if place.is_dir()
        for picture in sorted(place.iterdir())
        if picture.suffix.lower() in SUFFIXES
    ]
