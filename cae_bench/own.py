"""Evaluate a model on data of your own: captions with hard negatives, or captioned images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import torch

from cae_bench.answers import answer_benchmarks
from cae_bench.benchmarks.base import Benchmark, ImageRef, Item
from cae_bench.encoder import Encoder
from cae_bench.retrieval import DIRECTIONS, retrieval_ranks
from cae_bench.scores import SCORE_COLUMNS, accuracy_table, items_of
from cae_lib.data.captions import ImageCaptionPairs
from cae_lib.data.incomplete import image_problem, log_left_out
from cae_lib.data.rows import Row, is_list_of_texts, rows_of
from cae_lib.errors import DataError, MissingDataError
from cae_lib.models.clip import Clip

COLUMNS = {
    "image": ("image", "filepath", "file_name", "filename", "path"),
    "caption": ("caption", "title", "text"),
    "negative": ("negative", "negatives", "negative_caption"),
}
"""Names that the columns of a file may have, by what they hold."""


def evaluate_file(
    model: Clip | Callable[[], Clip], path: Path | str, images: Path | str | None = None
) -> pd.DataFrame:
    """Evaluate a model on a file of your own.

    A file of choices has a row for each item: an image, its caption, and one or more captions that
    are wrong. A file of captions has a row for each caption; its images are ranked for the captions
    and the captions for the images. Both are CSV, TSV, JSON (a list of objects) or JSON lines, with
    columns named as in `COLUMNS`. Flickr8k's token file ("1.jpg#0<tab>A dog .") is read, too.

    Args:
        model: A model that `cae_lib.load_clip` returns, or a function that returns one. The
            function is called after the file has been read.
        path: A file of choices, or of captions.
        images: Folder that the image paths start from; None for the folder of the file.

    Returns:
        Rows with the columns `SCORE_COLUMNS`: the accuracy of choices, or recall at 1, 5 and 10 in
        both directions. The name of the dataset is that of the file without its suffix.

    Raises:
        DataError: If the file is missing or malformed, or none of its images can be used. Rows
            whose image is missing or broken are left out, with a message.
    """
    path = Path(path)
    folder = path.parent if images is None else Path(images)
    rows = list(_rows(path))
    first = rows[0].content
    has_negatives = isinstance(first, dict) and not first.keys().isdisjoint(COLUMNS["negative"])
    data = _choices(path, folder, rows) if has_negatives else _captions(path, folder, rows)
    encoder = Encoder(model if isinstance(model, Clip) else model(), show_progress=True)
    if isinstance(data, Benchmark):
        return accuracy_table(answer_benchmarks([data], encoder), items_of([data]))
    ranks = retrieval_ranks(encoder, data, path.stem)
    scores = [
        (
            path.stem,
            "retrieval",
            f"{way}, R@{k}",
            float((ranks.loc[ranks["direction"] == way, "rank"] <= k).mean()),
            math.nan,
            data.n_used,
            data.n_expected,
        )
        for way in DIRECTIONS
        for k in (1, 5, 10)
    ]
    return pd.DataFrame(scores, columns=SCORE_COLUMNS)


def _rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file; those of Flickr8k's token file with the names of `COLUMNS`."""
    for row in rows_of(path):
        if isinstance(row.content, str):
            image, _, caption = row.content.partition("\t")
            if "#" not in image or not caption.strip():
                raise DataError(
                    f"{path}, {row.location}: expected NAME#NUMBER, a tab and a caption, as in "
                    "Flickr8k's token file; or give a file that ends in .csv, .tsv, .json or .jsonl"
                )
            content = {"image": image.rpartition("#")[0], "caption": caption.strip()}
            row = Row(path, row.location, content, row.key)
        yield row


def _name(row: Row, what: str) -> str:
    """Return the name of the column that holds the image, the caption or the negatives."""
    content = row.content if isinstance(row.content, dict) else {}
    name = next((name for name in COLUMNS[what] if name in content), None)
    if name is None:
        expected = ", ".join(COLUMNS[what])
        raise DataError(f"{row.path}, {row.location}: no column for the {what}: name it {expected}")
    return name


def _text(row: Row, what: str) -> str:
    return row.text(_name(row, what))


def _choices(path: Path, folder: Path, rows: list[Row]) -> Benchmark:
    """Return the items of a file of choices whose image can be used."""
    items, left_out = [], []
    for row in rows:
        name = _name(row, "negative")
        value = row.value(name)
        false = row.texts(name) if is_list_of_texts(value) else (row.text(name),)
        image = ImageRef(folder / _text(row, "image"))
        # Decoded now, so that a broken image does not stop the evaluation later.
        if problem := image_problem(image.path, decode=True):
            left_out.append((row.location, problem))
            continue
        items.append(Item(row.key, (image,), (_text(row, "caption"), *false)))
    _report_left_out(path, len(items), len(rows), left_out)
    return Benchmark(path.stem, "all", tuple(items), len(rows))


def _captions(path: Path, folder: Path, rows: list[Row]) -> ImageCaptionPairs:
    """Return the captions of a file whose image can be used."""
    files = [folder / _text(row, "image") for row in rows]
    problems = {file: image_problem(file, decode=True) for file in dict.fromkeys(files)}
    kept = [number for number, file in enumerate(files) if not problems[file]]
    left_out = [
        (row.location, problems[file])
        for row, file in zip(rows, files, strict=True)
        if problems[file]
    ]
    _report_left_out(path, len(kept), len(rows), left_out)
    image_numbers: dict[Path, int] = {}
    # (captions,): images are numbered in the order in which captions first name them.
    index = torch.tensor(
        [image_numbers.setdefault(files[number], len(image_numbers)) for number in kept]
    )
    captions = [_text(rows[number], "caption") for number in kept]
    return ImageCaptionPairs(list(image_numbers), captions, index, path.stem, len(kept), len(rows))


def _report_left_out(path: Path, n_used: int, n_rows: int, left_out: list[tuple[str, str]]) -> None:
    """Print which rows are left out; without any row left, raise an error."""
    log_left_out(path.stem, path, n_used, n_rows, left_out)
    if not n_used:
        raise MissingDataError(
            f"{path}: no row has an image that can be used; {left_out[0][0]}: {left_out[0][1]}. "
            "Name the folder that the paths start from (--images)"
        )
