"""Read Flickr8k, photographs with five human captions (Hodosh et al. 2013), as it is published."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cae_bench.similarity import SENTEVAL_FOLDER, STSB
from cae_lib.errors import DataError
from data.recipes import layouts
from data.recipes.datasets import Dataset
from data.recipes.layouts import Captioned

IMAGES, TEXTS = "Flicker8k_Dataset", "Flickr8k_text"
SPLITS = ("train", "dev", "test")
# Share of the training split that base models are trained on; the rest is for fine-tuning.
BASE = 0.75
CAPTIONS = 5
ADVICE = "Get the official files with `cae data get flickr8k`."


def load(root: str | Path) -> dict[str, list[Captioned]]:
    """Return the images of each split that have a file, in the official order."""
    root = Path(root)
    captions = _captions(root / TEXTS / "Flickr8k.token.txt")
    images: dict[str, list[Captioned]] = {}
    for split in SPLITS:
        path = root / TEXTS / f"Flickr_8k.{split}Images.txt"
        names = _lines(path)
        for name in names:
            if len(captions.get(name, ())) != CAPTIONS:
                raise DataError(
                    f"{path}: {name} has {len(captions.get(name, ()))} captions in "
                    f"Flickr8k.token.txt, {CAPTIONS} expected. {ADVICE}"
                )
        images[split] = [
            Captioned(int(name.partition("_")[0]), name, captions[name])
            for name in names
            if (root / IMAGES / name).is_file()
        ]
        if not images[split]:
            raise DataError(f"{root / IMAGES}: no image of the split {split!r}. {ADVICE}")
    return images


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise DataError(f"{path}: no such file. {ADVICE}")
    return path.read_text(encoding="utf-8").splitlines()


def _captions(path: Path) -> dict[str, list[str]]:
    """Return the captions of each image by the name of its file."""
    captions: dict[str, list[str]] = {}
    for row, line in enumerate(_lines(path), start=1):
        key, _, caption = line.partition("\t")
        name, mark, number = key.rpartition("#")
        if not (mark and number.isdecimal() and caption.strip()):
            raise DataError(
                f"{path}, line {row}: {line[:60]!r}; expected name.jpg#0, a tab and a "
                f"caption. {ADVICE}"
            )
        captions.setdefault(name, []).append(detokenize(caption))
    return captions


def detokenize(caption: str) -> str:
    """Write a caption as people write it; in Flickr8k, spaces stand between words and marks.

    >>> detokenize("A dog 's ball , in the grass .")
    "A dog's ball, in the grass."
    """
    text = " ".join(caption.split())
    text = re.sub(r"\s+([.,!?;:])", r"\1", text)
    return re.sub(r"\s+('s|'re|'ll|'ve|n't)\b", r"\1", text)


def similarity_dataset(rows: Iterable[Sequence[Any]]) -> Dataset:
    """Return STS-B's test file of rows with two captions and a score each."""
    rows = list(rows)
    texts = layouts.stsb("test", rows, "Flickr8k")
    return Dataset(
        "similarity",
        texts={f"{SENTEVAL_FOLDER}/{path}": text for path, text in texts.items()},
        counts={f"{STSB}/test": len(rows)},
    )
