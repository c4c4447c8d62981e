"""VALSE (Parcalabescu et al. 2022): a caption against a foil, for linguistic phenomena from plurals
to exchanged roles."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from cae_lib.data import rows
from cae_lib.data.benchmarks.base import Benchmark, Choice
from cae_lib.data.benchmarks.collect import Collector, Family, Options

OFFICIAL = {
    "actant-swap": 949, "action-replacement": 648, "coreference-hard": 104,
    "coreference-standard": 708, "counting-adversarial": 691, "counting-hard": 868,
    "counting-small-quant": 900, "existence": 505, "foil-it": 943, "plurals": 851, "relations": 535,
}
MIN_VOTES = 2
# Folders below the root, in the official evaluation's own layout; `../coco/` is COCO's.
IMAGE_FOLDERS = {
    **dict.fromkeys(("actant-swap", "action-replacement"), "data/actions/images_512"),
    "coreference-hard": "data/coref/release_v18/test_images",
    "coreference-standard": "data/coref/release_too_many_is_this_in_color/images",
    **{n: "data/visual7w/images" for n in OFFICIAL if n.startswith(("counting", "existence"))},
    "foil-it": "../coco/val2014",
    "plurals": "data/plurals/test_images",
    "relations": "data/relations/test_images",
}
SHARED_FOLDERS = ("images", "../coco/val2017", "../coco/val2014", "../coco/train2014")
FAMILY = Family("valse", OFFICIAL, "those of the sets that each item's field 'dataset' names")


def load(root: str | Path, **options: Unpack[Options]) -> list[Benchmark]:
    """Read VALSE's files, one benchmark each; the headline is the pairwise accuracy over items.

    Texts are (foil, caption). Only items that at least two of three annotators found valid are kept
    (`mturk.caption >= 2`), as the authors ask; the others are counted as `not_valid` and are not
    expected either. The filter also removes every item whose foil equals its caption. `root` holds
    `data/*.json`; pictures are looked for in each file's official folder, then in `images/` and in
    COCO's folders beside `root`.
    """
    files = {name: Path(root, "data", f"{name}.json") for name in OFFICIAL}
    return FAMILY.read(files, lambda part: _subset(part, Path(root)), (), **options)


def _subset(collector: Collector, root: Path) -> Benchmark:
    name = collector.subset
    folders = [root / folder for folder in (IMAGE_FOLDERS[name], *SHARED_FOLDERS)]

    def read(key: str, entry: object) -> Choice | None:
        if rows.number(rows.value(entry, "mturk"), "caption") < MIN_VOTES:
            collector.counts["not_valid"] += 1
            return None
        file = rows.text(entry, "image_file")
        image = collector.picture(*(folder / file for folder in folders))
        texts = (rows.text(entry, "foil"), rows.text(entry, "caption"))
        return Choice((image,), texts, truth=1, group=name, id=key)

    return collector.rows(rows.read_json(collector.source, dict), read).finish()
