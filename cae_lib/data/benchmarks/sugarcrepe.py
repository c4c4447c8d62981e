"""SugarCrepe: a COCO caption against a fluent one with one thing added, replaced or swapped.

Hsieh et al. 2023.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from cae_lib.data.benchmarks import files
from cae_lib.data.benchmarks.base import Benchmark, Choice, ImageRef
from cae_lib.data.benchmarks.collect import Collector, Policy
from cae_lib.errors import ConfigError

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
IMAGES_FROM = "COCO's val2017"


def load(
    root: str | Path,
    *,
    image_dir: str | Path | None = None,
    subsets: Sequence[str] | None = None,
    negative_first: bool = False,
    expected: Mapping[str, int] | None = None,
    official: bool = False,
    allow_missing: bool = False,
) -> list[Benchmark]:
    """Read the seven files of SugarCrepe, one benchmark each; the headline is the mean over items.

    Args:
        root: Folder with `data/{add,replace,swap}_*.json`, dicts whose keys need not be
            consecutive.
        image_dir: Folder of the pictures; by default `coco/val2017` beside `root`.
        subsets: Names of files to read; all seven by default.
        negative_first: Put the negative first, so that the argmax rule calls a tie wrong, as in
            the evaluation of CAE's authors; by default it comes second, as in CLIP_benchmark,
            where argmax lets a tie pass. The official script compares strictly.
        expected: Number of items by subset.
        official: Expect the published numbers of items (7,511 in all).
        allow_missing: Leave out and count what cannot be used instead of raising an error.

    Raises:
        ConfigError: If a subset is unknown.
        DataError: If a file or picture is missing, or a row is malformed.
    """
    root = Path(root)
    folder = Path(image_dir) if image_dir is not None else root.parent / "coco" / "val2017"
    policy = Policy.of(expected, official, OFFICIAL, allow_missing)
    names = tuple(subsets) if subsets is not None else tuple(OFFICIAL)
    unknown = [name for name in names if name not in OFFICIAL]
    if unknown:
        raise ConfigError(f"no such SugarCrepe subset: {unknown}. Known: {', '.join(OFFICIAL)}.")
    return [_subset(root, name, folder, negative_first, policy) for name in names]


def _subset(
    root: Path, subset: str, folder: Path, negative_first: bool, policy: Policy
) -> Benchmark:
    path = root / "data" / f"{subset}.json"
    collector = Collector(NAME, subset, path, policy, IMAGES_FROM)

    def read(key: str, entry: object) -> Choice:
        image = ImageRef(folder / files.text(entry, "filename"))
        texts = (files.text(entry, "caption"), files.text(entry, "negative_caption"))
        collector.counts["identical"] += texts[0] == texts[1]
        collector.counts["same_words"] += _bag(texts[0]) == _bag(texts[1])
        if negative_first:
            texts = texts[::-1]
        return Choice((image,), texts, truth=int(negative_first), group=subset, id=key)

    collector.rows(files.read_json(path, dict), read)
    return collector.finish()


def _bag(caption: str) -> list[str]:
    return sorted(re.findall(r"[a-z0-9']+", caption.lower()))
