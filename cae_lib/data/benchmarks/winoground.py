"""Winoground (Thrush et al. 2022): two images and two captions of the same words.

Diwan et al. (2022) tag the items that are hard for another reason than composition. `untagged` are
the items without a tag; `authors` are those that CAE's authors call clean, all of them but 313.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from cae_lib.data.benchmarks.base import Family, ImageRef, Item
from cae_lib.data.rows import json_lines


@cache
def untagged_ids() -> frozenset[int]:
    """Return the ids of the items without a tag."""
    path = Path(__file__).with_name("winoground_untagged.txt")
    lines = path.read_text(encoding="utf-8").splitlines()
    return frozenset(int(n) for line in lines if not line.startswith("#") for n in line.split())


def read(root: Path, subset: str) -> Iterator[Item]:
    """Yield the items of one score, all or the untagged ones."""
    folder = root / "winoground/images"
    for row in json_lines(root / "winoground/examples.jsonl"):
        number = row.number("id")
        tagged = number not in untagged_ids() or ("authors" in subset and number == 313)
        if "/" in subset and tagged:
            continue
        names = row.text("image_0").strip(), row.text("image_1").strip()
        images = tuple(ImageRef(folder / f"{name}.png") for name in names)
        texts = row.text("caption_0"), row.text("caption_1")
        yield Item(f"{number:g}", images, texts, group=row.text("collapsed_tag"))


FAMILY = Family(
    "winoground",
    "winoground",
    read,
    published={
        f"{task}{part}": n
        for part, n in {"": 400, "/untagged": 172, "/authors": 171}.items()
        for task in ("text", "image", "group")
    },
    files=("winoground/examples.jsonl",),
    images="in the gated hub dataset facebook/winoground, winoground/images/ex_{id}_img_{0|1}.png",
    in_paper=True,
    rescored=("text", "image", "*/*"),
)
