"""Write datasets in their official layouts, for the recipes that build them.

Nothing is written to disk here: the functions return the texts of files, by their path below the
folder that holds all datasets (similarity: below the folder of its datasets).
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from cae_lib.data.benchmarks import valse
from cae_lib.data.similarity import FILES, SICKR, STSB

SICK_HEADER = ("pair_ID", "sentence_A", "sentence_B", "relatedness_score", "entailment_judgment")


@dataclass(frozen=True)
class Question:
    """One item of a benchmark that is to be written.

    Attributes:
        images: Names of one or two files; the first one fits the first caption.
        captions: True captions; Winoground's second one fits the second image.
        negatives: Captions that are false of the image.
        box: x, y, width and height of the part of the image that is meant; empty for the whole
            image.
        fields: Further columns by their official names.
    """

    images: Sequence[str]
    captions: Sequence[str]
    negatives: Sequence[str] = ()
    box: Sequence[float] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def image_ids(self) -> list[int | str]:
        """The names of the images without their endings, as numbers if they are numbers."""
        stems = [PurePosixPath(name).stem for name in self.images]
        return [int(stem) if stem.isdecimal() else stem for stem in stems]


@dataclass
class Export:
    """One dataset that is ready to be written; paths are below the folder that holds all datasets.

    Attributes:
        name: Name of the dataset's counts; for a benchmark, its name in `FORMATS`.
        pictures: What makes an image file, by its path.
        items: Items of a benchmark by the subset that they are written to.
        texts: Contents of files by their path.
        counts: Numbers of items that the loader expects, by subset.
        left_out: Official parts that are not written, and why.
    """

    name: str
    pictures: dict[str, Any] = field(default_factory=dict)
    items: dict[str, list[Question]] = field(default_factory=lambda: defaultdict(list))
    texts: dict[str, str] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def add_item(self, subset: str, item: Question, *pictures: Any) -> None:
        """Add an item to a benchmark, and what makes its images if they are not there yet."""
        self.items[subset].append(item)
        folder = IMAGE_FOLDERS.get(self.name) or valse.IMAGE_FOLDERS[subset]
        for name, picture in zip(item.images, pictures, strict=False):
            self.pictures[f"{folder}/{name}"] = picture

    def serialize(self) -> Export:
        """Make the benchmark's texts, and count its items."""
        for subset, items in self.items.items():
            scores = SCORES.get(self.name, "{}").format(subset).split()
            self.counts |= dict.fromkeys(scores, len(items))
            self.texts |= FORMATS[self.name](subset, items)
        return self


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def _csv(rows: Iterable[Mapping[str, Any]]) -> str:
    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")


def _json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "\n".join(map(json.dumps, rows))


def _aro(subset: str, items: Sequence[Question]) -> dict[str, str]:
    rows = []
    for item in items:
        box = zip(("bbox_x", "bbox_y", "bbox_w", "bbox_h"), item.box, strict=True)
        rows.append(
            {
                "image_id": item.image_ids[0],
                "image_path": item.images[0],
                **dict(box),
                "true_caption": item.captions[0],
                "false_caption": item.negatives[0],
                **item.fields,
            }
        )
    return {f"aro/visual_genome_{subset}.json": _json(rows)}


def _winoground(subset: str, items: Sequence[Question]) -> dict[str, str]:
    rows = [
        {
            "id": number,
            "caption_0": item.captions[0],
            "caption_1": item.captions[1],
            "image_0": item.image_ids[0],
            "image_1": item.image_ids[1],
            "tag": item.fields["tag"],
            "secondary_tag": "",
            "num_main_preds": 1,
            "collapsed_tag": item.fields["collapsed_tag"],
        }
        for number, item in enumerate(items)
    ]
    return {"winoground/examples.jsonl": _json_lines(rows)}


def _sugarcrepe(subset: str, items: Sequence[Question]) -> dict[str, str]:
    rows = {
        str(number): {
            "filename": item.images[0],
            "caption": item.captions[0],
            "negative_caption": item.negatives[0],
        }
        for number, item in enumerate(items)
    }
    return {f"sugar-crepe/data/{subset}.json": _json(rows)}


def _sugarcrepe_pp(subset: str, items: Sequence[Question]) -> dict[str, str]:
    rows = [
        {
            "id": number,
            "filename": item.images[0],
            "caption": item.captions[0],
            "caption2": item.captions[1],
            "negative_caption": item.negatives[0],
        }
        for number, item in enumerate(items)
    ]
    return {f"sugarcrepe-pp/data/{subset}.json": _json(rows)}


def _half_truths(subset: str, items: Sequence[Question]) -> dict[str, str]:
    rows = [
        {
            "id": number,
            "image": {"path": item.images[0]},
            "triplet_type": item.fields["triplet_type"],
            "anchor": item.captions[0],
            "half_truth": item.negatives[0],
            "full_truth": item.captions[1],
        }
        for number, item in enumerate(items)
    ]
    return {f"half-truths/data/{subset}.json": _json_lines(rows)}


def _vl_checklist(subset: str, items: Sequence[Question]) -> dict[str, str]:
    rows = [
        [item.images[0], {"POS": [item.captions[0]], "NEG": [item.negatives[0]]}] for item in items
    ]
    return {f"vl-checklist/data/{subset}.json": _json(rows)}


def _valse(subset: str, items: Sequence[Question]) -> dict[str, str]:
    rows = {
        item.fields["key"]: {
            "dataset": item.fields["dataset"],
            "original_split": "test",
            "dataset_idx": item.fields["dataset_idx"],
            "linguistic_phenomena": subset,
            "image_file": item.images[0],
            "caption": item.captions[0],
            "foil": item.negatives[0],
            "classes": item.fields["classes"],
            "classes_foil": item.fields["classes_foil"],
            "mturk": {"foil": 0, "caption": 3, "other": 0},
        }
        for item in items
    }
    return {f"valse/data/{subset}.json": _json(rows)}


def _svo_probes(subset: str, items: Sequence[Question]) -> dict[str, str]:
    rows = [
        {
            "sentence": item.captions[0],
            "pos_triplet": item.fields["pos_triplet"],
            "neg_triplet": item.fields["neg_triplet"],
            "pos_url": item.images[0],
            "neg_url": item.images[1],
            "pos_image_id": item.image_ids[0],
            "neg_image_id": item.image_ids[1],
            **{flag: item.fields[flag] for flag in ("subj_neg", "verb_neg", "obj_neg")},
        }
        for item in items
    ]
    return {"svo-probes/svo_probes.csv": _csv(rows)}


def _crepe(subset: str, items: Sequence[Question]) -> dict[str, str]:
    columns = ("n", "n_objects", "n_relations", "n_attributes", "n_connected_components")
    rows: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for item in items:
        rows[item.fields["n"]].append(
            {
                "image_id": item.image_ids[0],
                "caption": item.captions[0],
                **{column: item.fields[column] for column in columns},
                "hard_negs": list(item.negatives),
                **dict(zip(("x", "y", "width", "height"), item.box, strict=True)),
            }
        )
    path = f"crepe/data/prod_hard_negatives/{subset}/prod_vg_hard_negs_{subset}_complexity_{{}}.csv"
    return {path.format(n): _csv(own_rows) for n, own_rows in rows.items()}


FORMATS: Mapping[str, Callable[[str, Sequence[Question]], dict[str, str]]] = {
    "aro": _aro,
    "winoground": _winoground,
    "sugarcrepe": _sugarcrepe,
    "sugarcrepe_pp": _sugarcrepe_pp,
    "half_truths": _half_truths,
    "vl_checklist": _vl_checklist,
    "valse": _valse,
    "svo_probes": _svo_probes,
    "crepe": _crepe,
}
"""What returns the files of a subset of each benchmark."""

IMAGE_FOLDERS: Mapping[str, str] = {
    "aro": "aro/images",
    "winoground": "winoground/images",
    "sugarcrepe": "coco/val2017",
    "sugarcrepe_pp": "coco/val2017",
    "half_truths": "half-truths/images",
    "vl_checklist": "vl-checklist/swig",
    "svo_probes": "svo-probes",
    "crepe": "crepe/VG_100K",
}
"""Folders that names of images are below; VALSE has one for each subset."""

SCORES: Mapping[str, str] = {
    "winoground": "text image group",
    "sugarcrepe_pp": "itt/{0} tot/{0}",
    "half_truths": "{0} {0}/ordered",
}
"""Subsets that are read of what is written as one, where they differ."""


@dataclass(frozen=True)
class Captioned:
    """An image with captions.

    Attributes:
        number: Its id.
        path: Its file in the folder of its dataset.
        captions: The captions.
    """

    number: int
    path: str
    captions: Sequence[str]

    @property
    def name(self) -> str:
        """Name of the file."""
        return PurePosixPath(self.path).name


def coco(pictures: Iterable[tuple[dict[str, Any], Iterable[dict[str, Any]]]]) -> str:
    """Return COCO's annotation file, from the fields of each image and of its captions.

    The fields of an image include its "id".
    """
    images, annotations = [], []
    for image, captions in pictures:
        images.append(image)
        for caption in captions:
            annotations.append({"id": len(annotations) + 1, "image_id": image["id"]} | caption)
    return _json({"images": images, "annotations": annotations})


def coco_captions(pictures: Sequence[Captioned], height: int, width: int) -> str:
    """Return COCO's annotation file of captions, for images of one size."""
    size = {"height": height, "width": width}
    images = ({"id": each.number, "file_name": each.name} | size for each in pictures)
    captions = ([{"caption": text} for text in each.captions] for each in pictures)
    return coco(zip(images, captions, strict=True))


def karpathy(dataset: str, splits: Mapping[str, Sequence[Captioned]]) -> str:
    """Return Karpathy's file of images and their splits; for "coco" it names their folders, too."""
    images: list[dict[str, Any]] = []
    ids = itertools.count()
    for split, picture in ((name, picture) for name, all_ in splits.items() for picture in all_):
        place = {"imgid": len(images)}
        sentences = [
            {"raw": text, "tokens": text.split(), **place, "sentid": next(ids)}
            for text in picture.captions
        ]
        image = {"filename": picture.name, **place, "split": split}
        image |= {"sentids": [each["sentid"] for each in sentences], "sentences": sentences}
        if dataset == "coco":
            image |= {"filepath": picture.path.rpartition("/")[0], "cocoid": picture.number}
        images.append(image)
    return _json({"dataset": dataset, "images": images})


def caption_list(pictures: Sequence[Captioned]) -> str:
    """Return the list of images with captions that BLIP and ARO's word-order datasets read."""
    return _json([{"image": p.path, "caption": list(p.captions)} for p in pictures])


def negclip(rows: Sequence[tuple[str, str, list[str], list[int]]]) -> str:
    """Return NegCLIP's file: caption, image path, hard negatives, and rows of similar images."""
    columns = ["title", "filepath", "neg_caption", "neg_image"]
    return pd.DataFrame(rows, columns=columns).to_csv(sep="\t", lineterminator="\n")


def similarity(
    name: str, part: str, pairs: Iterable[Sequence[Any]], source: str = ""
) -> dict[str, str]:
    """Return the files of a dataset of text similarity.

    Args:
        name: One of `similarity.SIMILARITY_SETS`.
        part: Part of a year, for example "images"; otherwise "train", "dev" or "test".
        pairs: Two sentences each, a score (None if nobody gave one), and STS-B's further columns.
        source: Where STS-B's pairs come from.
    """

    def tabs(lines: Iterable[Sequence[str]]) -> str:
        return "".join("\t".join(line) + "\n" for line in lines)

    rows = [(a, b, "" if gold is None else f"{gold:.3f}", *more) for a, b, gold, *more in pairs]
    if name == STSB:
        cells = [
            ("main-captions", source, part, f"{number:04d}", gold, a, b, *more)
            for number, (a, b, gold, *more) in enumerate(rows)
        ]
        return {FILES[STSB][part]: tabs(cells)}
    if name == SICKR:
        cells = [(str(i), *row, "NEUTRAL") for i, row in enumerate(rows, start=1)]
        return {FILES[SICKR][part]: tabs([SICK_HEADER, *cells])}
    folder = f"STS/{name}-en-test/STS"
    return {
        f"{folder}.input.{part}.txt": tabs(row[:2] for row in rows),
        f"{folder}.gs.{part}.txt": tabs(row[2:3] for row in rows),
    }
