"""SVO-Probes (Hendricks and Nematzadeh 2021): one sentence, a picture that fits, and one with
another subject, verb or object."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from cae_lib.data import rows
from cae_lib.data.benchmarks.base import Benchmark, Choice, ImageRef
from cae_lib.data.benchmarks.collect import Family, Options

GROUPS = ("subj", "verb", "obj")
MIXED = "mixed"
COLUMNS = ("sentence", "pos_image_id", "neg_image_id", *(f"{group}_neg" for group in GROUPS))
SUFFIXES = (".jpg", ".png", ".jpeg", "")
FAMILY = Family(
    "svo_probes", {}, "downloads of the file's URLs, images/{image id}.jpg; many URLs are dead"
)


def load(root: str | Path, **options: Unpack[Options]) -> list[Benchmark]:
    """Read `svo_probes.csv`: one text and the pictures (positive, negative) per row.

    The score is the share of rows where the sentence is closer to the positive picture, as papers
    on CLIP-like models report it; the match/no-match accuracy of the official notebook is
    `evaluation.choice.matches`. Groups are the kind of the negative (subj, verb, obj); rows with no
    flag or several are `mixed`, which counts in the micro average only. The headline is micro. The
    pictures are `images/{image id}.jpg`; no verified number of rows is published.
    """
    path = Path(root, "svo_probes.csv")
    (collector,) = FAMILY.parts({"all": path}, **options)

    def image(row: object, key: str) -> ImageRef:
        name = rows.text(row, key).strip().removesuffix(".0")  # some ids went through floats
        return collector.picture(*(path.parent / "images" / f"{name}{end}" for end in SUFFIXES))

    def read(key: str, row: object) -> Choice:
        flags = [group for group in GROUPS if _flag(row, f"{group}_neg")]
        group = flags[0] if len(flags) == 1 else MIXED
        images = (image(row, "pos_image_id"), image(row, "neg_image_id"))
        return Choice(images, (rows.text(row, "sentence"),), truth=0, group=group, id=key)

    collector.rows(rows.read_csv(path, COLUMNS), read, where="row ending at line {}")
    present = [item.group for item in collector.items]
    collector.counts[MIXED] = present.count(MIXED)
    return [collector.finish(macro_groups=tuple(g for g in GROUPS if g in present))]


def _flag(row: object, key: str) -> bool:
    word = rows.text(row, key).strip().lower()
    if word not in ("true", "false"):
        raise rows.RowError(f"field '{key}' is {word!r}, True or False was expected")
    return word == "true"
