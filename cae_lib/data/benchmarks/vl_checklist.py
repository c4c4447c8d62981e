"""VL-CheckList (Zhao et al. 2022): a phrase about a picture against one with an object, attribute
or relation changed."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from cae_lib.data import rows
from cae_lib.data.benchmarks.base import Benchmark, Choice
from cae_lib.data.benchmarks.collect import Collector, Family, Options
from cae_lib.errors import DataError

OFFICIAL = {
    "Attribute/vg/action": 1892, "Attribute/vg/color": 11_569, "Attribute/vg/material": 2470,
    "Attribute/vg/size": 2695, "Attribute/vg/state": 941,
    "Attribute/vaw/action": 3039, "Attribute/vaw/material": 11_835, "Attribute/vaw/size": 15_321,
    "Attribute/vaw/state": 4939,
    "Relation/swig_action": 25_150, "Relation/vg/action": 12_733, "Relation/vg/spatial": 30_650,
}
_PLACES = {"location": ("margin", "center", "mid"), "size": ("large", "medium", "small")}
_SWIG_ROLES = ("agent", "destination", "item", "tool")
OBJECT_CORPORA = tuple(
    f"Object/{kind.title()}/{folder}_{value}"
    for kind, values in _PLACES.items()
    for folder in (
        f"hake_{kind}/hake_obj",
        *(f"swig_{kind}/swig_{role}/swig_{role}" for role in _SWIG_ROLES),
        f"vg_{kind}/vg_obj",
        f"vg_{kind}/vg_subj",
    )
    for value in values
)
OFFICIAL_CORPORA = (*OFFICIAL, "Attribute/vaw/color", "Relation/hake_action", *OBJECT_CORPORA)
"""Files that the official set has."""

IMAGE_FOLDERS = {"hake": "hake", "swig": "swig", "vaw": "vg", "vg": "vg"}
FAMILY = Family(
    "vl_checklist", OFFICIAL,
    "those of Visual Genome (vg/VG_100K, vg/VG_100K_2), SWiG (swig/) and HAKE (hake/)",
)
EMPTY_CORPUS = "swig_place"


def load(root: str | Path, **options: Unpack[Options]) -> list[Benchmark]:
    """Read the corpora of VL-CheckList, one benchmark a file; the headline is the mean over items.

    Texts are (NEG[0], POS[0]): of rows with three of each only the first pair is scored, as in the
    official image-text contrast. No file is capped. Rows whose NEG equals POS are kept, are wrong
    under the strict rule, and are counted as `identical`. There are published counts for some
    corpora only; the others are expected to have as many items as rows. `root` holds
    `data/{Attribute,Object,Relation}/.../*.json`, `vg/`, `swig/` and `hake/`; subsets are paths
    below `data/` without `.json`, by default not `swig_place`, whose official files are empty
    lists.
    """
    data = Path(root, "data")
    found = sorted(str(path.relative_to(data).with_suffix("")) for path in data.rglob("*.json"))
    if options.get("subsets") is None:
        found = [name for name in found if EMPTY_CORPUS not in name]
    files = {name: data / f"{name}.json" for name in (*found, *OFFICIAL_CORPORA)}
    required = OFFICIAL_CORPORA if options.get("official") else ()
    return FAMILY.read(files, lambda part: _corpus(part, Path(root)), required, **options)


def _corpus(collector: Collector, root: Path) -> Benchmark:
    folder = root / IMAGE_FOLDERS[_source(collector)]
    entries = rows.read_json(collector.source, list)
    if not entries:
        raise DataError(f"{collector.source}: the file lists no rows. Leave it out of subsets.")

    def read(key: str, entry: object) -> Choice:
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
            raise rows.RowError('expected ["path", {"POS": [...], "NEG": [...]}]')
        texts = (_first(entry[1], "NEG"), _first(entry[1], "POS"))
        image = collector.picture(folder / entry[0])
        return Choice((image,), texts, truth=1, group=collector.subset, id=key)

    return collector.rows(enumerate(entries), read).finish()


def _source(collector: Collector) -> str:
    """Which collection a corpus takes its pictures from, told by its folder or file name."""
    for part in reversed(collector.subset.split("/")):
        if part.partition("_")[0] in IMAGE_FOLDERS:
            return part.partition("_")[0]
    raise DataError(
        f"{collector.source}: cannot tell where its pictures come from. Name the file or a folder "
        f"above it after one of {', '.join(IMAGE_FOLDERS)}, as the official tree does."
    )


def _first(entry: object, key: str) -> str:
    texts = rows.value(entry, key)
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise rows.RowError(f"field '{key}' is {texts!r}, a list of texts was expected")
    return texts[0]
