"""Images with class labels: one folder a class, or a list of file names and classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cae_lib.data.rows import csv_rows
from cae_lib.errors import DataError

LABELS_FILE = "labels.csv"
COLUMNS = ("image", "label")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


@dataclass(frozen=True)
class LabelledImages:
    """Image files and their classes.

    Attributes:
        paths: The files.
        labels: Of each image the positions of its classes in `classes`.
        classes: Names of the classes as a prompt words them.
        n_expected: Number of images that there should be.
    """

    paths: Sequence[Path]
    labels: Sequence[tuple[int, ...]]
    classes: Sequence[str]
    n_expected: int


def load_labelled_folder(folder: str | Path) -> LabelledImages:
    """Load images with one class each.

    Args:
        folder: Holds `labels.csv` with the columns `image` (relative to the folder) and `label`, or
            one folder of images for each class. An underscore in a class stands for a space.

    Raises:
        DataError: If there is no image, or the list is malformed or names a file that is missing.
    """
    folder = Path(folder)
    if (folder / LABELS_FILE).is_file():
        labelled = _listed_images(folder)
    else:
        labelled = [
            (image, class_folder.name)
            for class_folder in sorted(folder.glob("*/"))
            for image in sorted(class_folder.iterdir())
            if image.suffix.lower() in SUFFIXES
        ]
    if not labelled:
        raise DataError(
            f"{folder}: no labelled image. Expected {LABELS_FILE} with the columns "
            f"{' and '.join(COLUMNS)}, or one folder of images for each class."
        )
    names = sorted({label for _, label in labelled})
    return LabelledImages(
        [image for image, _ in labelled],
        [(names.index(label),) for _, label in labelled],
        [name.replace("_", " ") for name in names],
        len(labelled),
    )


def _listed_images(folder: Path) -> list[tuple[Path, str]]:
    labelled = []
    for row in csv_rows(folder / LABELS_FILE, COLUMNS):
        image = folder / row.text("image")
        if not image.is_file():
            raise row.error(
                f"image {image.name!r} is not there", "Complete the images or correct the line."
            )
        labelled.append((image, row.text("label").strip()))
    return labelled
