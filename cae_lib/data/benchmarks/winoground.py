"""Winoground: two pictures and two captions with the same words in another order.

Thrush et al. 2022. Diwan et al. 2022 tag the items that are hard for another reason than
composition, and score the others apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Unpack

from cae_lib.data import rows
from cae_lib.data.benchmarks.base import Benchmark, Choice, ImageRef, Task
from cae_lib.data.benchmarks.collect import Collector, Family, Options
from cae_lib.errors import ConfigError

TASKS: tuple[Task, ...] = ("text", "image", "group")
PARTS = {"all": 400, "untagged": 172, "authors": 171}
"""Parts of the items, with their sizes: CAE's authors leave out one untagged item, number 313."""

AUTHORS_LACK = 313
SUFFIXES = (".png", ".jpg", "")


def part_subset(task: str, part: str) -> str:
    """Name of a score on a part of the items: "group" on all, "group/untagged" and the like."""
    return task if part == "all" else f"{task}/{part}"


OFFICIAL = {part_subset(task, part): n for part, n in PARTS.items() for task in TASKS}
FAMILY = Family(
    "winoground", OFFICIAL,
    "those of the gated hub data set facebook/winoground, images/ex_{id}_img_{0|1}.png",
)


@cache
def part_ids(part: str) -> frozenset[int]:
    """Numbers of the items of a part.

    Raises:
        ConfigError: If the part is unknown.
    """
    if part not in PARTS:
        raise ConfigError(f"no such part of Winoground: {part!r}. Known: {', '.join(PARTS)}.")
    if part == "all":
        return frozenset(range(PARTS["all"]))
    path = Path(__file__).with_name("winoground_untagged.txt")
    lines = path.read_text(encoding="utf-8").splitlines()
    ids = {int(word) for line in lines if not line.startswith("#") for word in line.split()}
    return frozenset(ids - {AUTHORS_LACK} if part == "authors" else ids)


def load(
    root: str | Path, *, parts: Sequence[str] = ("all",), **options: Unpack[Options]
) -> list[Benchmark]:
    """Read `examples.jsonl` into three benchmarks over the same items: text, image, group score.

    An item counts for `text` if each picture prefers its own caption, for `image` if each caption
    prefers its own picture, for `group` if both hold; every comparison is strict. Groups are
    the collapsed tags (Relation, Object, Both); the headline is the mean over items.

    Args:
        root: Folder with `examples.jsonl` and `images/`.
        parts: "all" items, the 172 "untagged" ones, or the 171 of them that CAE's authors call
            clean ("authors"): three benchmarks for each. "all" takes every item of the file.
        **options: See `Options`; subsets are `"text"`, `"image/untagged"` and the like.
    """
    path = Path(root, "examples.jsonl")
    entries = [
        (number, rows.parse_json(line, f"{path}, line {number}"))
        for number, line in enumerate(rows.read_text(path).split("\n"), start=1)
        if line.strip()
    ]
    benchmarks = []
    for part in parts:
        ids = part_ids(part)
        chosen = [row for row in entries if part == "all" or _id(row[1]) in ids]
        files = {part_subset(task, part): path for task in TASKS}
        benchmarks += [_score(score, chosen) for score in FAMILY.parts(files, (), **options)]
    return benchmarks


def _score(collector: Collector, entries: list[tuple[int, object]]) -> Benchmark:
    folder = collector.source.parent / "images"

    def image(entry: object, key: str) -> ImageRef:
        name = rows.text(entry, key)
        return collector.picture(*(folder / f"{name}{end}" for end in SUFFIXES))

    def read(_: str, entry: object) -> Choice:
        images = (image(entry, "image_0"), image(entry, "image_1"))
        texts = (rows.text(entry, "caption_0"), rows.text(entry, "caption_1"))
        number = f"{rows.number(entry, 'id'):g}"
        return Choice(images, texts, 0, rows.text(entry, "collapsed_tag"), number)

    return collector.rows(entries, read).finish(task=collector.subset.partition("/")[0])


def _id(entry: object) -> float | None:
    """Number of an item; None where the reader of the row will say what is wrong."""
    try:
        return rows.number(entry, "id")
    except rows.RowError:
        return None
