"""Half-Truths (Bora et al. 2026, CS-CLIP): a short true caption against one with a false addition.

A row has the anchor, a short true caption; the full truth, which adds a true detail to it; and the
half truth, which adds a false one. The anchor has to be closer to the image than the half truth. In
the subsets that end in "/ordered", the full truth has to be closer still.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cae_bench.benchmarks.base import Family, ImageRef, Item, strip_task
from cae_lib.data.rows import jsonl_rows, parquet_rows

ITEM_COUNTS = {"coco_qwen": 509, "coco_mistral": 454, "cc3m_qwen": 474}
"""Published number of items of each annotation file."""


def read_items(root: Path, subset: str) -> Iterator[Item]:
    """Yield the items of one subset; images in a Parquet file go to `half-truths/images`."""
    folder = root / "half-truths"
    path = folder / f"data/{strip_task(subset)}.json"
    table = path.with_suffix(".parquet")
    # NAME.json holds JSON lines, despite its suffix; the Hugging Face hub has a Parquet file.
    rows = jsonl_rows(path) if path.is_file() else parquet_rows(table, folder / "images")
    for row in rows:
        image = ImageRef(folder / "images" / row.text("image.path").strip())
        texts = row.text("anchor"), row.text("half_truth")
        if subset.endswith("/ordered"):
            texts = row.text("full_truth"), *texts
        yield Item(row.key, (image,), texts, group=row.text("triplet_type"))


FAMILY = Family(
    "half_truths",
    "half-truths",
    read_items,
    published_counts={
        f"{name}{end}": n for name, n in ITEM_COUNTS.items() for end in ("", "/ordered")
    },
    files=tuple(f"half-truths/data/{name}.*" for name in ITEM_COUNTS),
    images_advice="in the files themselves",
    rescored=("*/ordered",),
)
