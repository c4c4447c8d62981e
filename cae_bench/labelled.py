"""Load images with class labels from a folder that has one subfolder for each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cae_lib.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
"""Endings of the files that are read as images, in lower case."""


@dataclass(frozen=True)
class LabelledImages:
    """Image files and their classes, for zero-shot classification.

    Attributes:
        labels: For each image, the positions of its classes in `classes`.
        classes: Names of the classes, as they appear in a prompt.
        n_expected: Number of images that the dataset should have.
    """

    paths: Sequence[Path]
    labels: Sequence[tuple[int, ...]]
    classes: Sequence[str]
    n_expected: int


def load_labelled_folder(folder: str | Path) -> LabelledImages:
    """Load the images of a folder that has one subfolder for each class, named after the class.

    Underscores in the name stand for spaces. Files and folders that begin with a dot, and files
    with other endings than `IMAGE_SUFFIXES`, are ignored.
    """
    labelled = [
        (image, class_folder.name)
        for class_folder in sorted(Path(folder).glob("*/"))
        for image in sorted(class_folder.iterdir())
        if image.suffix.lower() in IMAGE_SUFFIXES
        and not (class_folder.name.startswith(".") or image.name.startswith("."))
    ]
    if not labelled:
        raise DataError(
            f"{folder}: no labelled image. Expected one folder of images for each class."
        )
    # From the images, so that a subfolder without images gives no class.
    names = sorted({label for _, label in labelled})
    classes = [name.replace("_", " ") for name in names]
    # The folders "hot_dog" and "hot dog" would be one prompt with two labels.
    if twice := [name for name in classes if classes.count(name) > 1]:
        raise DataError(
            f"{folder}: two folders give the class {twice[0]!r}. Put their images into one folder."
        )
    return LabelledImages(
        [image for image, _ in labelled],
        [(names.index(label),) for _, label in labelled],
        classes,
        len(labelled),
    )
