"""Half-Truths (Bora et al. 2026, CS-CLIP): a true beginning, the same with something false added,
and with something true. What is added should raise the score of a caption if it is true, and lower
it if it is false: the anchor must beat the half truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

from cae_lib.data import rows
from cae_lib.data.benchmarks.base import Benchmark, Choice
from cae_lib.data.benchmarks.collect import Collector, Family, Options
from cae_lib.data.picture_files import read_parquet, unpacked

FILES = {"coco_qwen": 509, "coco_mistral": 454, "cc3m_qwen": 474}
OFFICIAL = {f"{name}{end}": n for name, n in FILES.items() for end in ("", "/ordered")}
FAMILY = Family("half_truths", OFFICIAL, "in the files themselves")


def load(root: str | Path, **options: Unpack[Options]) -> list[Benchmark]:
    """Read each file into two benchmarks over the same items, as `coco_qwen` and
    `coco_qwen/ordered`.

    The first one asks whether the anchor is closer to the picture than the half truth, the second
    whether the full truth is closer than the anchor, and that than the half truth; comparisons are
    strict. Groups are the kinds of what is added; headlines are means over items. `root` holds
    `data/NAME.parquet` as on the hub, whose pictures are unpacked into `images/`, or
    `data/NAME.json`, one row a line, with the path of each picture there.
    """
    root = Path(root)
    there = {path.stem: path for path in sorted(root.glob("data/*"), reverse=True)}
    files = {name: root / "data" / f"{name}.parquet" for name in FILES} | there
    parts = {f"{name}{end}": path for name, path in files.items() for end in ("", "/ordered")}
    return FAMILY.read(parts, lambda part: _subset(part, root / "images"), (), **options)


def _subset(collector: Collector, folder: Path) -> Benchmark:
    ordered = collector.subset.endswith("/ordered")

    def read(key: str, entry: object) -> Choice:
        entry = rows.parse_json(entry) if isinstance(entry, str) else entry
        names = ["full_truth", "anchor", "half_truth"][0 if ordered else 1 :]
        texts = tuple(rows.text(entry, name) for name in names)
        image = collector.picture(unpacked(rows.value(entry, "image"), folder))
        return Choice((image,), texts, 0, rows.text(entry, "triplet_type"), key)

    task = "ordered" if ordered else "choice"
    return collector.rows(enumerate(_rows(collector.source)), read).finish(task=task)


def _rows(path: Path) -> list[Any]:
    """Rows of a table, or lines of JSON."""
    return rows.read_text(path).splitlines() if path.suffix == ".json" else read_parquet(path)
