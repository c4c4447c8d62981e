"""Winoground (Thrush et al. 2022): two pictures and two captions with the same words in another
order. Diwan et al. 2022 tag the items that are hard for another reason than composition, and score
the others apart."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Unpack

from cae_lib.data import rows
from cae_lib.data.benchmarks.base import Benchmark, Choice, ImageRef, Task
from cae_lib.data.benchmarks.collect import Collector, Family, Options

TASKS: tuple[Task, ...] = ("text", "image", "group")
PARTS = {"": 400, "/untagged": 172, "/authors": 171}
"""Parts of the items, as their scores end, with their sizes: all, those that Diwan et al. do not
tag, and those of them that CAE's authors call clean: all but number 313."""

AUTHORS_LACK = 313
OFFICIAL = {f"{task}{part}": n for part, n in PARTS.items() for task in TASKS}
FAMILY = Family(
    "winoground", OFFICIAL,
    "those of the gated hub data set facebook/winoground, images/ex_{id}_img_{0|1}.png",
)
SUFFIXES = (".png", ".jpg", "")


@cache
def untagged() -> frozenset[int]:
    """Numbers of the items that Diwan et al. do not tag."""
    path = Path(__file__).with_name("winoground_untagged.txt")
    lines = path.read_text(encoding="utf-8").splitlines()
    return frozenset(int(n) for line in lines if not line.startswith("#") for n in line.split())


def load(root: str | Path, **options: Unpack[Options]) -> list[Benchmark]:
    """Read `examples.jsonl` into three benchmarks over the same items: text, image, group score.

    An item counts for `text` if each picture prefers its own caption, for `image` if each caption
    prefers its own picture, for `group` if both hold; every comparison is strict. Groups are the
    collapsed tags (Relation, Object, Both); the headline is the mean over items. `root` holds
    `examples.jsonl` and `images/`. By default the subsets are the three scores of all items of the
    file, but there are also those of parts, such as "group/untagged", see `PARTS`.
    """
    if options.get("subsets") is None:
        options["subsets"] = TASKS
    path = Path(root, "examples.jsonl")
    return FAMILY.read(dict.fromkeys(OFFICIAL, path), _score, **options)


def _score(collector: Collector) -> Benchmark:
    folder = collector.source.parent / "images"
    task, _, part = collector.subset.partition("/")
    lacking = {AUTHORS_LACK} if part == "authors" else set()
    lines = enumerate(rows.read_text(collector.source).split("\n"), start=1)
    known: set[float] = set()

    def image(entry: object, key: str) -> ImageRef:
        name = rows.text(entry, key)
        return collector.picture(*(folder / f"{name}{end}" for end in SUFFIXES))

    def read(_: str, line: str) -> Choice | None:
        entry = rows.parse_json(line)
        number = rows.number(entry, "id")
        if number in known:
            raise rows.RowError(f"its id {number:g} is that of another row")
        known.add(number)
        if part and number not in untagged() - lacking:
            return None
        images = (image(entry, "image_0"), image(entry, "image_1"))
        texts = (rows.text(entry, "caption_0"), rows.text(entry, "caption_1"))
        return Choice(images, texts, 0, rows.text(entry, "collapsed_tag"), f"{number:g}")

    entries = [(number, line) for number, line in lines if line.strip()]
    return collector.rows(entries, read, where="line {}").finish(task=task)
