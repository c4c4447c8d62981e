"""SugarCrepe (Hsieh et al. 2023) and SugarCrepe++ (Dumpala et al. 2024).

SugarCrepe pairs a COCO caption, option 0, with a hard negative in which an object, attribute or
relation is added, replaced or swapped. SugarCrepe++ has two true captions and a negative: both are
closer to the image than the negative (ITT), or closer to each other than each is to it (TOT).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cae_bench.benchmarks.base import Family, ImageRef, Item, strip_task
from cae_lib.data.rows import json_rows

ITEM_COUNTS = {
    "replace_att": 788,
    "replace_obj": 1652,
    "replace_rel": 1406,
    "swap_att": 666,
    "swap_obj": 245,
}
"""Number of items of the annotation files that SugarCrepe and SugarCrepe++ both have, by name."""

IMAGES_ADVICE = "COCO's val2017: put them into coco/val2017"
"""Value of `Family.images_advice` for both benchmarks."""


def read_items(root: Path, subset: str) -> Iterator[Item]:
    """Yield the items of a subset of SugarCrepe."""
    for row in json_rows(root / f"sugar-crepe/data/{subset}.json", dict):
        image = ImageRef(root / "coco/val2017" / row.text("filename").strip())
        texts = row.text("caption"), row.text("negative_caption")
        # Keys may have gaps: the release removed wrong rows without numbering the rest anew.
        yield Item(row.key, (image,), texts, group=subset)


def _read_plus_plus_items(root: Path, subset: str) -> Iterator[Item]:
    """Yield the items of a subset of SugarCrepe++, such as "itt/swap_obj"."""
    name = strip_task(subset)
    for row in json_rows(root / f"sugarcrepe-pp/data/{name}.json", list):
        image = ImageRef(root / "coco/val2017" / row.text("filename").strip())
        texts = row.text("caption"), row.text("caption2"), row.text("negative_caption")
        yield Item(row.key, (image,), texts, group=name)


def _bag_of_words(caption: str) -> list[str]:
    return sorted(re.findall(r"[a-z0-9']+", caption.lower()))


def _count_same_words(subset: str, items: Sequence[Item]) -> Mapping[str, int]:
    """Count the items whose captions have the same words: a bag-of-words model fails on them."""
    same = [_bag_of_words(item.texts[0]) == _bag_of_words(item.texts[1]) for item in items]
    return {"same_words": sum(same)}


def _count_unwinnable(subset: str, items: Sequence[Item]) -> Mapping[str, int]:
    """Count the items whose negative equals a true caption, which no model gets right."""
    return {"unwinnable": sum(item.texts[2] in item.texts[:2] for item in items)}


FAMILY = Family(
    "sugarcrepe",
    "sugar-crepe",
    read_items,
    published_counts={"add_att": 692, "add_obj": 2062, **ITEM_COUNTS},
    files=tuple(f"sugar-crepe/data/{name}.json" for name in ("add_att", "add_obj", *ITEM_COUNTS)),
    images_advice=IMAGES_ADVICE,
    in_paper=True,
    extra_counts=_count_same_words,
)

PLUS_PLUS_FAMILY = Family(
    "sugarcrepe_pp",
    "sugarcrepe-pp",
    _read_plus_plus_items,
    published_counts={
        f"{task}/{name}": n for task in ("itt", "tot") for name, n in ITEM_COUNTS.items()
    },
    files=tuple(f"sugarcrepe-pp/data/{name}.json" for name in ITEM_COUNTS),
    images_advice=IMAGES_ADVICE,
    rescored=("tot/*",),
    extra_counts=_count_unwinnable,
)
