"""NegBench (Alhamoud et al. 2025): four captions that say what an image shows or does not show.

These are the multiple-choice questions of NegBench. If captions have equal scores, the official
argmax takes the first one, which in both files is the true caption; here a tie is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from cae_bench.benchmarks.base import Average, Family, ImageRef, Item
from cae_lib.data.rows import csv_rows

ANNOTATION_FILES = {
    "coco": "negbench/images/COCO_val_mcq_llama3.1_rephrased.csv",
    "voc2007": "negbench/images/VOC2007_mcq_llama3.1_rephrased.csv",
}
"""Annotation file of each subset, relative to the folder of all datasets."""

IMAGE_FOLDERS = {"coco": "coco/val2017", "voc2007": "negbench/VOCdevkit/VOC2007/JPEGImages"}
"""Folder with the images of each subset, relative to the folder of all datasets."""

CAPTION_COLUMNS = tuple(f"caption_{n}" for n in range(4))
"""Columns of the annotation files that hold the four captions."""

TEMPLATES = ("positive", "negative", "hybrid")
"""Templates of captions: what is there, what is not there, or both."""

CSV_COLUMNS = ("image_path", "correct_answer", *CAPTION_COLUMNS, "correct_answer_template")
"""Columns that the annotation files must have."""


def read_items(root: Path, subset: str) -> Iterator[Item]:
    """Yield the items of "coco" or "voc2007" in the group of their true caption's template."""
    for row in csv_rows(root / ANNOTATION_FILES[subset], CSV_COLUMNS):
        # A path on the authors' machine, with slashes of either kind: only the name is of use.
        name = PurePosixPath(row.text("image_path").strip().replace("\\", "/")).name
        image = ImageRef(root / IMAGE_FOLDERS[subset] / name)
        texts = tuple(row.text(field) for field in CAPTION_COLUMNS)
        truth = row.integer("correct_answer")
        if truth not in range(len(texts)):
            raise row.error(f"field 'correct_answer' is {truth}, 0 to 3 was expected")
        template = row.text("correct_answer_template")
        if template not in TEMPLATES:
            raise row.error(
                f"field 'correct_answer_template' is {template!r}, one of {', '.join(TEMPLATES)} "
                "was expected"
            )
        yield Item(row.key, (image,), texts, truth, template)


FAMILY = Family(
    "negbench",
    "negbench",
    read_items,
    published_counts={"coco": 5914, "voc2007": 5031},  # inferred from the authors' accuracies
    files=tuple(ANNOTATION_FILES.values()),
    images_advice=(
        "COCO's val2017, in coco/val2017, and VOC2007's test images, in negbench/VOCdevkit"
    ),
    average=Average("mean over items, a tie is wrong (officially right)"),
)
