"""Images with class labels, in one folder for each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cae_lib.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


@dataclass(frozen=True)
class LabelledImages:
    """Image files and their classes.

    Attributes:
        paths: The files.
        labels: For each image, the positions of its classes in `classes`.
        classes: Names of the classes, as they appear in a prompt.
        n_expected: Number of images that there should be.
    """

    paths: Sequence[Path]
    labels: Sequence[tuple[int, ...]]
    classes: Sequence[str]
    n_expected: int


def load_labelled_folder(folder: str | Path) -> LabelledImages:
    """Load images with one class each.

    Args:
        folder: Holds one folder of images for each class. An underscore in a class stands for a
            space.

    Raises:
        DataError: If there is no image.
    """
    labelled = [
        (image, class_folder.name)
        for class_folder in sorted(Path(folder).glob("*/"))
        for image in sorted(class_folder.iterdir())
        if image.suffix.lower() in SUFFIXES
    ]
    if not labelled:
        raise DataError(
            f"{folder}: no labelled image. Expected one folder of images for each class."
        )
    names = sorted({label for _, label in labelled})
    return LabelledImages(
        [image for image, _ in labelled],
        [(names.index(label),) for _, label in labelled],
        [name.replace("_", " ") for name in names],
        len(labelled),
    )
