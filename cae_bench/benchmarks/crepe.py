"""CREPE (Ma et al. 2023): the true caption of a region of an image among hard negatives.

Productivity has a file for each kind of negatives and complexity of captions. Systematicity has two
files for each pretraining dataset, with compounds that it does or does not contain; its score means
something only for models trained on that dataset. The score is R@1; the true caption is option 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cae_bench.benchmarks.base import Average, ExcludedRow, Family, Item, find_image
from cae_lib.data.rows import MissingFileError, Row, csv_rows
from cae_lib.errors import DataError

ITEM_COUNTS = {"atom": 16_727, "swap": 6652, "negate": 16_336}
"""Published number of items of productivity for each kind of negatives."""

CSV_COLUMNS = ("image_id", "caption", "x", "y", "width", "height")
"""Columns that all annotation files must have, besides the column of the negatives."""

N_NEGATIVES = 5
"""Number of hard negatives of an item of productivity; a Python set may hold fewer."""

COMPLEXITIES = range(4, 13)
"""Complexities of the captions of productivity; each kind of negatives has a file for each."""

PRODUCTIVITY_FILE = "crepe/data/prod_hard_negatives/{0}/prod_vg_hard_negs_{0}_complexity_{1}.csv"
"""File of productivity: `{0}` is the kind of negatives, such as "atom", `{1}` the complexity."""

SYSTEMATICITY_FILE = "crepe/data/syst_hard_negatives/syst_vg_hard_negs_{1}_compounds_in_{0}.csv"
"""File of systematicity: `{0}` is the pretraining dataset, `{1}` "seen" or "unseen"."""

CORPUS_SPLITS = [
    (name, split) for name in ("cc12m", "yfcc", "laion") for split in ("seen", "unseen")
]
"""Pretraining dataset and split of each file of systematicity."""

IMAGES_ADVICE = "Visual Genome's: put them into crepe/VG_100K and crepe/VG_100K_2"
"""Value of `Family.images_advice` for productivity and systematicity."""


def read_items(root: Path, subset: str) -> Iterator[Item]:
    """Yield the items of "atom", "swap" or "negate" by complexity, which is their group."""
    pattern = PRODUCTIVITY_FILE.format(subset, "*")
    # As numbers: as texts, complexity 12 would come before 4.
    paths = sorted(root.glob(pattern), key=_complexity)
    if not paths:
        raise MissingFileError(f"{root / pattern}: no such annotation file. Fetch it.")
    for path in paths:
        for row in csv_rows(path, (*CSV_COLUMNS, "hard_negs")):
            negatives = _negatives(row, "hard_negs")
            # Some cells hold a Python set, in which equal negatives may have fallen together.
            is_set = row.text("hard_negs").lstrip().startswith("{")
            if len(negatives) > N_NEGATIVES or (len(negatives) < N_NEGATIVES and not is_set):
                raise row.error(f"has {len(negatives)} negatives, {N_NEGATIVES} were expected")
            complexity = str(_complexity(path))
            yield _item(root, row, f"{complexity}/{row.key}", negatives, complexity)


def _read_systematicity_items(root: Path, subset: str) -> Iterator[Item | ExcludedRow]:
    """Yield the items of a subset `CORPUS/SPLIT/KIND`, such as "laion/seen/atom"."""
    corpus, split, kind = subset.split("/")
    column = f"valid_hard_negs_{kind}"
    for row in csv_rows(root / SYSTEMATICITY_FILE.format(corpus, split), (*CSV_COLUMNS, column)):
        negatives = _negatives(row, column)
        # Without valid negatives, nothing can be asked about the caption.
        yield (
            _item(root, row, row.key, negatives, subset)
            if negatives
            else ExcludedRow("no_negatives")
        )


def _complexity(path: Path) -> int:
    """Return the number at the end of a file's name."""
    complexity = path.stem.rpartition("_")[2]
    # A copy such as `..._4 (1).csv` would count its items twice.
    if not complexity.isdecimal():
        raise DataError(
            f"{path}: the name of the file has to end in a complexity, as in "
            "prod_vg_hard_negs_atom_complexity_4.csv. Remove the file if it is a copy."
        )
    return int(complexity)


def _negatives(row: Row, column: str) -> list[str]:
    """Return the negatives that a cell lists; if it holds a set, duplicates are dropped."""
    # In the order in which they are written, also those of a set, which has no order in Python.
    negatives = row.literal_list(column)
    is_set = row.text(column).lstrip().startswith("{")
    return list(dict.fromkeys(negatives)) if is_set else negatives


def _item(root: Path, row: Row, key: str, negatives: Sequence[str], group: str) -> Item:
    name = f"{row.integer('image_id')}.jpg"
    paths = (root / "crepe" / folder / name for folder in ("VG_100K", "VG_100K_2"))
    # Captions are about a region, and Visual Genome's images are in two folders.
    image = find_image(*paths, crop=row.box("x", "y", "width", "height"))
    return Item(key, (image,), (row.text("caption"), *negatives), group=group)


def _count_items_short_of_negatives(subset: str, items: Sequence[Item]) -> Mapping[str, int]:
    """Count the items with fewer than five negatives, if there are any."""
    # The true caption is one of the texts.
    n = sum(len(item.texts) <= N_NEGATIVES for item in items)
    return {"fewer_negatives": n} if n else {}


FAMILY = Family(
    "crepe",
    "crepe",
    read_items,
    published_counts=ITEM_COUNTS,
    files=tuple(PRODUCTIVITY_FILE.format(kind, n) for kind in ITEM_COUNTS for n in COMPLEXITIES),
    images_advice=IMAGES_ADVICE,
    in_paper=True,
    average=Average("mean over complexities, R@1 among 6", over_groups=True),
    extra_counts=_count_items_short_of_negatives,
)

SYSTEMATICITY_FAMILY = Family(
    "crepe_systematicity",
    "crepe",
    _read_systematicity_items,
    published_counts={
        f"{c}/{split}/{kind}": None for c, split in CORPUS_SPLITS for kind in ("atom", "comp")
    },
    files=tuple(SYSTEMATICITY_FILE.format(*names) for names in CORPUS_SPLITS),
    images_advice=IMAGES_ADVICE,
    average=Average("mean over items, R@1"),
    sources=("crepe",),
)
