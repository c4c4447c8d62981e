"""NegBench (Alhamoud et al. 2025), questions of four captions: what a picture shows or lacks."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Unpack

from cae_lib.data import rows
from cae_lib.data.benchmarks.base import Benchmark, Choice
from cae_lib.data.benchmarks.collect import Collector, Family, Options

# Not printed anywhere: inferred from the accuracies in the authors' tables.
OFFICIAL = {"coco": 5914, "voc2007": 5031}
FILES = {
    "coco": "images/COCO_val_mcq_llama3.1_rephrased.csv",
    "voc2007": "images/VOC2007_mcq_llama3.1_rephrased.csv",
}
IMAGE_FOLDERS = {
    "coco": ("../coco/val2017", "coco/val2017", "images"),
    "voc2007": ("VOCdevkit/VOC2007/JPEGImages", "VOC2007/JPEGImages", "images"),
}
CAPTIONS = tuple(f"caption_{number}" for number in range(4))
COLUMNS = ("image_path", "correct_answer", *CAPTIONS, "correct_answer_template")
FAMILY = Family(
    "negbench", OFFICIAL, "COCO's val2017, in coco/val2017, and VOC2007's test set, in VOCdevkit/"
)


def load(root: str | Path, **options: Unpack[Options]) -> list[Benchmark]:
    """Read the two files of questions about photographs, one benchmark each.

    Each item is one picture and four captions; groups are the forms of the right one (positive,
    negative, hybrid); the headline is the mean over items. The official argmax takes the first of
    equal captions, which is the right one in both files, so there a tie is right, and here wrong.
    `root` holds `images/*_mcq_llama3.1_rephrased.csv`, as the official `data/`. Paths of pictures
    are of another machine: they are found by their last part in `IMAGE_FOLDERS`.
    """
    files = {name: Path(root, file) for name, file in FILES.items()}
    return FAMILY.read(files, lambda part: _subset(part, Path(root)), **options)


def _subset(collector: Collector, root: Path) -> Benchmark:
    folders = [root / folder for folder in IMAGE_FOLDERS[collector.subset]]

    def read(key: str, row: object) -> Choice:
        truth = rows.number(row, "correct_answer")
        if truth not in range(len(CAPTIONS)):
            raise rows.RowError(f"the correct answer is {truth:g}, 0 to 3 was expected")
        name = PurePosixPath(rows.text(row, "image_path").replace("\\", "/")).name
        image = collector.picture(*(folder / name for folder in folders))
        texts = tuple(rows.text(row, caption) for caption in CAPTIONS)
        return Choice((image,), texts, int(truth), rows.text(row, "correct_answer_template"), key)

    collector.rows(rows.read_csv(collector.source, COLUMNS), read, where="row ending at line {}")
    return collector.finish(rule="mean over items, a tie is wrong (officially right)")
