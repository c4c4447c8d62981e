"""SVO-Probes (Hendricks and Nematzadeh 2021): a sentence, a matching image and a negative image.

The negative image shows another subject, verb or object. Here an item is right if the matching
image is closer to the sentence; for the official metric see `choice.svo_match_benchmark`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cae_bench.benchmarks.base import Family, ImageRef, Item
from cae_lib.data.rows import Row, csv_rows

NEGATIVE_KINDS = ("subj", "verb", "obj")
"""Parts of the sentence that may differ in the negative image; each is also a group of items."""

MIXED_GROUP = "mixed"
"""Group of the items with no flag or several flags set, and key of their number."""

CSV_COLUMNS = ("sentence", "pos_image_id", "neg_image_id", "subj_neg", "verb_neg", "obj_neg")
"""Columns that the annotation file must have."""


def read_items(root: Path, subset: str) -> Iterator[Item]:
    """Yield all items; the matching image is option 0, the negative image option 1."""
    for row in csv_rows(root / "svo-probes/svo_probes.csv", CSV_COLUMNS):
        # As whole numbers, because some ids in the file went through floats, as in "7.0".
        images = tuple(_image(root, row.integer(f"{sign}_image_id")) for sign in ("pos", "neg"))
        flags = [group for group in NEGATIVE_KINDS if _flag(row, f"{group}_neg")]
        group = flags[0] if len(flags) == 1 else MIXED_GROUP
        yield Item(row.key, images, (row.text("sentence"),), group=group)


def _image(root: Path, number: int) -> ImageRef:
    return ImageRef(root / f"svo-probes/images/{number}.jpg")


def _flag(row: Row, field: str) -> bool:
    word = row.text(field).strip().lower()
    if word not in ("true", "false"):
        raise row.error(f"field '{field}' is {word!r}, True or False was expected")
    return word == "true"


def _count_mixed(subset: str, items: Sequence[Item]) -> Mapping[str, int]:
    """Count the items of the group "mixed"."""
    return {MIXED_GROUP: sum(item.group == MIXED_GROUP for item in items)}


FAMILY = Family(
    "svo_probes",
    "svo-probes",
    read_items,
    published_counts={"all": None},
    files=("svo-probes/svo_probes.csv",),
    images_advice=(
        "at the addresses in the file, of which many are dead: svo-probes/images/{image id}.jpg"
    ),
    in_paper=True,
    rescored=("match",),
    extra_counts=_count_mixed,
)
