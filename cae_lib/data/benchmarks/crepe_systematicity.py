"""CREPE systematicity: captions whose parts occur in the pretraining set, or whose compound does.

Ma et al. 2023. The split is made for one pretraining set (CC12M, YFCC or LAION) and says something
about models that were trained on that set only; OpenAI's is not among them.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path

from cae_lib.data.benchmarks import files
from cae_lib.data.benchmarks.base import Benchmark, Choice, ImageRef
from cae_lib.data.benchmarks.collect import Collector, Policy, first_existing
from cae_lib.data.benchmarks.crepe import IMAGE_FOLDERS, IMAGES_FROM
from cae_lib.errors import ConfigError, DataError

NAME = "crepe_systematicity"
CORPORA = ("cc12m", "yfcc", "laion")
SPLITS = ("seen", "unseen")
KINDS = ("atom", "comp", "combined")
FILE = "syst_vg_hard_negs_{}_compounds_in_{}.csv"
COLUMNS = ("image_id", "caption", "x", "y", "width", "height")


def load(
    root: str | Path,
    *,
    image_dir: str | Path | None = None,
    pretrained_on: Sequence[str] | None = None,
    kinds: Sequence[str] = ("atom", "comp"),
    expected: Mapping[str, int] | None = None,
    official: bool = False,
    allow_missing: bool = False,
) -> list[Benchmark]:
    """Read the systematicity files: one picture, cut to its box, and (caption, hard negatives).

    One benchmark for each pretraining set, split (compound seen or unseen) and kind of negatives,
    such as `laion/unseen/atom`. Right is what ranks first (R@1), averaged over items. Rows whose
    list of valid negatives is empty ask nothing: they are left out, counted as `no_negatives`, and
    not expected either.

    Args:
        root: Folder with `data/syst_hard_negatives/*.csv`.
        image_dir: Folder that holds `VG_100K/` and `VG_100K_2/` (or `images/`); by default `root`.
        pretrained_on: "cc12m", "yfcc", "laion"; by default those whose files are there.
        kinds: Columns of negatives to read: "atom", "comp", "combined".
        expected: Number of items by subset.
        official: Has no effect: no verified counts are published.
        allow_missing: Leave out and count what cannot be used instead of raising an error.

    Raises:
        ConfigError: If a pretraining set or a kind is unknown.
        DataError: If a file or picture is missing, or a row is malformed.
    """
    folder = Path(root) / "data" / "syst_hard_negatives"
    corpora = tuple(pretrained_on) if pretrained_on is not None else _present(folder)
    for names, known in ((corpora, CORPORA), (kinds, KINDS)):
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ConfigError(f"CREPE systematicity has no {unknown}. Known: {', '.join(known)}.")
    images = Path(image_dir) if image_dir is not None else Path(root)
    policy = Policy.of(expected, official, {}, allow_missing)
    return [
        _subset(folder / FILE.format(split, corpus), f"{corpus}/{split}/{kind}", images, policy)
        for corpus in corpora
        for split in SPLITS
        for kind in kinds
    ]


def _present(folder: Path) -> tuple[str, ...]:
    """Pretraining sets of which at least one file is there; the other file is then expected."""
    names = tuple(
        name
        for name in CORPORA
        if any((folder / FILE.format(split, name)).is_file() for split in SPLITS)
    )
    if not names:
        raise DataError(f"{folder}: no file like {FILE.format('unseen', 'laion')} is there.")
    return names


def _subset(path: Path, subset: str, images: Path, policy: Policy) -> Benchmark:
    column = f"valid_hard_negs_{subset.rpartition('/')[2]}"
    collector = Collector(NAME, subset, path, policy, IMAGES_FROM)
    for number, row in files.read_csv(path, (*COLUMNS, column)):
        with collector.row(f"ending at line {number}"):
            negatives = text_list(row, column)
            if negatives:
                collector.add(_read(collector, images, number, row, negatives))
            else:
                collector.counts["no_negatives"] += 1
                collector.n_rows -= 1
    return collector.finish(rule="mean over items, R@1")


def _read(
    collector: Collector, images: Path, number: int, row: object, negatives: tuple[str, ...]
) -> Choice:
    caption = files.text(row, "caption")
    collector.counts["identical"] += caption in negatives
    name = f"{files.number(row, 'image_id'):.0f}.jpg"
    path = first_existing([images / folder / name for folder in IMAGE_FOLDERS])
    image = ImageRef(path, files.box(row, "x", "y", "width", "height"))
    return Choice((image,), (caption, *negatives), 0, collector.subset, str(number))


def text_list(row: object, column: str) -> tuple[str, ...]:
    """A cell that is written as a Python list of texts, perhaps an empty one.

    Raises:
        RowError: If the cell is something else.
    """
    literal = files.text(row, column)
    try:
        found = ast.literal_eval(literal)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise files.RowError(
            f"field '{column}' is {literal[:60]!r}, a Python list of texts was expected"
        )
    return tuple(found)
