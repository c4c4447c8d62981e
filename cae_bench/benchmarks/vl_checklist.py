"""VL-CheckList (Zhao et al. 2022): a phrase against one with another object, attribute or relation.

A subset is one annotation file, named by its path without the suffix. The negative phrase is option
0, the true phrase option 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from cae_bench.benchmarks.base import Family, ImageRef, Item
from cae_lib.data.rows import json_rows
from cae_lib.errors import DataError

OBJECT_COUNTS = {
    "Object/Location/hake_location/hake_obj": {"margin": 10_062, "center": None, "mid": None},
    "Object/Location/vg_location/vg_obj": {"margin": 8291, "center": None, "mid": None},
    "Object/Location/vg_location/vg_subj": {"margin": 5974, "center": 25_383, "mid": 26_294},
    "Object/Location/swig_location/swig_agent/swig_agent": {
        "margin": 260,
        "center": None,
        "mid": 5074,
    },
    "Object/Location/swig_location/swig_destination/swig_destination": {
        "margin": 45,
        "center": 1063,
        "mid": 530,
    },
    "Object/Location/swig_location/swig_item/swig_item": {
        "margin": 88,
        "center": 4163,
        "mid": 1715,
    },
    "Object/Location/swig_location/swig_tool/swig_tool": {
        "margin": 121,
        "center": 4056,
        "mid": 2226,
    },
    "Object/Size/hake_size/hake_obj": {"large": None, "medium": 30_910, "small": 6210},
    "Object/Size/vg_size/vg_obj": {"large": None, "medium": 30_725, "small": 13_702},
    "Object/Size/vg_size/vg_subj": {"large": 26_167, "medium": 20_930, "small": 10_554},
    "Object/Size/swig_size/swig_agent/swig_agent": {"large": None, "medium": 442, "small": 48},
    "Object/Size/swig_size/swig_destination/swig_destination": {
        "large": 1520,
        "medium": 109,
        "small": 9,
    },
    "Object/Size/swig_size/swig_item/swig_item": {"large": 5070, "medium": 742, "small": 154},
    "Object/Size/swig_size/swig_tool/swig_tool": {"large": 4643, "medium": 1452, "small": 308},
}
"""Number of items on objects by beginning of the path, and by location or size; None if unknown."""

# Counted in the files of the official repository at commit 6f8d6a3, without the largest files.
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
    **{
        f"{beginning}_{value}": n
        for beginning, counts in OBJECT_COUNTS.items()
        for value, n in counts.items()
    },
}
"""Published number of items of each subset; None where no verified number is known."""

IMAGE_FOLDERS = {
    "*/hake_*": "hake",
    "*/swig_*": "swig",
    "*/vg[/_]*": "vg",
    # VAW uses the images of Visual Genome.
    "*/vaw/*": "vg",
}
"""Folder of the images in `vl-checklist`, by a pattern that the subset's name fits."""


def read_items(root: Path, subset: str) -> Iterator[Item]:
    """Yield the items of the file `vl-checklist/data/SUBSET.json`."""
    folders = [name for pattern, name in IMAGE_FOLDERS.items() if fnmatchcase(subset, pattern)]
    if not folders:
        raise DataError(
            f"vl-checklist/data/{subset}.json: cannot tell its images. Name the file, or a folder "
            f"above it, like one of {', '.join(IMAGE_FOLDERS)}, as the official files are."
        )
    # All rows: the official sample configuration silently stops after the first 1,000 pairs.
    for row in json_rows(root / f"vl-checklist/data/{subset}.json", list):
        if isinstance(row.content, list) and len(row.content) != 2:
            raise row.error(f"has {len(row.content)} fields, 2 were expected")
        image = ImageRef(root / "vl-checklist" / folders[0] / row.text("0").strip())
        # SWiG's rows have three phrases of each kind; the official contrast ("itc") uses the first.
        texts = row.text("1.NEG.0"), row.text("1.POS.0")
        yield Item(row.key, (image,), texts, truth=1, group=subset)


FAMILY = Family(
    "vl_checklist",
    "vl-checklist",
    read_items,
    published_counts=dict(sorted(ITEM_COUNTS.items())),
    files=tuple(f"vl-checklist/data/{name}.json" for name in sorted(ITEM_COUNTS)),
    images_advice="Visual Genome's, SWiG's and HAKE's, in vl-checklist/{vg,swig,hake}",
    in_paper=True,
)
