"""NegCLIP's TSV files: captions with false captions and with rows of similar pictures."""

from __future__ import annotations

import ast
import csv
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from cae_lib.data.pairs import Missing, Pairs, existing, kept, pairs_of, text_of
from cae_lib.errors import DataError

NEGCLIP_COLUMNS = ("title", "filepath", "neg_caption", "neg_image")


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
    path = existing(tsv)
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
    titles = [text_of(path, i, row["title"], "title") for i, row in enumerate(rows)]
    files = [text_of(path, i, row["filepath"], "filepath") for i, row in enumerate(rows)]
    negatives = [_literal(path, i, row, "neg_caption", str) for i, row in enumerate(rows)]
    hard = [_literal(path, i, row, "neg_image", int) for i, row in enumerate(rows)]
    for i, numbers in enumerate(hard):
        if any(not 0 <= number < len(rows) for number in numbers):
            raise DataError(
                f"{path}, row {i}: neg_image is {numbers}; expected row numbers of this file, "
                f"0 to {len(rows) - 1}. Is the file complete?"
            )
    keep = kept([Path(root) / name for name in files], missing, path)
    place = {old: new for new, old in enumerate(keep)}
    pairs = pairs_of([(Path(root) / files[i], titles[i]) for i in keep], path.stem, len(rows))
    return replace(
        pairs,
        negatives=[negatives[i] for i in keep],
        hard_images=[[place[j] for j in hard[i] if j in place] for i in keep],
    )


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
