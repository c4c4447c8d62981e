"""COLA (Ray et al. 2023), single-object: many pictures, and which labels fit them. The multi-object
set is in `table`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cae_lib.data import rows
from cae_lib.data.benchmarks.base import Choice, ImageRef
from cae_lib.data.benchmarks.read import Collector
from cae_lib.data.benchmarks.table import LAYOUTS
from cae_lib.errors import ConfigError, DataError

SINGLE = "COLA_singleobjects_benchmark_{}.json"
SOURCES = ("GQA", "CLEVR", "PACO")


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures with a yes or no for each label, for a mean average precision over labels.

    Attributes:
        source: "GQA", "CLEVR" or "PACO".
        labels, images: L texts, for example "square white plate", and n pictures.
        present: `(n, L)` bool, the label fits the picture.
        hard: `(n, L)` bool, the picture counts for the label: it fits, or shows part of the label.
        n_expected: Number of pictures in the file.
        counts: Further facts, for example `{"missing_images": 3}`.
    """

    source: str
    labels: tuple[str, ...]
    images: tuple[ImageRef, ...]
    present: np.ndarray
    hard: np.ndarray
    n_expected: int
    counts: Mapping[str, int]


def load_single(
    root: str | Path, source: str = "GQA", *, allow_missing: bool = False
) -> LabelledPictures:
    """Read a single-object set, `data/COLA_singleobjects_benchmark_{source}.json`, scored by
    `evaluation.retrieval`. The official file is a list `[labels, rows]`, though its description
    promises an object with `labels` and `data`; both are read. A row is `[picture, annotation,
    present, hard]`; PACO's have no annotation. Pictures are found by the last part of their paths,
    which are of another machine. Errors and `allow_missing` are those of `load_benchmark`."""
    if source not in SOURCES:
        raise ConfigError(f"no such COLA set: {source!r}. Known: {', '.join(SOURCES)}.")
    path = Path(root, "data", SINGLE.format(source))
    labels, entries = _labels_and_rows(path)
    layout = replace(LAYOUTS["cola"], summary=None)
    collector = Collector("cola", source, layout, Path(root), [path], allow_missing=allow_missing)
    marks: dict[str, tuple[list[int], list[int]]] = {}

    def picture(key: str, entry: object) -> Choice:
        if not isinstance(entry, list) or len(entry) not in (3, 4) or not isinstance(entry[0], str):
            raise rows.RowError("expected [picture, annotation, present, hard]")
        marks[key] = (_flags(entry[-2], len(labels)), _flags(entry[-1], len(labels)))
        return Choice((collector.picture(entry[0]),), (), truth=0, group=source, id=key)

    def read(collector: Collector) -> Mapping[str, Any]:
        numbered = enumerate(entries)
        collector.add_rows(((str(n), f"row {n}", entry) for n, entry in numbered), picture)
        return {}

    found = collector.benchmark(read, {})
    table = np.array([marks[item.id] for item in found.items], dtype=bool)
    present, hard = table.reshape(len(found.items), 2, len(labels)).swapaxes(0, 1)
    images = tuple(item.images[0] for item in found.items)
    return LabelledPictures(source, labels, images, present, hard, found.n_expected, found.counts)


def _labels_and_rows(path: Path) -> tuple[tuple[str, ...], list]:
    content = rows.read_json(path)
    if isinstance(content, dict):
        content = [content.get("labels"), content.get("data")]
    right = isinstance(content, list) and len(content) == 2 and isinstance(content[1], list)
    if not right or not rows.is_texts(content[0]):
        raise DataError(
            f"{path}: expected [labels, rows], or an object with 'labels' and 'data'. Check that "
            "this is the official file."
        )
    return tuple(content[0]), content[1]


def _flags(values: object, n: int) -> list[int]:
    if not isinstance(values, list) or len(values) != n or not {*values} <= {0, 1}:
        raise rows.RowError(f"expected a list of {n} times 0 or 1, one for each label")
    return values
