"""Pictures with class labels: one folder a class, or a list of file names and classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cae_lib.data import rows
from cae_lib.errors import DataError

LIST = "labels.csv"
COLUMNS = ("image", "label")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


@dataclass(frozen=True)
class LabelledImages:
    """Picture files, the positions of the classes of each in `classes`, which are named as a prompt
    words them, and how many are expected."""

    paths: Sequence[Path]
    labels: Sequence[tuple[int, ...]]
    classes: Sequence[str]
    n_expected: int


def load_labelled_folder(folder: str | Path) -> LabelledImages:
    """Read a set of pictures with one class each: `labels.csv` with the columns `image` (relative
    to the folder) and `label`, or one folder of pictures for each class. An underscore in a class
    stands for a space. DataError if there is no picture, or the list is malformed or names a file
    that is missing."""
    folder = Path(folder)
    found = (
        _listed(folder)
        if (folder / LIST).is_file()
        else [
            (picture, place.name)
            for place in sorted(folder.glob("*/"))
            for picture in sorted(place.iterdir())
            if picture.suffix.lower() in SUFFIXES
        ]
    )
    if not found:
        raise DataError(
            f"{folder}: no labelled picture. Expected {LIST} with the columns "
            f"{' and '.join(COLUMNS)}, or one folder of pictures for each class."
        )
    classes = {label: number for number, label in enumerate(sorted({label for _, label in found}))}
    labels = [(classes[label],) for _, label in found]
    names = [label.replace("_", " ") for label in classes]
    return LabelledImages([path for path, _ in found], labels, names, len(found))


def _listed(folder: Path) -> list[tuple[Path, str]]:
    found, advice = [], "Complete the pictures or correct the line."
    for line, row in rows.read_csv(folder / LIST, COLUMNS):
        with rows.in_row(folder / LIST, f"line {line}", advice):
            picture, label = folder / rows.text(row, "image"), rows.text(row, "label").strip()
            if not picture.is_file():
                raise rows.RowError(f"picture {picture.name!r} is not there")
            found.append((picture, label))
    return found
