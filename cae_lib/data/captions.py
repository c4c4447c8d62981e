"""Image-caption pairs: NegCLIP's TSV, Karpathy's splits and COCO's caption files, as downloaded."""

from __future__ import annotations

import ast
import csv
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cae_lib.errors import DataError

Missing = Literal["raise", "drop", "ignore"]
NEGCLIP_COLUMNS = ("title", "filepath", "neg_caption", "neg_image")


@dataclass(frozen=True)
class Pairs:
    """Image-caption pairs; one row is one caption together with its picture.

    `image_index` (n,) gives the row's place in `image_paths`, where each picture stands once.
    `n_expected` counts the rows of the file, `n_used` those kept. Only NegCLIP's files fill
    `negatives` (false captions of each row) and `hard_images` (rows with a similar picture).
    """

    image_paths: list[Path]
    captions: list[str]
    image_index: Tensor
    name: str
    n_used: int
    n_expected: int
    negatives: list[list[str]] | None = None
    hard_images: list[list[int]] | None = None


def load_negclip_tsv(tsv: str | Path, root: str | Path, missing: Missing = "raise") -> Pairs:
    """Read `train_neg_clip.tsv` or `valid_neg_clip.tsv` of NegCLIP (Yuksekgonul et al. 2023).

    Args:
        tsv: tab separated file with the columns title, filepath, neg_caption and neg_image;
            quoted captions may hold tabs and newlines.
        root: folder that the `filepath` column is relative to.
        missing: what to do about rows without a picture file: "raise", "drop" (counted) or
            "ignore" (pictures are not looked for).

    Raises:
        DataError: a column is missing, a cell is not the Python list it has to be, a row number
            of `neg_image` is not in the file, or pictures are missing.
    """
    path = _existing(tsv)
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t")
        absent = [name for name in NEGCLIP_COLUMNS if name not in (reader.fieldnames or ())]
        if absent:
            raise DataError(
                f"{path}: no column {', '.join(absent)}; found {reader.fieldnames}. "
                "Expected the tab separated file of NegCLIP."
            )
        rows = list(reader)
    titles = [_text(path, i, row["title"], "title") for i, row in enumerate(rows)]
    files = [_text(path, i, row["filepath"], "filepath") for i, row in enumerate(rows)]
    negatives = [_literal(path, i, row, "neg_caption", str) for i, row in enumerate(rows)]
    hard = [_literal(path, i, row, "neg_image", int) for i, row in enumerate(rows)]
    for i, numbers in enumerate(hard):
        if any(not 0 <= number < len(rows) for number in numbers):
            raise DataError(
                f"{path}, row {i}: neg_image is {numbers}; expected row numbers of this file, "
                f"0 to {len(rows) - 1}. Is the file complete?"
            )
    keep = _kept([Path(root) / name for name in files], missing, path)
    place = {old: new for new, old in enumerate(keep)}
    pairs = _pairs([(Path(root) / files[i], titles[i]) for i in keep], path.stem, len(rows))
    return replace(
        pairs,
        negatives=[negatives[i] for i in keep],
        hard_images=[[place[j] for j in hard[i] if j in place] for i in keep],
    )


def load_karpathy(
    file: str | Path, root: str | Path, split: str, missing: Missing = "raise"
) -> Pairs:
    """Read one split of Karpathy's `dataset_{coco,flickr30k,flickr8k}.json`.

    Args:
        file: JSON with `images[].{filename, filepath (COCO only), split, sentences[].raw}`.
        root: folder that `filepath/filename`, or `filename` alone, is relative to.
        split: "train" (takes in COCO's "restval"), "val" or "test".
        missing: see `load_negclip_tsv`.

    Raises:
        DataError: the file has another layout, no picture of the split, or pictures are missing.
    """
    path = _existing(file)
    images = _field(path, "top level", _json(path), "images")
    wanted = {"train", "restval"} if split == "train" else {split}
    rows = []
    for i, image in enumerate(images):
        if _field(path, f"image {i}", image, "split") in wanted:
            name = _field(path, f"image {i}", image, "filename")
            picture = Path(root, image.get("filepath", ""), name)
            sentences = _field(path, f"image {i}", image, "sentences")
            rows += [
                (picture, _text(path, i, sentence.get("raw"), "raw")) for sentence in sentences
            ]
    if not rows:
        known = sorted({image["split"] for image in images})
        raise DataError(f"{path}: no picture of split {split!r}; the file has {known}.")
    return _checked_pairs(rows, f"{path.stem}-{split}", missing, path)


def load_caption_list(file: str | Path, root: str | Path, missing: Missing = "raise") -> Pairs:
    """Read a `coco_karpathy_test.json`-like list of `{image, caption}` entries.

    `caption` is one string or a list of them; `image` is relative to `root`. See
    `load_negclip_tsv` for `missing`.

    Raises:
        DataError: the file has another layout, or pictures are missing.
    """
    path = _existing(file)
    rows = []
    for i, entry in enumerate(_json(path)):
        captions = _field(path, f"entry {i}", entry, "caption")
        captions = [captions] if isinstance(captions, str) else captions
        picture = Path(root) / _field(path, f"entry {i}", entry, "image")
        rows += [(picture, _text(path, i, caption, "caption")) for caption in captions]
    return _checked_pairs(rows, path.stem, missing, path)


def load_coco_captions(
    file: str | Path, image_dir: str | Path, missing: Missing = "raise"
) -> Pairs:
    """Read COCO's `captions_{train,val}{2014,2017}.json`, in the order of its annotations.

    Pictures without an annotation are no pairs. See `load_negclip_tsv` for `missing`.

    Raises:
        DataError: an annotation names an unknown picture, or pictures are missing.
    """
    path = _existing(file)
    content = _json(path)
    images = _field(path, "top level", content, "images")
    names = {
        _field(path, f"image {i}", image, "id"): _field(path, f"image {i}", image, "file_name")
        for i, image in enumerate(images)
    }
    rows = []
    for i, annotation in enumerate(_field(path, "top level", content, "annotations")):
        number = _field(path, f"annotation {i}", annotation, "image_id")
        if number not in names:
            raise DataError(f"{path}, annotation {i}: image_id {number} is not in `images`.")
        caption = _text(path, i, annotation.get("caption"), "caption")
        rows.append((Path(image_dir) / names[number], caption))
    return _checked_pairs(rows, path.stem, missing, path)


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file. Download the data set or correct the path.")
    return path


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}). Download it again.") from error


def _field(path: Path, place: str, value: Any, name: str) -> Any:
    if not isinstance(value, dict) or name not in value:
        raise DataError(f"{path}, {place}: expected an object with the field {name!r}.")
    return value[name]


def _text(path: Path, row: int, value: Any, column: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{path}, row {row}: {column} is {value!r}; expected some text.")
    return value


def _literal(path: Path, row: int, cells: dict[str, Any], column: str, kind: type) -> list[Any]:
    cell = cells[column]
    try:
        value = ast.literal_eval(cell)
    except (ValueError, SyntaxError, TypeError):
        value = None
    if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
        raise DataError(
            f"{path}, row {row}: {column} is {cell!r}; expected a Python list of {kind.__name__}. "
            "The row is damaged: correct it or download the file again."
        )
    return value


def _kept(pictures: list[Path], missing: Missing, source: Path) -> list[int]:
    """Numbers of the rows to keep; each distinct picture is looked for once."""
    if missing == "ignore":
        return list(range(len(pictures)))
    there = {picture: picture.is_file() for picture in dict.fromkeys(pictures)}
    lost = [i for i, picture in enumerate(pictures) if not there[picture]]
    if lost and missing == "raise":
        raise DataError(
            f"{source}: {len(lost)} of {len(pictures)} rows have no picture, first row {lost[0]}: "
            f'{pictures[lost[0]]}. Complete the pictures, or pass missing="drop" to go on without.'
        )
    return [i for i, picture in enumerate(pictures) if there[picture]]


def _checked_pairs(rows: list[tuple[Path, str]], name: str, missing: Missing, src: Path) -> Pairs:
    keep = _kept([picture for picture, _ in rows], missing, src)
    return _pairs((rows[i] for i in keep), name, len(rows))


def _pairs(rows: Iterable[tuple[Path, str]], name: str, n_expected: int) -> Pairs:
    places: dict[Path, int] = {}
    index, captions = [], []
    for picture, caption in rows:
        index.append(places.setdefault(picture, len(places)))
        captions.append(caption)
    image_index = torch.tensor(index, dtype=torch.long)
    return Pairs(list(places), captions, image_index, name, len(captions), n_expected)
