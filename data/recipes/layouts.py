"""Write official layouts, except for those that only the synthetic scenes have."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from cae_bench.similarity import SPLIT_FILES, STSB
from data.recipes.datasets import Dataset

Row = Mapping[str, Any]


def to_json(value: Any) -> str:
    """Return a value as compact JSON in one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def to_json_lines(rows: Iterable[Row]) -> str:
    """Return one JSON object per line."""
    return "\n".join(map(json.dumps, rows))


def to_csv(rows: Iterable[Row]) -> str:
    """Return rows with a header, separated by commas."""
    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")


def to_tabs(rows: Iterable[Sequence[str]]) -> str:
    """Return rows separated by tabs, without a header."""
    return "".join("\t".join(row) + "\n" for row in rows)


def image_id(name: str) -> int | str:
    """Return the name of an image file without its ending, as a number if it is one."""
    stem = PurePosixPath(name).stem
    return int(stem) if stem.isdecimal() else stem


def aro_row(image: str, box: Sequence[int], true: str, false: str, **fields: Any) -> Row:
    """Return an item of ARO; `box` is x, y, width and height of the part that is meant."""
    sides = dict(zip(("bbox_x", "bbox_y", "bbox_w", "bbox_h"), box, strict=True))
    item = {"image_id": image_id(image), "image_path": image, **sides}
    return item | {"true_caption": true, "false_caption": false} | fields


def add_aro(dataset: Dataset, subset: str, rows: Sequence[Row]) -> None:
    """Add ARO's file of a subset, "relation" or "attribution"."""
    dataset.add(f"aro/visual_genome_{subset}.json", to_json(rows), len(rows), subset)


def add_sugarcrepe(dataset: Dataset, subset: str, items: Sequence[tuple[str, str, str]]) -> None:
    """Add SugarCrepe's file of a subset; items are image, caption and negative caption."""
    names = ("filename", "caption", "negative_caption")
    rows = {str(n): dict(zip(names, item, strict=True)) for n, item in enumerate(items)}
    dataset.add(f"sugar-crepe/data/{subset}.json", to_json(rows), len(rows), subset)


def add_sugarcrepe_pp(
    dataset: Dataset, subset: str, items: Sequence[tuple[str, str, str, str]]
) -> None:
    """Add SugarCrepe++'s file; items are image, two captions and a negative caption."""
    names = ("filename", "caption", "caption2", "negative_caption")
    rows = [{"id": n} | dict(zip(names, item, strict=True)) for n, item in enumerate(items)]
    # Its loader scores each item twice: image against texts, and text against texts.
    subsets = f"itt/{subset}", f"tot/{subset}"
    dataset.add(f"sugarcrepe-pp/data/{subset}.json", to_json(rows), len(rows), *subsets)


def add_half_truths(
    dataset: Dataset, subset: str, items: Sequence[tuple[str, str, str, str, str]]
) -> None:
    """Add Half-Truths' file; items are image, kind, anchor, half truth and full truth."""
    rows = [
        {
            "id": number,
            "image": {"path": image},
            "triplet_type": kind,
            "anchor": anchor,
            "half_truth": half,
            "full_truth": full,
        }
        for number, (image, kind, anchor, half, full) in enumerate(items)
    ]
    text = to_json_lines(rows)
    dataset.add(f"half-truths/data/{subset}.json", text, len(rows), subset, f"{subset}/ordered")


def crepe_row(
    image: str, caption: str, negatives: Sequence[str], box: Sequence[float], **counts: int
) -> Row:
    """Return an item of CREPE; `counts` are n and those of its objects, relations, ..."""
    columns = ("n", "n_objects", "n_relations", "n_attributes", "n_connected_components")
    item = {"image_id": image_id(image), "caption": caption}
    item |= {column: counts[column] for column in columns} | {"hard_negs": list(negatives)}
    return item | dict(zip(("x", "y", "width", "height"), box, strict=True))


def add_crepe(dataset: Dataset, kind: str, rows: Sequence[Row]) -> None:
    """Add CREPE's files of a kind of hard negative, one for each complexity."""
    by_complexity: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        by_complexity[row["n"]].append(row)
    folder = f"crepe/data/prod_hard_negatives/{kind}"
    dataset.counts[kind] = len(rows)
    for n, some in by_complexity.items():
        dataset.texts[f"{folder}/prod_vg_hard_negs_{kind}_complexity_{n}.csv"] = to_csv(some)


@dataclass(frozen=True)
class Captioned:
    """An image with captions; `number` is its id, and `path` lies in the folder of its dataset."""

    number: int
    path: str
    captions: Sequence[str]

    @property
    def name(self) -> str:
        """Name of the file."""
        return PurePosixPath(self.path).name


def coco(images: Iterable[tuple[dict[str, Any], Iterable[dict[str, Any]]]]) -> str:
    """Return COCO's annotation file of images, by their fields with "id", and of their captions."""
    entries, annotations = [], []
    for image, captions in images:
        entries.append(image)
        for caption in captions:
            annotations.append({"id": len(annotations) + 1, "image_id": image["id"]} | caption)
    return to_json({"images": entries, "annotations": annotations})


def caption_list(images: Iterable[Captioned]) -> str:
    """Return the list of images with captions that BLIP and ARO's word-order datasets read."""
    return to_json([{"image": p.path, "caption": list(p.captions)} for p in images])


def negclip(rows: Sequence[tuple[str, str, list[str], list[int]]]) -> str:
    """Return NegCLIP's file: caption, image path, hard negatives, and rows of similar images."""
    # Official files have the index as a column without a name, and lists as Python writes them.
    columns = ["title", "filepath", "neg_caption", "neg_image"]
    return pd.DataFrame(rows, columns=columns).to_csv(sep="\t", lineterminator="\n")


def stsb(split: str, rows: Iterable[Sequence[Any]], source: str) -> dict[str, str]:
    """Return STS-B's file of a split; a row has two captions, their score, and further columns."""
    cells = [
        ("main-captions", source, split, f"{number:04d}", f"{score:.3f}", first, second, *more)
        for number, (first, second, score, *more) in enumerate(rows)
    ]
    return {SPLIT_FILES[STSB][split]: to_tabs(cells)}
