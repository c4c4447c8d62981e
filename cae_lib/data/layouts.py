"""Captions, foils and sentence pairs in the official layouts of the sets, as they are read: choices
by the table of benchmarks, captions and sentence pairs by a function each.

Pictures are known by the names of their files alone. Nothing is written: the functions return the
texts of files, by their place in the folder that holds all sets (similarity: in that of its sets).
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from posixpath import normpath
from typing import Any

import pandas as pd

from cae_lib.data.benchmarks.entry import Layout, file_of, place
from cae_lib.data.benchmarks.table import LAYOUTS
from cae_lib.data.similarity import FILES, SICKR, STSB
from cae_lib.errors import DataError

SICK_HEADER = ("pair_ID", "sentence_A", "sentence_B", "relatedness_score", "entailment_judgment")


@dataclass(frozen=True)
class Item:
    """One question of a benchmark of composition."""

    pictures: Sequence[str]  # names of one or two files; the first one fits the first caption
    captions: Sequence[str]  # the true ones; Winoground's second fits the second picture
    false: Sequence[str] = ()  # captions that are false of the picture
    box: Sequence[float] = ()  # x, y, width and height of the part that is meant, if it is a part
    more: Mapping[str, Any] = field(default_factory=dict)  # by official name; "key": VALSE's names


@dataclass
class Export:
    """One set, ready to be written; places are in the folder that holds all sets."""

    name: str  # of its counts; for a benchmark, one of `LAYOUTS`
    pictures: dict[str, Any] = field(default_factory=dict)  # what makes a file, by its place
    items: dict[str, list[Item]] = field(default_factory=lambda: defaultdict(list))  # by subset
    texts: dict[str, str] = field(default_factory=dict)  # contents of files, by their place
    counts: dict[str, Any] = field(default_factory=dict)  # items that the loader expects, by score
    left_out: dict[str, str] = field(default_factory=dict)  # official parts that lack, and why

    def ask(self, subset: str, item: Item, *pictures: Any) -> None:
        """Add an item to a benchmark, and what makes its pictures if they are not there yet."""
        self.items[subset].append(item)
        layout, values = LAYOUTS[self.name], _values(item)
        for name, picture in zip((layout.image, f"{layout.image}_1"), pictures, strict=False):
            file = place(layout.chosen("pictures", subset)[0], values[name])
            self.pictures[normpath(f"{layout.folder}/{file}")] = picture

    def lay_out(self) -> Export:
        """Make the benchmark's texts and counts of its items, in the official layout."""
        layout = LAYOUTS[self.name]
        files: dict[str, dict[str, Any]] = defaultdict(dict)
        for subset, items in self.items.items():
            own, file = layout.chosen("file", subset), file_of(subset)
            self.counts |= dict.fromkeys(layout.subsets(file), len(items))
            if not items:
                files[own.format(file=file, **layout.written)] = {}
            for number, item in enumerate(items):
                values = _values(item) | layout.written | {"subset": subset, "number": number}
                values |= item.more | {"file": file}
                try:
                    rows = files[own.format(**values)]
                    rows[values.get("key", str(number))] = _row(layout, values)
                except KeyError as error:
                    where = f"{self.name}/{subset}, item {number}"
                    raise DataError(f"{where}: it has no {error}") from error
        form = FORMS[layout.form]
        self.texts |= {f"{layout.folder}/{path}": form(rows) for path, rows in files.items()}
        return self


def _values(item: Item) -> dict[str, Any]:
    """What columns may show of an item, by name; `id` is a file's name or the number it is."""
    stems = [PurePosixPath(name).stem for name in item.pictures]
    named = {
        "false": item.false,
        "caption caption_1": item.captions,
        "x y width height": item.box,
        "picture picture_1": item.pictures,
        "id id_1": [int(stem) if stem.isdecimal() else stem for stem in stems],
    }
    values: dict[str, Any] = {"all_false": list(item.false)}
    for names, found in named.items():
        values |= zip(names.split(), found, strict=False)
    return values


def _row(layout: Layout, values: Mapping[str, Any]) -> Any:
    """A row as it is published, of what its columns are to show."""
    cells = {}
    for column in layout.columns.split():
        official, _, name = column.rstrip("?").partition("=")
        if not column.endswith("?") or (name or official) in values:
            cells[official] = values[name or official]
    return _nested(cells)


def _nested(cells: Mapping[str, Any]) -> Any:
    """Nest cells by their paths: `{"0": 1, "1.a.0": 2}` becomes `[1, {"a": [2]}]`."""
    if "" in cells:
        return cells[""]
    inner: dict[str, dict[str, Any]] = defaultdict(dict)
    for path, cell in cells.items():
        first, _, rest = path.partition(".")
        inner[first][rest] = cell
    made = {name: _nested(rest) for name, rest in inner.items()}
    return list(made.values()) if all(map(str.isdecimal, made)) else made


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


# How the rows of a file, by their keys, become its text.
FORMS: Mapping[str, Callable[[dict[str, Any]], str]] = {
    "keyed": _json,
    "list": lambda rows: _json(list(rows.values())),
    "lines": lambda rows: "\n".join(map(json.dumps, rows.values())),
    "csv": lambda rows: pd.DataFrame(rows.values()).to_csv(index=False, lineterminator="\n"),
}


@dataclass(frozen=True)
class Captioned:
    """A picture with captions, by its id and the place of its file in the folder of its set."""

    number: int
    path: str
    captions: Sequence[str]

    @property
    def name(self) -> str:
        """Name of the file."""
        return PurePosixPath(self.path).name


def coco(pictures: Iterable[tuple[dict[str, Any], Iterable[dict[str, Any]]]]) -> str:
    """COCO's annotation file, of the fields of each picture ("id" among them) and its captions."""
    images, annotations = [], []
    for image, captions in pictures:
        images.append(image)
        for caption in captions:
            annotations.append({"id": len(annotations) + 1, "image_id": image["id"]} | caption)
    return _json({"images": images, "annotations": annotations})


def coco_captions(pictures: Sequence[Captioned], height: int, width: int) -> str:
    """COCO's annotation file of captions, for pictures of one size."""
    size = {"height": height, "width": width}
    images = ({"id": each.number, "file_name": each.name} | size for each in pictures)
    captions = ([{"caption": text} for text in each.captions] for each in pictures)
    return coco(zip(images, captions, strict=True))


def karpathy(dataset: str, splits: Mapping[str, Sequence[Captioned]]) -> str:
    """Karpathy's file of pictures and their splits; that of "coco" has their folders, too."""
    images: list[dict[str, Any]] = []
    ids = itertools.count()
    for split, picture in ((split, picture) for split, some in splits.items() for picture in some):
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
    """The list of pictures with captions that BLIP and ARO's word-order sets read."""
    return _json([{"image": p.path, "caption": list(p.captions)} for p in pictures])


def negclip(rows: Sequence[tuple[str, str, list[str], list[int]]]) -> str:
    """NegCLIP's file: a caption, its picture's path, false captions, rows of similar pictures."""
    columns = ["title", "filepath", "neg_caption", "neg_image"]
    return pd.DataFrame(rows, columns=columns).to_csv(sep="\t", lineterminator="\n")


def similarity(
    name: str, part: str, pairs: Iterable[Sequence[Any]], source: str = ""
) -> dict[str, str]:
    """The files of a set of text similarity.

    Pairs have two sentences, a score (None: nobody gave one), and STS-B's further columns; `part`
    is one of a year, for example "images", else "train", "dev" or "test".
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
