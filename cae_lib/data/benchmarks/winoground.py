"""Winoground: two pictures and two captions with the same words in another order.

Thrush et al. 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cae_lib.data.benchmarks import files
from cae_lib.data.benchmarks.base import Benchmark, Choice, ImageRef, Task
from cae_lib.data.benchmarks.collect import Collector, Policy, first_existing

NAME = "winoground"
TASKS: tuple[Task, ...] = ("text", "image", "group")
OFFICIAL = dict.fromkeys(TASKS, 400)
IMAGES_FROM = "those of the gated hub data set facebook/winoground, images/ex_{id}_img_{0|1}.png"
SUFFIXES = (".png", ".jpg", "")


def load(
    root: str | Path,
    *,
    expected: Mapping[str, int] | None = None,
    official: bool = False,
    allow_missing: bool = False,
) -> list[Benchmark]:
    """Read `examples.jsonl` into three benchmarks over the same items: text, image, group score.

    An item counts for `text` if each picture prefers its own caption, for `image` if each caption
    prefers its own picture, for `group` if both hold; every comparison is strict. Groups are
    the collapsed tags (Relation, Object, Both); the headline is the mean over items.

    Args:
        root: Folder with `examples.jsonl` and `images/`.
        expected: Number of items by score (`"text"`, `"image"`, `"group"`).
        official: Expect the published 400 items.
        allow_missing: Leave out and count what cannot be used instead of raising an error.

    Raises:
        DataError: If a file or picture is missing, or a line is malformed.
    """
    path = Path(root) / "examples.jsonl"
    policy = Policy.of(expected, official, OFFICIAL, allow_missing)
    lines = files.read_text(path).split("\n")
    entries = [
        (number, files.parse_json(line, f"{path}, line {number}"))
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    return [_benchmark(path, task, entries, policy) for task in TASKS]


def _benchmark(
    path: Path, task: Task, entries: list[tuple[int, object]], policy: Policy
) -> Benchmark:
    collector = Collector(NAME, task, path, policy, IMAGES_FROM)
    for number, entry in entries:
        with collector.row(number):
            collector.add(_read(path.parent / "images", entry))
    return collector.finish(task=task)


def _read(folder: Path, entry: object) -> Choice:
    images = tuple(_image(folder, files.text(entry, f"image_{side}")) for side in (0, 1))
    return Choice(
        images=images,
        texts=(files.text(entry, "caption_0"), files.text(entry, "caption_1")),
        truth=0,
        group=files.text(entry, "collapsed_tag"),
        id=f"{files.number(entry, 'id'):g}",
    )


def _image(folder: Path, name: str) -> ImageRef:
    return ImageRef(first_existing([folder / f"{name}{suffix}" for suffix in SUFFIXES]))
