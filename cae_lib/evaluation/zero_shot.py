"""Zero-shot classification: is the prompt of what a picture shows closer than every other one?

A picture may show several classes, as scenes do. Each of them is then judged against the classes
that are not in the picture, which for pictures of one class is the usual accuracy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from cae_lib.data.benchmarks.base import ImageRef
from cae_lib.data.labelled import LabelledImages, load_labelled_folder
from cae_lib.data.training_set import data_root
from cae_lib.errors import DataError
from cae_lib.evaluation.embed import Encoder
from cae_lib.world.vocabulary import NOUNS

PROMPTS = ("a photo of {}", "{}")
"""Filled with a class and its article; a class is the mean of its prompts' vectors."""

FOLDER = "zero-shot"
WORLD_SETS: Mapping[str, tuple[str, str, str]] = {
    "coco": ("coco/coco_karpathy_test.json", "coco",
             "coco/annotations/scene_graphs_val2014.json"),
    "flickr30k": ("flickr30k/flickr30k_test.json", "flickr30k",
                  "flickr30k/scene_graphs_test.json"),
}


def zero_shot(encoder: Encoder, profile: str) -> pd.DataFrame:
    """What `class_ranks` returns for every set of a profile, with the set's name, `set`.

    Raises:
        DataError: The data are not there; the message says where they are expected.
    """
    found = labelled_sets(profile).items()
    return pd.concat(
        [class_ranks(encoder, pictures).assign(set=name) for name, pictures in found],
        ignore_index=True,
    )[["set", "picture", "label", "rank"]]


def class_ranks(encoder: Encoder, pictures: LabelledImages) -> pd.DataFrame:
    """Rank the classes that each picture shows by cosine; a tie counts against the right one.

    Returns:
        `picture`, its number; `label`, a class that it shows; `rank` of this class among those
        that the picture does not show, 1 for the closest.
    """
    images = encoder.images([ImageRef(path) for path in pictures.paths])
    similarity = images @ class_vectors(encoder, pictures.classes).T
    sizes = [len(labels) for labels in pictures.labels]
    rows = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    columns = np.concatenate([list(labels) for labels in pictures.labels])
    absent = similarity.copy()
    absent[rows, columns] = -np.inf
    ranks = 1 + (absent[rows] >= similarity[rows, columns, None]).sum(axis=1)
    labels = np.array(pictures.classes, dtype=object)[columns]
    return pd.DataFrame({"picture": rows, "label": labels, "rank": ranks.astype(np.int32)})


def class_vectors(encoder: Encoder, classes: Sequence[str]) -> np.ndarray:
    """Unit vectors `(C, E)`: the mean over `PROMPTS`, as CLIP's own evaluation does it."""
    texts = [prompt.format(with_article(name)) for name in classes for prompt in PROMPTS]
    vectors = encoder.texts(texts).reshape(len(classes), len(PROMPTS), -1).mean(axis=1)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def with_article(name: str) -> str:
    """A noun with "a" or "an" by its first letter."""
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


@lru_cache(maxsize=2)
def labelled_sets(profile: str) -> Mapping[str, LabelledImages]:
    """The sets of a profile: the small world's test pictures, or what lies in `zero-shot/`.

    Raises:
        DataError: There is none, or one is malformed.
    """
    root = data_root(profile)
    if profile != "paper":
        return {name: world_pictures(root, *files) for name, files in WORLD_SETS.items()}
    folders = sorted(path for path in (root / FOLDER).glob("*") if path.is_dir())
    if not folders:
        raise DataError(
            f"{root / FOLDER}: no set of labelled pictures. Put each set into a folder of its own "
            "there, with one folder of pictures for each class, or with a file labels.csv."
        )
    return {path.name: load_labelled_folder(path) for path in folders}


def world_pictures(root: Path, listing: str, folder: str, graphs: str) -> LabelledImages:
    """Test pictures of the small world with the nouns of their gold scene graphs.

    Raises:
        DataError: A file is missing or malformed, or a picture has no scene graph.
    """
    try:
        names = [entry["image"] for entry in json.loads((root / listing).read_text("utf-8"))]
        gold = json.loads((root / graphs).read_text("utf-8"))["images"]
        things = {image["file_name"]: image["things"] for image in gold}
        labels = [
            tuple(NOUNS.index(thing["noun"]) for thing in things[Path(name).name]) for name in names
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{root}: {listing} and {graphs} do not name the things of the test pictures "
            f"({error!r}); build the small world with `cae world build`"
        ) from error
    return LabelledImages([root / folder / name for name in names], labels, NOUNS, len(names))
