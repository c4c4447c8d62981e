"""Winoground (Thrush et al. 2022): two images and two captions made of the same words.

The subsets "text", "image" and "group" are the three scores on all 400 items. Those that end in
"/untagged" are on the 172 items without a tag by Diwan et al. (2022), who tag why an item is hard
for other reasons than compositionality; those in "/authors" on those that CAE's authors call clean.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from cae_bench.benchmarks.base import Family, ImageRef, Item
from cae_lib.data.rows import jsonl_rows


@cache
def untagged_ids() -> frozenset[int]:
    """Return the ids of the 172 items that Diwan et al. (2022) gave no tag."""
    path = Path(__file__).with_name("winoground_untagged.txt")
    lines = path.read_text(encoding="utf-8").splitlines()
    return frozenset(int(n) for line in lines if not line.startswith("#") for n in line.split())


def read_items(root: Path, subset: str) -> Iterator[Item]:
    """Yield the items of a subset: all items, the untagged ones, or those of CAE's authors."""
    folder = root / "winoground/images"
    for row in jsonl_rows(root / "winoground/examples.jsonl"):
        number = row.integer("id")
        # The list of CAE's authors is that of Diwan et al. without item 313.
        tagged = number not in untagged_ids() or ("authors" in subset and number == 313)
        if "/" in subset and tagged:
            continue
        names = row.text("image_0").strip(), row.text("image_1").strip()
        images = tuple(ImageRef(folder / f"{name}.png") for name in names)
        texts = row.text("caption_0"), row.text("caption_1")
        yield Item(str(number), images, texts, group=row.text("collapsed_tag"))


FAMILY = Family(
    "winoground",
    "winoground",
    read_items,
    published_counts={
        f"{task}{part}": n
        for part, n in {"": 400, "/untagged": 172, "/authors": 171}.items()
        for task in ("text", "image", "group")
    },
    files=("winoground/examples.jsonl",),
    images_advice=(
        "in the gated hub dataset facebook/winoground, winoground/images/ex_{id}_img_{0|1}.png"
    ),
    in_paper=True,
    rescored=("text", "image", "*/*"),
)
