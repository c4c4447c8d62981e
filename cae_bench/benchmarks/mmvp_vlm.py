"""MMVP-VLM (Tong et al. 2024): two images that CLIP embeds close together, each with a statement.

There are nine visual patterns, such as orientation or count, with 15 pairs each. The official score
is "image"; "text" and "group" score the same items.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cae_bench.benchmarks.base import Average, Family, ImageRef, Item
from cae_lib.data.rows import csv_rows

CSV_COLUMNS = ("Question ID", "Type", "Statement")
"""Columns that the annotation file must have."""

NUMBER_COLUMN, PATTERN_COLUMN, STATEMENT_COLUMN = CSV_COLUMNS
"""Columns of the number of an image, its visual pattern, and its statement."""

PROMPT = "a photo of {}"
"""Template of the texts; `{}` stands for the statement."""


def read_items(root: Path, subset: str) -> Iterator[Item]:
    """Yield an item for each pair of images, in the group of its pattern, for any subset."""
    rows = list(csv_rows(root / "mmvp-vlm/Questions.csv", CSV_COLUMNS))
    if len(rows) % 2:
        raise rows[-1].error(f"there are {len(rows)} rows, pairs were expected")
    folder = root / "mmvp-vlm/MLLM_VLM Images"
    for pair in zip(rows[::2], rows[1::2], strict=True):
        first, second = (row.integer(NUMBER_COLUMN) for row in pair)
        pattern, other = (row.text(PATTERN_COLUMN) for row in pair)
        # Nothing but their order joins two rows, so a lost row would shift all later pairs.
        if first % 2 != 1 or second != first + 1 or pattern != other:
            raise pair[1].error(
                f"{first} of {pattern!r} and {second} of {other!r} are no pair: an odd number "
                "and the next one of the same type were expected"
            )
        images = tuple(ImageRef(folder / pattern.strip() / f"{n}.jpg") for n in (first, second))
        texts = tuple(PROMPT.format(row.text(STATEMENT_COLUMN)) for row in pair)
        yield Item(str(first), images, texts, group=pattern)


FAMILY = Family(
    "mmvp_vlm",
    "mmvp-vlm",
    read_items,
    published_counts=dict.fromkeys(("image", "text", "group"), 135),
    files=("mmvp-vlm/Questions.csv",),
    images_advice="in the official repository: put them into mmvp-vlm/MLLM_VLM Images",
    # In a tie the official script takes the second image; here a tie is wrong.
    average=Average("mean over patterns", over_groups=True),
    rescored=("text", "group"),
)
