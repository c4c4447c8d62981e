"""VL-CheckList: a phrase about a picture against one with an object, attribute or relation changed.

Zhao et al. 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cae_lib.data.benchmarks import files
from cae_lib.data.benchmarks.base import Benchmark, Choice, ImageRef
from cae_lib.data.benchmarks.collect import Collector, Policy, with_expected
from cae_lib.errors import DataError

NAME = "vl_checklist"
OFFICIAL = {
    "Attribute/vg/action": 1892,
    "Attribute/vg/color": 11_569,
    "Attribute/vg/material": 2470,
    "Attribute/vg/size": 2695,
    "Attribute/vg/state": 941,
    "Attribute/vaw/action": 3039,
    "Attribute/vaw/material": 11_835,
    "Attribute/vaw/size": 15_321,
    "Attribute/vaw/state": 4939,
    "Relation/swig_action": 25_150,
    "Relation/vg/action": 12_733,
    "Relation/vg/spatial": 30_650,
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
OFFICIAL_CORPORA = (*OFFICIAL, "Relation/hake_action", *OBJECT_CORPORA)
"""Files that the official set has; some versions have `Attribute/vaw/color`, too."""

SOURCES = ("hake", "swig", "vaw", "vg")
IMAGE_FOLDERS = {"hake": "hake", "swig": "swig", "vaw": "vg", "vg": "vg"}
IMAGES_FROM = "those of Visual Genome (vg/VG_100K, vg/VG_100K_2), SWiG (swig/) and HAKE (hake/)"
EMPTY_CORPUS = "swig_place"


def load(
    root: str | Path,
    *,
    image_dir: str | Path | None = None,
    corpora: Sequence[str] | None = None,
    expected: Mapping[str, int] | None = None,
    official: bool = False,
    allow_missing: bool = False,
) -> list[Benchmark]:
    """Read the corpora of VL-CheckList, one benchmark a file; the headline is the mean over items.

    Texts are (NEG[0], POS[0]): of rows with three of each only the first pair is scored, as in the
    official image-text contrast. No file is capped. Rows whose NEG equals POS are kept, are wrong
    under the strict rule, and are counted as `identical`. There are published counts for some
    corpora only; the others are expected to have as many items as rows.

    Args:
        root: Folder with `data/{Attribute,Object,Relation}/.../*.json`.
        image_dir: Folder that holds `vg/`, `swig/` and `hake/`; by default `root`.
        corpora: Files to read, as paths below `data/` without `.json`; by default all that are
            there or expected, but for `swig_place`, whose official files are empty lists.
        expected: Number of items by corpus.
        official: Expect the official files, and the published numbers of items.
        allow_missing: Leave out and count what cannot be used instead of raising an error.

    Raises:
        DataError: If a file or picture is missing, a file is empty, or a row is malformed.
    """
    data = Path(root) / "data"
    policy = Policy.of(expected, official, OFFICIAL, allow_missing)
    if corpora is not None:
        names = list(corpora)
    else:
        names = with_expected(_present(data), policy)
        names += [name for name in OFFICIAL_CORPORA if official and name not in names]
    images = Path(image_dir) if image_dir is not None else Path(root)
    return [_corpus(data, name, images, policy) for name in names]


def _present(data: Path) -> list[str]:
    found = sorted(str(path.relative_to(data).with_suffix("")) for path in data.rglob("*.json"))
    names = [name for name in found if EMPTY_CORPUS not in name]
    if not names:
        raise DataError(f"{data}: no corpus is there. Put VL-CheckList's folder data/ there.")
    return names


def _corpus(data: Path, corpus: str, image_dir: Path, policy: Policy) -> Benchmark:
    path = data / f"{corpus}.json"
    folder = image_dir / IMAGE_FOLDERS[_source(corpus, path)]
    entries = files.read_json(path, list)
    if not entries:
        raise DataError(f"{path}: the file lists no rows. Leave {corpus!r} out of corpora.")
    collector = Collector(NAME, corpus, path, policy, IMAGES_FROM)

    def read(key: str, entry: object) -> Choice:
        name, texts = _row(entry)
        collector.counts["identical"] += texts[0] == texts[1]
        return Choice((ImageRef(folder / name),), texts, truth=1, group=corpus, id=key)

    collector.rows(entries, read)
    return collector.finish()


def _source(corpus: str, path: Path) -> str:
    """Which collection a corpus takes its pictures from, told by its folder or file name."""
    for part in reversed(corpus.split("/")):
        for source in SOURCES:
            if part == source or part.startswith(f"{source}_"):
                return source
    raise DataError(
        f"{path}: cannot tell where its pictures come from. Name the file or a folder above it "
        f"after one of {', '.join(SOURCES)}, as the official tree does."
    )


def _row(entry: object) -> tuple[str, tuple[str, str]]:
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
        raise files.RowError('expected ["path", {"POS": [...], "NEG": [...]}]')
    return entry[0], (_first(entry[1], "NEG"), _first(entry[1], "POS"))


def _first(entry: object, key: str) -> str:
    texts = files.value(entry, key)
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise files.RowError(f"field '{key}' is {texts!r}, a list of texts was expected")
    return texts[0]
