"""BiVLC (Miranda et al. 2024): SugarCrepe with a generated image for each negative caption.

An item has two images and two captions. The subsets "text", "image" and "group" score the same
items; the paper calls these scores I2T, T2I and group score.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cae_bench.benchmarks.base import Family, ImageRef, Item
from cae_lib.data.rows import MissingFileError, parquet_rows

ANNOTATION_PATTERN = "bivlc/data/*.parquet"
"""Annotation files below the folder of all datasets; they also hold the images."""


def read_items(root: Path, subset: str) -> Iterator[Item]:
    """Yield the items of all files, the same for each subset; write images to `bivlc/images`."""
    folder, number = root / "bivlc/images", 0
    paths = sorted(root.glob(ANNOTATION_PATTERN))
    if not paths:
        raise MissingFileError(f"{root / ANNOTATION_PATTERN}: no such annotation file. Fetch it.")
    for path in paths:
        for row in parquet_rows(path, folder):
            names = row.text("image.path"), row.text("negative_image.path")
            images = tuple(ImageRef(folder / name.strip()) for name in names)
            texts = row.text("caption"), row.text("negative_caption")
            group = f"{row.text('type')}_{row.text('subtype')}"
            # Numbered over all files: the row keys of each file begin at 0.
            yield Item(str(number), images, texts, group=group)
            number += 1


FAMILY = Family(
    "bivlc",
    "bivlc",
    read_items,
    published_counts=dict.fromkeys(("text", "image", "group"), 2933),
    files=(ANNOTATION_PATTERN,),
    images_advice="in the files themselves",
    rescored=("text", "image"),
)
