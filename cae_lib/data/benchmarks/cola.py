"""COLA: attributes bound to the right object, in two pictures or among labels of many pictures.

Ray et al. 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from cae_lib.data.benchmarks import files
from cae_lib.data.benchmarks.base import Benchmark, Choice, ImageRef
from cae_lib.data.benchmarks.collect import Collector, Policy, first_existing
from cae_lib.errors import ConfigError, DataError

NAME = "cola"
OFFICIAL = {"multi": 210}
MULTI = Path("data", "COLA_multiobjects_matching_benchmark.json")
SINGLE = "COLA_singleobjects_benchmark_{}.json"
SOURCES = ("GQA", "CLEVR", "PACO")
N_LABELS = 320
IMAGE_FOLDERS = ("images", "vg_gqa_images", "../vg/VG_100K", "../vg/VG_100K_2", "")
IMAGES_FROM = "Visual Genome's (as GQA has them), CLEVR's or PACO's, under images/"


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures with a yes or no for each label, for a mean average precision over labels.

    Attributes:
        source: "GQA", "CLEVR" or "PACO".
        labels: L texts, for example "square white plate".
        images: n pictures.
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


def load(
    root: str | Path,
    *,
    image_dir: str | Path | None = None,
    expected: Mapping[str, int] | None = None,
    official: bool = False,
    allow_missing: bool = False,
) -> list[Benchmark]:
    """Read the multi-object set: two pictures and two captions an item, one benchmark.

    An item is right if each caption is closer to its own picture than to the other one, both
    strictly: Winoground's image score. The headline is the mean over items.

    Args:
        root: Folder with `data/COLA_multiobjects_matching_benchmark.json`, a list of
            `[url 1, caption 1, url 2, caption 2]`.
        image_dir: Folder of the pictures, named as at the end of the URLs; by default `images/`,
            `vg_gqa_images/`, or Visual Genome's folders beside `root`.
        expected: Number of items, `{"multi": n}`.
        official: Expect the published 210 items.
        allow_missing: Leave out and count what cannot be used instead of raising an error.

    Raises:
        DataError: If the file or a picture is missing, or a row is malformed.
    """
    path = Path(root) / MULTI
    folders = _folders(Path(root), image_dir)
    policy = Policy.of(expected, official, OFFICIAL, allow_missing)
    collector = Collector(NAME, "multi", path, policy, IMAGES_FROM)

    def read(key: str, entry: object) -> Choice:
        if not isinstance(entry, list) or [*map(type, entry)] != [str] * 4:
            raise files.RowError("expected [url 1, caption 1, url 2, caption 2]")
        images = tuple(_image(folders, url) for url in (entry[0], entry[2]))
        collector.counts["identical"] += entry[1] == entry[3]
        return Choice(images, (entry[1], entry[3]), truth=0, group="multi", id=key)

    collector.rows(files.read_json(path, list), read)
    return [collector.finish(task="image", rule="mean over items, image score of 2 x 2")]


def load_single(
    root: str | Path,
    source: str = "GQA",
    *,
    image_dir: str | Path | None = None,
    allow_missing: bool = False,
) -> LabelledPictures:
    """Read a single-object set; `evaluation.labels` scores it.

    The official file is a list `[labels, rows]`, though its description promises an object with
    `labels` and `data`; both are read. A row is `[picture, annotation, present, hard]`; PACO's have
    no annotation. Pictures are found by the last part of their paths, which are of another machine.

    Args:
        root: Folder with `data/COLA_singleobjects_benchmark_{source}.json`.
        source: "GQA", "CLEVR" or "PACO".
        image_dir: As in `load`.
        allow_missing: Leave out and count pictures that are not there or rows that are malformed.

    Raises:
        ConfigError: If the source is unknown.
        DataError: If the file or a picture is missing, or a row is malformed.
    """
    if source not in SOURCES:
        raise ConfigError(f"no such COLA set: {source!r}. Known: {', '.join(SOURCES)}.")
    path = Path(root) / "data" / SINGLE.format(source)
    labels, rows = _labels_and_rows(path)
    folders = _folders(Path(root), image_dir)
    collector = Collector(NAME, source, path, Policy({}, allow_missing), IMAGES_FROM)
    marks: dict[str, tuple[list[int], list[int]]] = {}

    def read(key: str, entry: object) -> Choice:
        if not isinstance(entry, list) or len(entry) not in (3, 4) or not isinstance(entry[0], str):
            raise files.RowError("expected [picture, annotation, present, hard]")
        marks[key] = (_flags(entry[-2], len(labels)), _flags(entry[-1], len(labels)))
        return Choice((_image(folders, entry[0]),), (), truth=0, group=source, id=key)

    collector.rows(rows, read)
    found = collector.finish()
    table = np.array([marks[item.id] for item in found.items], dtype=bool)
    table = table.reshape(len(found.items), 2, len(labels))
    images = tuple(item.images[0] for item in found.items)
    return LabelledPictures(
        source, labels, images, table[:, 0], table[:, 1], found.n_expected, found.counts
    )


def _labels_and_rows(path: Path) -> tuple[tuple[str, ...], list]:
    content = files.parse_json(files.read_text(path), str(path))
    if isinstance(content, dict):
        content = [content.get("labels"), content.get("data")]
    if (
        not isinstance(content, list)
        or len(content) != 2
        or not all(isinstance(part, list) for part in content)
        or not all(isinstance(label, str) for label in content[0])
    ):
        raise DataError(
            f"{path}: expected [labels, rows], or an object with 'labels' and 'data'. Check that "
            "this is the official file."
        )
    return tuple(content[0]), content[1]


def _flags(values: object, n: int) -> list[int]:
    if not isinstance(values, list) or len(values) != n or not {*values} <= {0, 1}:
        raise files.RowError(f"expected a list of {n} times 0 or 1, one for each label")
    return values


def _folders(root: Path, image_dir: str | Path | None) -> list[Path]:
    return [Path(image_dir)] if image_dir is not None else [root / f for f in IMAGE_FOLDERS]


def _image(folders: list[Path], name: str) -> ImageRef:
    last = PurePosixPath(name).name
    return ImageRef(first_existing([folder / last for folder in folders]))
