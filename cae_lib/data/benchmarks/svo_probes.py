"""SVO-Probes: one sentence, a picture that fits, and one with another subject, verb or object.

Hendricks and Nematzadeh 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cae_lib.data.benchmarks import files
from cae_lib.data.benchmarks.base import Benchmark, Choice, ImageRef
from cae_lib.data.benchmarks.collect import Collector, Policy, first_existing

NAME = "svo_probes"
SUBSET = "all"
GROUPS = ("subj", "verb", "obj")
MIXED = "mixed"
COLUMNS = ("sentence", "pos_image_id", "neg_image_id", *(f"{group}_neg" for group in GROUPS))
SUFFIXES = (".jpg", ".png", ".jpeg", "")
IMAGES_FROM = "downloads of the file's URLs, under images/{image id}.jpg; many URLs are dead"


def load(
    root: str | Path,
    *,
    image_dir: str | Path | None = None,
    expected: Mapping[str, int] | None = None,
    official: bool = False,
    allow_missing: bool = False,
) -> list[Benchmark]:
    """Read `svo_probes.csv`: one text and the pictures (positive, negative) per row.

    The score is the share of rows where the sentence is closer to the positive picture, as papers
    on CLIP-like models report it; the match/no-match accuracy of the official notebook is
    `evaluation.match`. Groups are the kind of the negative (subj, verb, obj); rows with no flag or
    several are `mixed`, which counts in the micro average only. The headline is micro.

    Args:
        root: Folder with `svo_probes.csv`.
        image_dir: Folder of the pictures, named by image id; by default `root/images`.
        expected: Number of rows, `{"all": n}`.
        official: Has no effect: no verified count of rows is published, so as many are expected
            as the file lists. Kept so that all loaders take the same arguments.
        allow_missing: Leave out and count what cannot be used instead of raising an error.

    Raises:
        DataError: If the file or a picture is missing, or a row is malformed.
    """
    path = Path(root) / "svo_probes.csv"
    folder = Path(image_dir) if image_dir is not None else Path(root) / "images"
    policy = Policy.of(expected, official, {}, allow_missing)
    collector = Collector(NAME, SUBSET, path, policy, IMAGES_FROM)
    for number, row in files.read_csv(path, COLUMNS):
        with collector.row(f"ending at line {number}"):
            collector.add(_read(folder, number, row))
    collector.counts[MIXED] = sum(item.group == MIXED for item in collector.items)
    present = {item.group for item in collector.items}
    return [collector.finish(macro_groups=tuple(g for g in GROUPS if g in present))]


def _read(folder: Path, number: int, row: object) -> Choice:
    flags = [group for group in GROUPS if _flag(row, f"{group}_neg")]
    return Choice(
        images=(_image(folder, row, "pos_image_id"), _image(folder, row, "neg_image_id")),
        texts=(files.text(row, "sentence"),),
        truth=0,
        group=flags[0] if len(flags) == 1 else MIXED,
        id=str(number),
    )


def _image(folder: Path, row: object, key: str) -> ImageRef:
    name = files.text(row, key).strip()
    if name.endswith(".0"):  # integers that went through a float column
        name = name[:-2]
    return ImageRef(first_existing([folder / f"{name}{suffix}" for suffix in SUFFIXES]))


def _flag(row: object, key: str) -> bool:
    word = files.text(row, key).strip().lower()
    if word not in ("true", "false"):
        raise files.RowError(f"field '{key}' is {word!r}, True or False was expected")
    return word == "true"
