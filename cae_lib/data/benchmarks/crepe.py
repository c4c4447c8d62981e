"""CREPE (Ma et al. 2023): the true caption of a part of a picture among hard negatives. The
systematicity files are made for one pretraining set each, and say something about models that were
trained on that set only; OpenAI's is not among them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Unpack

from cae_lib.data import rows
from cae_lib.data.benchmarks.base import Benchmark, Choice
from cae_lib.data.benchmarks.collect import Collector, Family, Options

COMPLEXITIES = range(4, 13)
OFFICIAL_ROWS = {
    "atom": (1258, 1454, 1805, 2082, 2241, 1897, 2265, 1724, 2001),
    "swap": (27, 36, 262, 505, 991, 884, 1293, 1076, 1578),
    "negate": (1262, 1312, 1798, 2009, 2244, 1824, 2237, 1660, 1990),
}
OFFICIAL = {subset: sum(counts) for subset, counts in OFFICIAL_ROWS.items()}
N_NEGATIVES = 5
FILE = "data/prod_hard_negatives/{0}/prod_vg_hard_negs_{0}_complexity_{1}.csv"
SYSTEMATICITY_FILE = "data/syst_hard_negatives/syst_vg_hard_negs_{}_compounds_in_{}.csv"
CORPORA, SPLITS, KINDS = ("cc12m", "yfcc", "laion"), ("seen", "unseen"), ("atom", "comp")
COLUMNS = ("image_id", "caption", "x", "y", "width", "height")
IMAGE_FOLDERS = ("VG_100K", "VG_100K_2", "images")
IMAGES_FROM = "Visual Genome's, in VG_100K/ and VG_100K_2/"
FAMILY = Family("crepe", OFFICIAL, IMAGES_FROM)
SYSTEMATICITY = Family("crepe_systematicity", {}, IMAGES_FROM)
END = "row ending at line {}"


def load(root: str | Path, **options: Unpack[Options]) -> list[Benchmark]:
    """Read the productivity files: one picture, cut to its box, and (caption, 5 negatives).

    One benchmark for each kind of negative (atom, swap, negate), with one group a complexity. An
    item is right if the true caption ranks first (R@1). The official script prints one number a
    complexity; the headline is their unweighted mean. Negatives that repeat the caption make an
    item wrong under the strict rule and are counted as `identical`. Some rows hold a set in place
    of a list, which is read in the order it is written in; one of less than five is taken as it is
    and counted as `fewer_negatives`. `root` holds
    `data/prod_hard_negatives/{atom,swap,negate}/*.csv`, and the pictures in `VG_100K/`,
    `VG_100K_2/` or `images/`; expected numbers are those of all complexities together.
    """
    files = {}
    for kind in OFFICIAL:
        paths = [Path(root, FILE.format(kind, n)) for n in COMPLEXITIES]
        files[kind] = [path for path in paths if path.is_file()] or paths[:1]
    firsts = {kind: paths[0] for kind, paths in files.items()}
    return FAMILY.read(firsts, lambda part: _kind(part, files[part.subset], Path(root)), (),
                       **options)


def _kind(collector: Collector, paths: list[Path], root: Path) -> Benchmark:
    collector.source = paths[0].parent
    for path in paths:
        complexity = path.stem.rpartition("_")[2]
        read = _reader(collector, root, "hard_negs", complexity)
        found = rows.read_csv(path, (*COLUMNS, "hard_negs"))
        collector.rows(found, read, where=f"{END} of {path.name}")
    fewer = sum(len(item.texts) <= N_NEGATIVES for item in collector.items)
    if fewer:
        collector.counts["fewer_negatives"] = fewer
    return collector.finish(headline="macro", rule="mean over complexities, R@1 among 6")


def load_systematicity(root: str | Path, **options: Unpack[Options]) -> list[Benchmark]:
    """Read the systematicity files: one picture, cut to its box, and (caption, hard negatives).

    One benchmark for each pretraining set, split (compound seen or unseen) and kind of negatives,
    such as `laion/unseen/atom`; by default the kinds "atom" and "comp", not "combined", of each
    pretraining set of which a file is in `data/syst_hard_negatives/`. Right is what ranks first
    (R@1), averaged over items. Rows whose list of valid negatives is empty ask nothing: they are
    left out, counted as `no_negatives`, and not expected either. No verified numbers are published.
    """
    kinds = KINDS if options.get("subsets") is None else (*KINDS, "combined")
    files = {
        f"{corpus}/{split}/{kind}": Path(root, SYSTEMATICITY_FILE.format(split, corpus))
        for corpus in CORPORA
        for split in SPLITS
        for kind in kinds
    }
    here = {name.partition("/")[0] for name, path in files.items() if path.is_file()}
    required = [name for name in files if name.partition("/")[0] in here]
    return SYSTEMATICITY.read(files, lambda part: _systematicity(part, Path(root)), required,
                              **options)


def _systematicity(collector: Collector, root: Path) -> Benchmark:
    column = f"valid_hard_negs_{collector.subset.rpartition('/')[2]}"
    found = rows.read_csv(collector.source, (*COLUMNS, column))
    collector.rows(found, _reader(collector, root, column), where=END)
    return collector.finish(rule="mean over items, R@1")


def _reader(
    collector: Collector, root: Path, column: str, complexity: str = ""
) -> Callable[[str, object], Choice | None]:
    """A reader of rows whose `column` lists the negatives: five with a complexity, else any."""

    def read(key: str, row: object) -> Choice | None:
        negatives = rows.literal(row, column)
        if rows.text(row, column).lstrip().startswith("{"):  # a set, in which none stands twice
            negatives = list(dict.fromkeys(negatives))
        elif complexity and len(negatives) != N_NEGATIVES:
            raise rows.RowError(f"has {len(negatives)} negatives, {N_NEGATIVES} were expected")
        if not negatives:
            collector.counts["no_negatives"] += 1
            return None
        name = f"{rows.number(row, 'image_id'):.0f}.jpg"
        places = (root / folder / name for folder in IMAGE_FOLDERS)
        image = collector.picture(*places, crop=rows.box(row, "x", "y", "width", "height"))
        texts = (rows.text(row, "caption"), *negatives)
        group, number = complexity or collector.subset, f"{complexity}/{key}" if complexity else key
        return Choice((image,), texts, truth=0, group=group, id=number)

    return read
