"""COLA (Ray et al. 2023): attributes bound to the right object, in two or in many pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Unpack

import numpy as np

from cae_lib.data import rows
from cae_lib.data.benchmarks.base import Benchmark, Choice, ImageRef
from cae_lib.data.benchmarks.collect import Collector, Family, Options
from cae_lib.errors import ConfigError, DataError

OFFICIAL = {"multi": 210}
MULTI = Path("data", "COLA_multiobjects_matching_benchmark.json")
SINGLE = "COLA_singleobjects_benchmark_{}.json"
SOURCES = ("GQA", "CLEVR", "PACO")
IMAGE_FOLDERS = ("images", "vg_gqa_images", "../vg/VG_100K", "../vg/VG_100K_2", "")
FAMILY = Family(
    "cola", OFFICIAL, "Visual Genome's (as GQA has them), CLEVR's or PACO's, under images/"
)


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


def load(root: str | Path, **options: Unpack[Options]) -> list[Benchmark]:
    """Read the multi-object set: two pictures and two captions an item, one benchmark.

    An item is right if each caption is closer to its own picture than to the other one, both
    strictly: Winoground's image score. The headline is the mean over items. The file below `root`
    is a list of `[url 1, caption 1, url 2, caption 2]`; pictures, named as at the end of the URLs,
    are looked for in `IMAGE_FOLDERS`.
    """
    (collector,) = FAMILY.parts({"multi": Path(root, MULTI)}, **options)

    def read(key: str, entry: object) -> Choice:
        if not rows.is_texts(entry) or len(entry) != 4:
            raise rows.RowError("expected [url 1, caption 1, url 2, caption 2]")
        images = (_image(collector, entry[0]), _image(collector, entry[2]))
        return Choice(images, (entry[1], entry[3]), truth=0, group="multi", id=key)

    collector.rows(enumerate(rows.read_json(collector.source, list)), read)
    collector.counts["identical"] = sum(len({*item.texts}) == 1 for item in collector.items)
    return [collector.finish(task="image", rule="mean over items, image score of 2 x 2")]


def load_single(
    root: str | Path, source: str = "GQA", *, allow_missing: bool = False
) -> LabelledPictures:
    """Read a single-object set, `data/COLA_singleobjects_benchmark_{source}.json`, scored by
    `evaluation.retrieval`. The official file is a list `[labels, rows]`, though its description
    promises an object with `labels` and `data`; both are read. A row is `[picture, annotation,
    present, hard]`; PACO's have no annotation. Pictures are found by the last part of their paths,
    which are of another machine. Errors and `allow_missing` are those of `Options`."""
    if source not in SOURCES:
        raise ConfigError(f"no such COLA set: {source!r}. Known: {', '.join(SOURCES)}.")
    path = Path(root, "data", SINGLE.format(source))
    labels, entries = _labels_and_rows(path)
    collector = Collector(FAMILY, source, path, None, allow_missing)
    marks: dict[str, tuple[list[int], list[int]]] = {}

    def read(key: str, entry: object) -> Choice:
        if not isinstance(entry, list) or len(entry) not in (3, 4) or not isinstance(entry[0], str):
            raise rows.RowError("expected [picture, annotation, present, hard]")
        marks[key] = (_flags(entry[-2], len(labels)), _flags(entry[-1], len(labels)))
        return Choice((_image(collector, entry[0]),), (), truth=0, group=source, id=key)

    found = collector.rows(enumerate(entries), read).finish()
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


def _image(collector: Collector, name: str) -> ImageRef:
    root, last = collector.source.parent.parent, PurePosixPath(name).name
    return collector.picture(*(root / folder / last for folder in IMAGE_FOLDERS))
