"""Image-caption pairs: Karpathy's splits, COCO's caption files and NegCLIP's, as downloaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from cae_lib.data.incomplete import image_error, log_left_out, validate_row_count
from cae_lib.data.rows import Row, csv_rows, json_rows, read_json
from cae_lib.errors import ConfigError, DataError

Missing = Literal["raise", "drop", "ignore"]
"""What to do about captions without a picture file: an error, leave them out and count them (also
those whose picture cannot be decoded), or do not look for pictures."""

Root = str | Path | Sequence[Path]
"""Folder that the pictures of a file are relative to; of several the first that has any of them."""

NEGCLIP_COLUMNS = ("title", "filepath", "neg_caption", "neg_image")


@dataclass(frozen=True)
class Pairs:
    """Image-caption pairs; one row is one caption together with its picture. `image_index` (n,)
    gives the row's place in `image_paths`, where each picture stands once. `n_expected` counts the
    rows of the file, `n_used` those kept. Only NegCLIP's files fill `negatives` (false captions of
    each row) and `hard_images` (rows with a similar picture)."""

    image_paths: list[Path]
    captions: list[str]
    image_index: Tensor
    name: str
    n_used: int
    n_expected: int
    negatives: list[list[str]] | None = None
    hard_images: list[list[int]] | None = None


def load_karpathy(
    file: str | Path,
    root: Root,
    split: str,
    missing: Missing = "raise",
    expected: int | None = None,
) -> Pairs:
    """Read one split of Karpathy's `dataset_{coco,flickr30k,flickr8k}.json`.

    Args:
        file: JSON with `images[].{filename, filepath (COCO only), split, sentences[].raw}`.
        root: what `filepath/filename`, or `filename` alone, is relative to, see `Root`.
        split: "train" (takes in COCO's "restval"), "val" or "test".
        missing: see `Missing`.
        expected: number of captions; by default those that are there.

    DataError for another layout, no picture of the split, or captions or pictures that are missing
    and may not be.
    """
    path = Path(file)
    wanted = {"train", "restval"} if split == "train" else {split}
    found, known = [], set()
    for image in _listed(path, "images"):
        known.add(image.text("split"))
        if image.text("split") in wanted:
            picture = Path(image.content.get("filepath", ""), image.text("filename"))
            sentences = [Row(path, image.place, one) for one in image.value("sentences")]
            found += [(picture, sentence.text("raw")) for sentence in sentences]
    if not found:
        raise DataError(f"{path}: no picture of split {split!r}; the file has {sorted(known)}.")
    return _pairs(found, root, f"{path.stem}-{split}", missing, path, expected)[0]


def load_caption_list(
    file: str | Path, root: Root, missing: Missing = "raise", expected: int | None = None
) -> Pairs:
    """Read a `coco_karpathy_test.json`-like list of `{image, caption}` entries: `caption` is one
    string or a list of them, `image` is relative to `root`; else as `load_karpathy`."""
    path = Path(file)
    found = []
    for row in json_rows(path, list):
        caption = row.value("caption")
        captions = [caption] if isinstance(caption, str) else row.texts("caption")
        found += [(Path(row.text("image")), caption) for caption in captions]
    return _pairs(found, root, path.stem, missing, path, expected)[0]


def load_coco_captions(
    file: str | Path, image_dir: str | Path, missing: Missing = "raise"
) -> Pairs:
    """Read COCO's `captions_{train,val}{2014,2017}.json`, in the order of its annotations; pictures
    without one are no pairs. DataError if an annotation names an unknown picture, or pictures are
    missing and may not be."""
    path = Path(file)
    names, found = {}, []
    for image in _listed(path, "images"):
        names[image.value("id")] = image.text("file_name")
    for annotation in _listed(path, "annotations"):
        number = annotation.value("image_id")
        if number not in names:
            raise annotation.error(f"image_id {number} is not in `images`")
        found.append((Path(names[number]), annotation.text("caption")))
    return _pairs(found, image_dir, path.stem, missing, path)[0]


def load_negclip_tsv(
    tsv: str | Path, root: str | Path, missing: Missing = "raise", expected: int | None = None
) -> Pairs:
    """Read `train_neg_clip.tsv` or `valid_neg_clip.tsv` of NegCLIP (Yuksekgonul et al. 2023).

    Args:
        tsv: tab separated file with the columns title, filepath, neg_caption and neg_image; quoted
            captions may hold tabs and newlines.
        root: folder that the `filepath` column is relative to.
        missing: see `Missing`.
        expected: number of rows; by default those that are there.

    DataError if a column is missing, a cell is not the Python list it has to be, a row number of
    `neg_image` is not in the file, or pictures or rows are missing and may not be.
    """
    path = Path(tsv)
    found, negatives, hard = [], [], []
    rows = [
        replace(row, place=f"row {number}")  # as neg_image counts them
        for number, row in enumerate(csv_rows(path, NEGCLIP_COLUMNS, "\t"))
    ]
    for row in rows:
        found.append((Path(row.text("filepath")), row.text("title")))
        negatives.append(row.literal("neg_caption"))
        hard.append(row.literal("neg_image", int))
        if any(not 0 <= number < len(rows) for number in hard[-1]):
            raise row.error(
                f"neg_image is {hard[-1]}; expected row numbers of this file, 0 to {len(rows) - 1}"
            )
    pairs, keep = _pairs(found, root, path.stem, missing, path, expected)
    place = {old: new for new, old in enumerate(keep)}
    return replace(
        pairs,
        negatives=[negatives[i] for i in keep],
        hard_images=[[place[j] for j in hard[i] if j in place] for i in keep],
    )


class RetrievalSet(NamedTuple):
    """A test split, in the folder of its name, with its published number. `caption_list` is a list
    of `{image, caption}`, as BLIP and ARO read it; `image_folders` are those that the pictures may
    lie in, the official one first."""

    caption_list: str
    image_folders: tuple[str, ...]
    n_captions: int


RETRIEVAL_SETS: Mapping[str, RetrievalSet] = {
    "coco": RetrievalSet("coco_karpathy_test.json", ("", "images"), 25_010),
    "flickr30k": RetrievalSet("flickr30k_test.json", ("flickr30k-images", "", "images"), 5000),
}


def load_retrieval_set(
    name: str, root: str | Path, *, missing: Missing = "raise", official: bool = False
) -> Pairs:
    """Read a test split, from the caption list if it is there, else from Karpathy's file.

    Both hold the same captions. COCO's 5,000 pictures have 25,010 of them, ten pictures having six;
    some evaluators use 25,000.

    Args:
        name: "coco" or "flickr30k".
        root: Folder that holds the data sets side by side.
        missing: see `Missing`.
        official: Expect the published number of captions.

    ConfigError for an unknown name; DataError if neither file is there, one is malformed, or
    captions or pictures are missing and may not be.
    """
    if name not in RETRIEVAL_SETS:
        raise ConfigError(f"no retrieval set {name!r}. Known: {', '.join(RETRIEVAL_SETS)}.")
    place, folder = RETRIEVAL_SETS[name], Path(root, name)
    folders = [folder / between for between in place.image_folders]
    expected = place.n_captions if official else None
    file, other = folder / place.caption_list, folder / f"dataset_{name}.json"
    if file.is_file():
        return load_caption_list(file, folders, missing, expected)
    if not other.is_file():
        raise DataError(f"{file}: no such file, nor is {other.name} beside it. Fetch one of them.")
    return load_karpathy(other, folders, "test", missing, expected)


def _listed(path: Path, name: str) -> list[Row]:
    """Return the entries of one of the lists that a JSON file holds."""
    entries = Row(path, "top level", read_json(path, dict)).value(name)
    return [Row(path, f"{name[:-1]} {i}", entry) for i, entry in enumerate(entries)]


def _folder(root: Root, pictures: Sequence[Path]) -> Path:
    """The folder that pictures are relative to; where none is found, the first, which their names
    may begin with."""
    if isinstance(root, str | Path):
        return Path(root)
    first = root[0].parent if pictures and pictures[0].parts[0] == root[0].name else root[0]
    return next(
        (folder for folder in root if any((folder / name).is_file() for name in pictures)), first
    )


def _pairs(
    found: Sequence[tuple[Path, str]],
    root: Root,
    name: str,
    missing: Missing,
    source: Path,
    expected: int | None = None,
) -> tuple[Pairs, list[int]]:
    """Pairs of rows (picture, caption), each picture once, and the numbers of the rows kept; what
    cannot be used is settled as `missing` says."""
    folder = _folder(root, [picture for picture, _ in found])
    places = [folder / picture for picture, _ in found]
    wrong = (
        {}
        if missing == "ignore"
        else {
            place: image_error(place, decode=missing == "drop") for place in dict.fromkeys(places)
        }
    )
    keep = [row for row, place in enumerate(places) if not wrong.get(place)]
    left = [(f"row {row}", wrong[place]) for row, place in enumerate(places) if wrong.get(place)]
    expected = len(found) if expected is None else expected
    if missing == "drop":
        log_left_out(name, source, len(keep), expected, left)
    else:
        validate_row_count(source, len(found), expected, left)
    numbers: dict[Path, int] = {}
    index = torch.tensor(
        [numbers.setdefault(places[row], len(numbers)) for row in keep], dtype=torch.long
    )
    captions = [found[row][1] for row in keep]
    return Pairs(list(numbers), captions, index, name, len(keep), expected), keep
