"""COLA (Ray et al. 2023): two image-caption pairs that combine attributes and objects differently.

This is the multi-object task of COLA. An item is right if each caption is strictly closer to its
own image than to the other one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from cae_bench.benchmarks.base import Average, Family, ImageRef, Item, find_image
from cae_lib.data.rows import json_rows

ANNOTATION_FILE = "cola/data/COLA_multiobjects_matching_benchmark.json"
"""The annotation file, relative to the folder of all datasets."""

IMAGE_FOLDERS = ("cola/images", "vg/VG_100K", "vg/VG_100K_2")
"""Folders below that of all datasets in which an image is looked for, in this order."""


def read_items(root: Path, subset: str) -> Iterator[Item]:
    """Yield the multi-object items, from rows `[image 1, caption 1, image 2, caption 2]`."""
    for row in json_rows(root / ANNOTATION_FILE, list):
        if isinstance(row.content, list) and len(row.content) != 4:
            raise row.error(f"has {len(row.content)} fields, 4 were expected")
        images = _image(root, row.text("0")), _image(root, row.text("2"))
        yield Item(row.key, images, (row.text("1"), row.text("3")), group=subset)


def _image(root: Path, address: str) -> ImageRef:
    # A URL, or a path on the authors' machine: only the file name is of use here.
    name = PurePosixPath(address.strip().replace("\\", "/")).name
    return find_image(*(root / folder / name for folder in IMAGE_FOLDERS))


def _count_identical_captions(subset: str, items: Sequence[Item]) -> Mapping[str, int]:
    """Count the items whose two captions are equal."""
    return {"identical": sum(item.texts[0] == item.texts[1] for item in items)}


FAMILY = Family(
    "cola",
    "cola",
    read_items,
    published_counts={"multi": 210},
    files=(ANNOTATION_FILE,),
    images_advice="Visual Genome's, as GQA has them: put them into cola/images",
    # COLA's score is Winoground's image score.
    task="image",
    average=Average("mean over items, image score of 2 x 2"),
    extra_counts=_count_identical_captions,
)
