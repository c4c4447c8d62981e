"""SugarCrepe++ (Dumpala et al. 2024): two captions that say the same of a picture, and a false
one."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from cae_lib.data import rows
from cae_lib.data.benchmarks.base import Benchmark, Choice
from cae_lib.data.benchmarks.collect import Collector, Family, Options

FILES = {
    "replace_att": 788, "replace_obj": 1652, "replace_rel": 1406, "swap_att": 666, "swap_obj": 245,
}
TASKS = ("itt", "tot")
OFFICIAL = {f"{task}/{name}": n for task in TASKS for name, n in FILES.items()}
FAMILY = Family("sugarcrepe_pp", OFFICIAL, "COCO's val2017, in coco/val2017")


def load(root: str | Path, **options: Unpack[Options]) -> list[Benchmark]:
    """Read the files into two benchmarks each, such as `itt/swap_obj` and `tot/swap_obj`.

    ITT (image to text): both captions are closer to the picture than the false one. TOT (text
    only): the captions are closer to each other than each of them is to the false one. Every
    comparison is strict; the headline is the mean over items. Rows that cannot be won, since a
    caption is the false one, are counted as `unwinnable`. `root` holds
    `data/{replace,swap}_*.json`, lists of rows; the pictures are in `coco/val2017` beside it.
    """
    files = {name: Path(root, "data", f"{name.partition('/')[2]}.json") for name in OFFICIAL}
    return FAMILY.read(files, lambda part: _subset(part, Path(root)), **options)


def _subset(collector: Collector, root: Path) -> Benchmark:
    task, _, name = collector.subset.partition("/")
    folder = root.parent / "coco" / "val2017"

    def read(key: str, entry: object) -> Choice:
        image = collector.picture(folder / rows.text(entry, "filename"))
        texts = [rows.text(entry, field) for field in ("caption", "caption2", "negative_caption")]
        return Choice((image,), tuple(texts), truth=0, group=name, id=key)

    collector.counts["unwinnable"] = 0
    collector.rows(enumerate(rows.read_json(collector.source, list)), read)
    lost = [item.texts[2] in item.texts[:2] for item in collector.items]
    collector.counts["unwinnable"] = sum(lost)
    return collector.finish(task=task)
