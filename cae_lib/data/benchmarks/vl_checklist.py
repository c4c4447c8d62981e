"""VL-CheckList (Zhao et al. 2022): a phrase against one with another object, attribute or relation.

Some rows have three true and three negative phrases. Only the first true and the first negative
phrase are scored, as in the official image-text contrast ("itc"). All rows of a file are used. The
negative phrase is option 0, the true phrase option 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from cae_lib.data.benchmarks.base import Family, ImageRef, Item
from cae_lib.data.rows import json_rows
from cae_lib.errors import DataError

OBJECT_LOCATIONS_AND_SIZES = {
    "location": ("margin", "center", "mid"),
    "size": ("large", "medium", "small"),
}
"""Locations and sizes of objects by which the annotation files on objects are divided."""

SWIG_ROLES = ("agent", "destination", "item", "tool")
"""Semantic roles of objects by which the annotation files of SWiG are divided."""

OBJECT_SUBSETS = [
    f"Object/{kind.title()}/{folder}_{value}"
    for kind, values in OBJECT_LOCATIONS_AND_SIZES.items()
    for folder in (
        f"hake_{kind}/hake_obj",
        f"vg_{kind}/vg_obj",
        f"vg_{kind}/vg_subj",
        *(f"swig_{kind}/swig_{role}/swig_{role}" for role in SWIG_ROLES),
    )
    for value in values
]
"""Names of the subsets on objects, which are paths of files, as in `read_items`."""

ITEM_COUNTS = {
    "Attribute/vg/action": 1892,
    "Attribute/vg/color": 11_569,
    "Attribute/vg/material": 2470,
    "Attribute/vg/size": 2695,
    "Attribute/vg/state": 941,
    "Attribute/vaw/action": 3039,
    "Attribute/vaw/color": None,
    "Attribute/vaw/material": 11_835,
    "Attribute/vaw/size": 15_321,
    "Attribute/vaw/state": 4939,
    "Relation/hake_action": None,
    "Relation/swig_action": 25_150,
    "Relation/vg/action": 12_733,
    "Relation/vg/spatial": 30_650,
    **dict.fromkeys(OBJECT_SUBSETS),
}
"""Published number of items of each subset; None where no verified number is known."""

IMAGE_FOLDERS = {
    "*/hake_*": "hake",
    "*/swig_*": "swig",
    "*/vg[/_]*": "vg",
    "*/vaw/*": "vg",
}
"""Folder of the images in `vl-checklist`, by a pattern that the subset's name fits.

VAW uses the images of Visual Genome.
"""


def read_items(root: Path, subset: str) -> Iterator[Item]:
    """Yield the items of one subset, which is one annotation file.

    Args:
        root: Folder of all datasets.
        subset: Path of the file in `vl-checklist/data`, without the suffix `.json`.

    Raises:
        MissingFileError: If the annotation file does not exist.
        DataError: If no pattern of `IMAGE_FOLDERS` fits the subset, or the file or a row is
            malformed.
    """
    folders = [name for pattern, name in IMAGE_FOLDERS.items() if fnmatchcase(subset, pattern)]
    if not folders:
        raise DataError(
            f"vl-checklist/data/{subset}.json: cannot tell its images. Name the file, or a folder "
            f"above it, like one of {', '.join(IMAGE_FOLDERS)}, as the official files are."
        )
    for row in json_rows(root / f"vl-checklist/data/{subset}.json", list):
        if isinstance(row.content, list) and len(row.content) != 2:
            raise row.error(f"has {len(row.content)} fields, 2 were expected")
        image = ImageRef(root / "vl-checklist" / folders[0] / row.text("0").strip())
        texts = row.text("1.NEG.0"), row.text("1.POS.0")
        yield Item(row.key, (image,), texts, truth=1, group=subset)


FAMILY = Family(
    "vl_checklist",
    "vl-checklist",
    read_items,
    published_counts=dict(sorted(ITEM_COUNTS.items())),
    files=("vl-checklist/data/**/*.json",),
    images_advice="Visual Genome's, SWiG's and HAKE's, in vl-checklist/{vg,swig,hake}",
    in_paper=True,
)
