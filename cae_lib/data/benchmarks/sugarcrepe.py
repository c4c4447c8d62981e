"""SugarCrepe (Hsieh et al. 2023): a COCO caption against a fluent one with one thing added,
replaced or swapped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Unpack

from cae_lib.data import rows
from cae_lib.data.benchmarks.base import Benchmark, Choice
from cae_lib.data.benchmarks.collect import Collector, Family, Options

OFFICIAL = {
    "add_att": 692, "add_obj": 2062, "replace_att": 788, "replace_obj": 1652, "replace_rel": 1406,
    "swap_att": 666, "swap_obj": 245,
}
FAMILY = Family("sugarcrepe", OFFICIAL, "COCO's val2017, in coco/val2017")


def load(root: str | Path, **options: Unpack[Options]) -> list[Benchmark]:
    """Read the seven files of SugarCrepe, one benchmark each; the headline is the mean over items.

    The negative comes second, as in CLIP_benchmark, where argmax lets a tie pass; the official
    script compares strictly. `counts` tells how many pairs are the same bag of words. `root` holds
    `data/{add,replace,swap}_*.json`, dicts whose keys need not be consecutive; the pictures are in
    `coco/val2017` beside it.
    """
    files = {name: Path(root, "data", f"{name}.json") for name in OFFICIAL}
    return FAMILY.read(files, lambda part: _subset(part, Path(root)), **options)


def _subset(collector: Collector, root: Path) -> Benchmark:
    folder = root.parent / "coco" / "val2017"

    def read(key: str, entry: object) -> Choice:
        image = collector.picture(folder / rows.text(entry, "filename"))
        texts = (rows.text(entry, "caption"), rows.text(entry, "negative_caption"))
        return Choice((image,), texts, truth=0, group=collector.subset, id=key)

    collector.counts["same_words"] = 0
    collector.rows(rows.read_json(collector.source, dict), read)
    alike = [_bag(true) == _bag(false) for true, false in (item.texts for item in collector.items)]
    collector.counts["same_words"] = sum(alike)
    return collector.finish()


def _bag(caption: str) -> list[str]:
    return sorted(re.findall(r"[a-z0-9']+", caption.lower()))
