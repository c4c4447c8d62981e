"""COLA (Ray et al. 2023): attributes bound to the right object.

Multi-object: two images and two captions, each caption strictly closer to its own image.
Single-object: many images, and which labels fit them, for a mean average precision. Images are
found by the last part of their addresses or paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from cae_lib.data.benchmarks.base import Average, Family, ImageRef, Item, find_image
from cae_lib.data.rows import Row, is_list_of_texts, json_rows, read_json
from cae_lib.errors import ConfigError, DataError

SINGLE = "COLA_singleobjects_benchmark_{}.json"
MULTI = "cola/data/COLA_multiobjects_matching_benchmark.json"
SOURCES = ("GQA", "CLEVR", "PACO")
IMAGE_FOLDERS = ("cola/images", "vg/VG_100K", "vg/VG_100K_2")


def read(root: Path, subset: str) -> Iterator[Item]:
    """Yield the multi-object items, `[image 1, caption 1, image 2, caption 2]`."""
    for row in json_rows(root / MULTI, list):
        if isinstance(row.content, list) and len(row.content) != 4:
            raise row.error(f"has {len(row.content)} fields, 4 were expected")
        images = _image(root, row.text("0")), _image(root, row.text("2"))
        yield Item(row.key, images, (row.text("1"), row.text("3")), group=subset)


def _image(root: Path, address: str) -> ImageRef:
    name = PurePosixPath(address.strip().replace("\\", "/")).name
    return find_image(*(root / folder / name for folder in IMAGE_FOLDERS))


def count_identical(subset: str, items: Sequence[Item]) -> Mapping[str, int]:
    """Count the items whose captions are equal."""
    return {"identical": sum(item.texts[0] == item.texts[1] for item in items)}


FAMILY = Family(
    "cola",
    "cola",
    read,
    published={"multi": 210},
    files=(MULTI, *(f"cola/data/{SINGLE.format(source)}" for source in SOURCES)),
    images="Visual Genome's (as GQA has them), CLEVR's or PACO's: put them into cola/images",
    task="image",
    average=Average("mean over items, image score of 2 x 2"),
    summarize=count_identical,
)


@dataclass(frozen=True)
class ImageLabels:
    """Images with a yes or no for each label, for a mean average precision over labels.

    Attributes:
        source: "GQA", "CLEVR" or "PACO".
        labels, images: L texts, for example "square white plate", and n images.
        present: `(n, L)` bool, the label fits the image.
        hard: `(n, L)` bool, the image counts for the label: it fits, or shows part of the label.
        n_expected: Number of images in the file.
        counts: Further facts, for example `{"missing_images": 3}`.
    """

    source: str
    labels: tuple[str, ...]
    images: tuple[ImageRef, ...]
    present: np.ndarray
    hard: np.ndarray
    n_expected: int
    counts: Mapping[str, int]


def load_single(root: str | Path, source: str = "GQA") -> ImageLabels:
    """Load a single-object set, which `evaluation.retrieval` scores.

    The official file is a list `[labels, rows]`, though its description promises an object with
    `labels` and `data`; both are read. A row is `[image, annotation, present, hard]`; PACO's have
    no annotation. Images that cannot be used are left out, and a line says so.

    Args:
        root: Folder of all datasets.
        source: One of `SOURCES`; ConfigError for another one.
    """
    from cae_lib.data.benchmarks.load import BROKEN_IMAGES, MISSING_IMAGES
    from cae_lib.data.incomplete import image_error, log_left_out

    if source not in SOURCES:
        raise ConfigError(f"no such COLA set: {source!r}. Known: {', '.join(SOURCES)}.")
    path = Path(root, "cola/data", SINGLE.format(source))
    labels, contents = _labels_and_rows(path)
    images, present, hard, left_out = [], [], [], []
    counts: dict[str, int] = {}
    for number, content in enumerate(contents):
        row = Row(path, f"row {number}", content)
        if not isinstance(content, list) or len(content) not in (3, 4):
            raise row.error("expected [image, annotation, present, hard]")
        image = _image(Path(root), row.text("0"))
        flags = [_flags(row, values, len(labels)) for values in content[-2:]]
        if problem := image_error(image.path):
            left_out.append((row.place, problem))
            reason = BROKEN_IMAGES if image.path.is_file() else MISSING_IMAGES
            counts[reason] = counts.get(reason, 0) + 1
            continue
        images.append(image)
        present.append(flags[0])
        hard.append(flags[1])
    name = f"cola, {source}"
    log_left_out(
        name, path, len(images), len(contents), left_out, f"Its images are {FAMILY.images}"
    )
    shape = len(images), len(labels)
    return ImageLabels(
        source,
        labels,
        tuple(images),
        np.array(present, dtype=bool).reshape(shape),
        np.array(hard, dtype=bool).reshape(shape),
        len(contents),
        counts,
    )


def _labels_and_rows(path: Path) -> tuple[tuple[str, ...], list]:
    content = read_json(path)
    if isinstance(content, dict):
        content = [content.get("labels"), content.get("data")]
    labels, rows = content if isinstance(content, list) and len(content) == 2 else (None, None)
    if not isinstance(labels, list) or not is_list_of_texts(labels) or not isinstance(rows, list):
        raise DataError(
            f"{path}: expected [labels, rows], or an object with 'labels' and 'data'. Check that "
            "this is the official file."
        )
    return tuple(labels), rows


def _flags(row: Row, values: object, n: int) -> list[int]:
    if not isinstance(values, list) or len(values) != n or not {*values} <= {0, 1}:
        raise row.error(f"expected a list of {n} times 0 or 1, one for each label")
    return values
