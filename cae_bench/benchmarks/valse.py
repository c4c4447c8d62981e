"""VALSE (Parcalabescu et al. 2022): a caption against a hard negative, in eleven subsets.

VALSE calls the hard negative a foil. It is option 0, the caption option 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cae_bench.benchmarks.base import ExcludedRow, Family, Item, find_image
from cae_lib.data.rows import json_rows

ITEM_COUNTS = {
    "actant-swap": 949,
    "action-replacement": 648,
    "coreference-hard": 104,
    "coreference-standard": 708,
    "counting-adversarial": 691,
    "counting-hard": 868,
    "counting-small-quant": 900,
    "existence": 505,
    "foil-it": 943,
    "plurals": 851,
    "relations": 535,
}
"""Number of valid items of each subset; with the items that are not valid there are 8,782."""

IMAGE_FOLDERS = {
    "actant-swap": "valse/data/actions/images_512",
    "action-replacement": "valse/data/actions/images_512",
    "coreference-hard": "valse/data/coref/release_v18/test_images",
    "coreference-standard": "valse/data/coref/release_too_many_is_this_in_color/images",
    "counting-adversarial": "valse/data/visual7w/images",
    "counting-hard": "valse/data/visual7w/images",
    "counting-small-quant": "valse/data/visual7w/images",
    "existence": "valse/data/visual7w/images",
    "foil-it": "coco/val2014",
    "plurals": "valse/data/plurals/test_images",
    "relations": "valse/data/relations/test_images",
}
"""Folder in which the official evaluation looks for the images of each subset."""

FALLBACK_IMAGE_FOLDERS = ("valse/images", "coco/val2017", "coco/val2014", "coco/train2014")
"""Folders in which an image is looked for after `IMAGE_FOLDERS`, in this order."""

N_ANNOTATORS = 3
"""Number of annotators of each item."""

# As the authors of VALSE ask. It also excludes all items whose foil equals the caption.
MIN_VOTES = 2
"""Number of annotators who must have found an item valid."""


def read_items(root: Path, subset: str) -> Iterator[Item | ExcludedRow]:
    """Yield the valid items of a subset, and an `ExcludedRow` for each other item."""
    folders = [root / name for name in (IMAGE_FOLDERS[subset], *FALLBACK_IMAGE_FOLDERS)]
    for row in json_rows(root / f"valse/data/{subset}.json", dict):
        votes = row.integer("mturk.caption")
        if not 0 <= votes <= N_ANNOTATORS:
            raise row.error(f"field 'mturk.caption' is {votes}, 0 to {N_ANNOTATORS} was expected")
        if votes < MIN_VOTES:
            yield ExcludedRow("not_valid")
            continue
        name = row.text("image_file").strip()
        image = find_image(*(folder / name for folder in folders))
        yield Item(row.key, (image,), (row.text("foil"), row.text("caption")), 1, subset)


FAMILY = Family(
    "valse",
    "valse",
    read_items,
    published_counts=ITEM_COUNTS,
    files=tuple(f"valse/data/{name}.json" for name in ITEM_COUNTS),
    images_advice="those of the dataset that each item's field 'dataset' names",
    in_paper=True,
)
