"""CREPE productivity: the true caption among five hard negatives, by complexity of the caption.

Ma et al. 2023. The systematicity files are read by `crepe_systematicity`.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path

from cae_lib.data.benchmarks import files
from cae_lib.data.benchmarks.base import Benchmark, Choice, ImageRef
from cae_lib.data.benchmarks.collect import Collector, Policy, first_existing, with_expected
from cae_lib.errors import ConfigError, DataError

NAME = "crepe"
COMPLEXITIES = range(4, 13)
OFFICIAL_ROWS = {
    "atom": (1258, 1454, 1805, 2082, 2241, 1897, 2265, 1724, 2001),
    "swap": (27, 36, 262, 505, 991, 884, 1293, 1076, 1578),
    "negate": (1262, 1312, 1798, 2009, 2244, 1824, 2237, 1660, 1990),
}
OFFICIAL = {subset: sum(rows) for subset, rows in OFFICIAL_ROWS.items()}
N_NEGATIVES = 5
COLUMNS = ("image_id", "caption", "hard_negs", "x", "y", "width", "height")
IMAGE_FOLDERS = ("VG_100K", "VG_100K_2", "images")
IMAGES_FROM = "Visual Genome's, in VG_100K/ and VG_100K_2/"


def load(
    root: str | Path,
    *,
    image_dir: str | Path | None = None,
    subsets: Sequence[str] | None = None,
    expected: Mapping[str, int] | None = None,
    official: bool = False,
    allow_missing: bool = False,
) -> list[Benchmark]:
    """Read the productivity files: one picture, cut to its box, and (caption, 5 negatives).

    One benchmark for each kind of negative (atom, swap, negate), with one group a complexity.
    An item is right if the true caption ranks first (R@1). The official script prints one number
    a complexity; the headline is their unweighted mean. Negatives that repeat the caption make an
    item wrong under the strict rule and are counted as `identical`.

    Args:
        root: Folder with `data/prod_hard_negatives/{atom,swap,negate}/*.csv`.
        image_dir: Folder that holds `VG_100K/` and `VG_100K_2/` (or `images/`); by default `root`.
        subsets: Kinds of negatives to read; by default those that are there or expected.
        expected: Number of items by kind, all complexities together.
        official: Expect the published numbers of rows.
        allow_missing: Leave out and count what cannot be used instead of raising an error.

    Raises:
        ConfigError: If a kind is unknown.
        DataError: If a file or picture is missing, or a row is malformed.
    """
    folder = Path(root) / "data" / "prod_hard_negatives"
    policy = Policy.of(expected, official, OFFICIAL, allow_missing)
    names = list(subsets) if subsets is not None else with_expected(_present(folder), policy)
    unknown = [name for name in names if name not in OFFICIAL]
    if unknown:
        raise ConfigError(f"no such kind of CREPE negative: {unknown}. Known: {list(OFFICIAL)}.")
    images = Path(image_dir) if image_dir is not None else Path(root)
    return [_subset(folder / name, images, policy) for name in names]


def _present(folder: Path) -> list[str]:
    names = [name for name in OFFICIAL if (folder / name).is_dir()]
    if not names:
        raise DataError(f"{folder}: no folder of {', '.join(OFFICIAL)} is there.")
    return names


def _subset(folder: Path, images: Path, policy: Policy) -> Benchmark:
    pattern = f"prod_vg_hard_negs_{folder.name}_complexity_{{}}.csv"
    paths = {n: folder / pattern.format(n) for n in COMPLEXITIES}
    present = {n: path for n, path in paths.items() if path.is_file()}
    if not present:
        raise DataError(f"{folder}: no file {pattern.format('N')} is there.")
    collector = Collector(NAME, folder.name, folder, policy, IMAGES_FROM)
    for complexity, path in present.items():
        for number, row in files.read_csv(path, COLUMNS):
            with collector.row(f"ending at line {number} of {path.name}"):
                collector.add(_read(collector, images, complexity, number, row))
    return collector.finish(headline="macro", rule="mean over complexities, R@1 among 6")


def _read(
    collector: Collector, images: Path, complexity: int, number: int, row: object
) -> Choice:
    caption, negatives = files.text(row, "caption"), _negatives(row)
    collector.counts["identical"] += caption in negatives
    name = f"{files.number(row, 'image_id'):.0f}.jpg"
    path = first_existing([images / folder / name for folder in IMAGE_FOLDERS])
    crop = files.box(row, "x", "y", "width", "height")
    texts = (caption, *negatives)
    return Choice((ImageRef(path, crop),), texts, 0, str(complexity), f"{complexity}/{number}")


def _negatives(row: object) -> tuple[str, ...]:
    literal = files.text(row, "hard_negs")
    try:
        found = ast.literal_eval(literal)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = None
    if (
        not isinstance(found, list)
        or len(found) != N_NEGATIVES
        or not all(isinstance(text, str) for text in found)
    ):
        raise files.RowError(
            f"field 'hard_negs' is {literal[:60]!r}, a Python list of {N_NEGATIVES} texts "
            "was expected"
        )
    return tuple(found)
