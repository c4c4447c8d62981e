"""COCO's and Flickr30k's Karpathy test splits for retrieval, from either of their two files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cae_lib.data.captions import Missing, Pairs, load_caption_list, load_karpathy
from cae_lib.errors import ConfigError, DataError


class RetrievalSet(NamedTuple):
    """Where a test split lies, below the folder that holds all data sets.

    Attributes:
        folder: Folder of the annotation files.
        caption_list: List of `{image, caption}`, as BLIP and ARO read it.
        karpathy: Karpathy's own file, with all splits.
        image_folders: Folders, below `folder`, that the pictures may lie in.
        n_images, n_captions: The published numbers.
    """

    folder: str
    caption_list: str
    karpathy: str
    image_folders: tuple[str, ...]
    n_images: int
    n_captions: int


RETRIEVAL_SETS: Mapping[str, RetrievalSet] = {
    "coco": RetrievalSet(
        "coco", "coco_karpathy_test.json", "dataset_coco.json", ("", "images"), 5000, 25_010
    ),
    "flickr30k": RetrievalSet(
        "flickr30k", "flickr30k_test.json", "dataset_flickr30k.json",
        ("flickr30k-images", "", "images"), 1000, 5000,
    ),
}


def load_retrieval_set(
    name: str, root: str | Path, *, missing: Missing = "raise", official: bool = False
) -> Pairs:
    """Read a test split, from the caption list if it is there, else from Karpathy's file.

    Both hold the same captions. COCO's 5,000 pictures have 25,010 of them, ten pictures having six;
    some evaluators use 25,000.

    Args:
        name: "coco" or "flickr30k".
        root: Folder that holds the data sets side by side.
        missing: see `Missing`.
        official: Refuse another number of pictures or captions than the published ones.

    Raises:
        ConfigError: The name is unknown.
        DataError: Neither file is there, one is malformed, or numbers or pictures are missing.
    """
    if name not in RETRIEVAL_SETS:
        raise ConfigError(f"no retrieval set {name!r}. Known: {', '.join(RETRIEVAL_SETS)}.")
    place = RETRIEVAL_SETS[name]
    folder = Path(root) / place.folder
    own, raw = folder / place.caption_list, folder / place.karpathy
    if not own.is_file() and not raw.is_file():
        raise DataError(f"{own}: no such file, nor is {raw.name} beside it. Fetch one of them.")

    def read(images: Path, missing: Missing) -> Pairs:
        if own.is_file():
            return load_caption_list(own, images, missing)
        return load_karpathy(raw, images, "test", missing)

    found = read(folder, "ignore")
    counts, published = (len(found.image_paths), found.n_expected), place[-2:]
    if official and counts != published:
        raise DataError(
            f"{own if own.is_file() else raw}: {counts[0]} pictures with {counts[1]} captions, "
            f"{published[0]} with {published[1]} expected. Fetch the official file again."
        )
    return read(_image_folder(found, folder, place), missing)


def _image_folder(pairs: Pairs, folder: Path, place: RetrievalSet) -> Path:
    """The first folder that any of the pictures lies in, or else the official one."""
    names = [path.relative_to(folder) for path in pairs.image_paths]
    for between in place.image_folders:
        if any((folder / between / name).is_file() for name in names):
            return folder / between
    official = place.image_folders[0]
    return folder if names and names[0].parts[0] == official else folder / official
