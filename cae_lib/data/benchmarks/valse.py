"""VALSE: a caption against a foil, for linguistic phenomena from plurals to exchanged roles.

Parcalabescu et al. 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cae_lib.data.benchmarks import files
from cae_lib.data.benchmarks.base import Benchmark, Choice, ImageRef
from cae_lib.data.benchmarks.collect import Collector, Policy, first_existing, with_expected
from cae_lib.errors import DataError

NAME = "valse"
OFFICIAL = {
    "actant-swap": 949,
    "action-replacement": 648,
    "coreference-hard": 104,
    "coreference-standard": 708,
    "counting-adversarial": 691,
    "counting-hard": 868,
    "counting-small-quant": 900,
    "existence": 505,
    "foil-it": 943,
    "plurals": 851,
    "relations": 535,
}
MIN_VOTES = 2
# Folders below the root, in the official evaluation's own layout; `../coco/` is COCO's.
IMAGE_FOLDERS = {
    "actant-swap": "data/actions/images_512",
    "action-replacement": "data/actions/images_512",
    "coreference-hard": "data/coref/release_v18/test_images",
    "coreference-standard": "data/coref/release_too_many_is_this_in_color/images",
    "counting-adversarial": "data/visual7w/images",
    "counting-hard": "data/visual7w/images",
    "counting-small-quant": "data/visual7w/images",
    "existence": "data/visual7w/images",
    "foil-it": "../coco/val2014",
    "plurals": "data/plurals/test_images",
    "relations": "data/relations/test_images",
}
SHARED_FOLDERS = ("images", "../coco/val2017", "../coco/val2014", "../coco/train2014")
IMAGES_FROM = "those of the sets that each item's field 'dataset' names"


def load(
    root: str | Path,
    *,
    image_dir: str | Path | None = None,
    instruments: Sequence[str] | None = None,
    valid_only: bool = True,
    expected: Mapping[str, int] | None = None,
    official: bool = False,
    allow_missing: bool = False,
) -> list[Benchmark]:
    """Read VALSE's files, one benchmark each; the headline is the pairwise accuracy over items.

    Texts are (foil, caption). Only items that at least two of three annotators found valid are
    kept (`mturk.caption >= 2`), as the authors ask; the others are counted as `not_valid` and are
    not expected either. The filter also removes every item whose foil equals its caption.

    Args:
        root: Folder with `data/*.json`.
        image_dir: One folder with all pictures; by default each instrument's official folder,
            then `images/` and COCO's folders beside `root`.
        instruments: Names of files to read; by default all official ones that are there or
            expected.
        valid_only: Apply the validity filter. The published counts are those with the filter.
        expected: Number of items by instrument.
        official: Expect the published numbers of valid items.
        allow_missing: Leave out and count what cannot be used instead of raising an error.

    Raises:
        DataError: If a file or picture is missing, or an item is malformed.
    """
    root = Path(root)
    policy = Policy.of(expected, official, OFFICIAL, allow_missing)
    names = list(instruments) if instruments is not None else with_expected(_present(root), policy)
    return [_instrument(root, name, image_dir, valid_only, policy) for name in names]


def _present(root: Path) -> list[str]:
    names = [name for name in OFFICIAL if (root / "data" / f"{name}.json").is_file()]
    if not names:
        raise DataError(f"{root / 'data'}: none of VALSE's files is there ({', '.join(OFFICIAL)}).")
    return names


def _instrument(
    root: Path, name: str, image_dir: str | Path | None, valid_only: bool, policy: Policy
) -> Benchmark:
    path = root / "data" / f"{name}.json"
    if image_dir is not None:
        folders = [Path(image_dir)]
    else:
        own = IMAGE_FOLDERS.get(name, "images")
        folders = [root / folder for folder in (own, *SHARED_FOLDERS)]
    collector = Collector(NAME, name, path, policy, IMAGES_FROM)
    for key, entry in files.read_json(path, dict).items():
        if valid_only and _votes(entry) < MIN_VOTES:
            collector.counts["not_valid"] += 1
            continue
        with collector.row(key):
            collector.add(_read(collector, key, entry, folders))
    return collector.finish()


def _votes(entry: object) -> float:
    """Votes for the caption; a row without a readable vote is left to the reader of the row."""
    try:
        return files.number(files.value(entry, "mturk"), "caption")
    except files.RowError:
        return MIN_VOTES


def _read(collector: Collector, key: str, entry: object, folders: list[Path]) -> Choice:
    files.number(files.value(entry, "mturk"), "caption")
    name = files.text(entry, "image_file")
    texts = (files.text(entry, "foil"), files.text(entry, "caption"))
    collector.counts["identical"] += texts[0] == texts[1]
    image = ImageRef(first_existing([folder / name for folder in folders]))
    return Choice((image,), texts, truth=1, group=collector.subset, id=key)
