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
        paths: The image files.
        labels: For each image, the positions of its classes in `classes`.
        classes: Names of the classes, as they appear in a prompt.
        n_expected: Number of images that the dataset should have.
    """

    paths: Sequence[Path]
    labels: Sequence[tuple[int, ...]]
    classes: Sequence[str]
    n_expected: int


def load_labelled_folder(folder: str | Path) -> LabelledImages:
    """Load the images of a folder, each with one class.

    Args:
        folder: Folder with one subfolder of images for each class. The name of the subfolder is the
            name of the class, with underscores for spaces. Files are ignored if their ending, in
            upper or lower case, is not one of `IMAGE_SUFFIXES`; so are files and folders whose name
            begins with a dot. A subfolder without images gives no class.

    Returns:
        The images, sorted by class and file name. Their expected number is the number found.

    Raises:
        DataError: If there is no image, no such folder, or two subfolders give the same class.
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
    names = sorted({label for _, label in labelled})
    classes = [name.replace("_", " ") for name in names]
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
