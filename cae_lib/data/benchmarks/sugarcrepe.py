"""SugarCrepe: a COCO caption against a fluent one with one thing added, replaced or swapped.

Hsieh et al. 2023.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from cae_lib.data import rows
from cae_lib.data.benchmarks.base import Benchmark, Choice
from cae_lib.data.benchmarks.collect import Checks, Collector, Policy

NAME = "sugarcrepe"
OFFICIAL = {
    "add_att": 692,
    "add_obj": 2062,
    "replace_att": 788,
    "replace_obj": 1652,
    "replace_rel": 1406,
    "swap_att": 666,
    "swap_obj": 245,
}
IMAGES_FROM = "COCO's val2017, in coco/val2017"


def load(
    root: str | Path, *, subsets: Sequence[str] | None = None, **checks: Unpack[Checks]
) -> list[Benchmark]:
    """Read the seven files of SugarCrepe, one benchmark each; the headline is the mean over items.

    The negative comes second, as in CLIP_benchmark, where argmax lets a tie pass; the official
    script compares strictly. `counts` tells how many pairs are the same bag of words.

    Args:
        root: Folder with `data/{add,replace,swap}_*.json`, dicts whose keys need not be
            consecutive. The pictures are in `coco/val2017` beside it.
        subsets: Names of files to read; all seven by default.
        **checks: See `Checks`.

    Raises:
        ConfigError: If a subset is unknown.
        DataError: If a file or picture is missing, or a row is malformed.
    """
    policy, root = Policy.of(OFFICIAL, **checks), Path(root)
    files = {name: root / "data" / f"{name}.json" for name in OFFICIAL}
    chosen = policy.choose(root, files, subsets, wanted=files)
    folder = root.parent / "coco" / "val2017"
    return [_subset(Collector(NAME, *part, policy, IMAGES_FROM), folder) for part in chosen.items()]


def _subset(collector: Collector, folder: Path) -> Benchmark:
    def read(key: str, entry: object) -> Choice:
        image = collector.picture(folder / rows.text(entry, "filename"))
        texts = (rows.text(entry, "caption"), rows.text(entry, "negative_caption"))
        collector.counts["same_words"] += _bag(texts[0]) == _bag(texts[1])
        return Choice((image,), texts, truth=0, group=collector.subset, id=key)

    return collector.rows(rows.read_json(collector.source, dict), read).finish()


def _bag(caption: str) -> list[str]:
    return sorted(re.findall(r"[a-z0-9']+", caption.lower()))
