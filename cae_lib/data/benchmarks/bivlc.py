"""BiVLC (Miranda et al. 2024): SugarCrepe's captions with a generated picture for each false one,
so two pictures and two captions as in Winoground, without its other difficulties."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from cae_lib.data import rows
from cae_lib.data.benchmarks.base import Benchmark, Choice, Task
from cae_lib.data.benchmarks.collect import Collector, Family, Options
from cae_lib.data.picture_files import read_parquet, unpacked

TASKS: tuple[Task, ...] = ("text", "image", "group")
OFFICIAL = {task: 2933 for task in TASKS}
FAMILY = Family("bivlc", OFFICIAL, "in the files themselves")
FIRST = "test-00000-of-00002-23fe2e02660e9182.parquet"
PICTURES = ("image", "negative_image")


def load(root: str | Path, **options: Unpack[Options]) -> list[Benchmark]:
    """Read the files into three benchmarks over the same items: text, image and group score, which
    the paper calls I2T, T2I and group.

    Comparisons are strict, as in the official script; headlines are means over all items, as its
    overall scores. Groups are the kinds of the false caption, such as `replace_obj`. `root` holds
    `data/*.parquet` as on the hub, whose pictures are unpacked into `images/`.
    """
    root = Path(root)
    paths = sorted(root.glob("data/*.parquet")) or [root / "data" / FIRST]
    scores = FAMILY.parts(dict.fromkeys(OFFICIAL, paths[0]), **options)
    entries = _entries(paths, root / "images")
    return [_score(collector, entries) for collector in scores]


def _entries(paths: Sequence[Path], folder: Path) -> list[dict[str, Any]]:
    """The rows of all files, with paths in place of pictures, None where there is no picture."""
    found = []
    for path in paths:
        for row in read_parquet(path):
            found.append(row | {key: _picture(row.get(key), folder) for key in PICTURES})
    return found


def _picture(image: Any, folder: Path) -> Path | None:
    try:
        return unpacked(image, folder)
    except rows.RowError:
        return None  # which is refused by the row that it belongs to


def _score(collector: Collector, entries: list[dict[str, Any]]) -> Benchmark:
    collector.source = collector.source.parent

    def read(key: str, entry: object) -> Choice:
        first, second = (collector.picture(rows.value(entry, name)) for name in PICTURES)
        texts = (rows.text(entry, "caption"), rows.text(entry, "negative_caption"))
        group = f"{rows.text(entry, 'type')}_{rows.text(entry, 'subtype')}"
        return Choice((first, second), texts, truth=0, group=group, id=key)

    return collector.rows(enumerate(entries), read).finish(task=collector.subset)
