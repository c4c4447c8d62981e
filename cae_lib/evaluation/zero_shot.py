"""Zero-shot classification: is the prompt of what a picture shows closer than every other one?

A picture may show several classes, as scenes do. Each of them is then judged against the classes
that are not in the picture, which for pictures of one class is the usual accuracy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cae_lib.data.benchmarks.base import ImageRef
from cae_lib.data.labelled import LabelledImages, load_labelled_folder
from cae_lib.data.training_set import data_root
from cae_lib.data.world.vocabulary import NOUNS
from cae_lib.errors import DataError
from cae_lib.evaluation.bits import pack_bits, unpack_bits
from cae_lib.evaluation.embed import Encoder

PROMPTS = ("a photo of {}", "{}")
"""Filled with a class and its article; a class is the mean of its prompts' vectors."""

KS = (1, 5)
FOLDER = "zero-shot"
WORLD_SETS: Mapping[str, tuple[str, str, str]] = {
    "coco": ("coco/coco_karpathy_test.json", "coco",
             "coco/annotations/scene_graphs_val2014.json"),
    "flickr30k": ("flickr30k/flickr30k_test.json", "flickr30k",
                  "flickr30k/scene_graphs_test.json"),
}  # fmt: skip


@dataclass(frozen=True)
class ZeroShotResult:
    """Right or wrong for each class that a picture shows.

    Attributes:
        hits: For each k, `(m,)` bool, picture by picture: fewer than k of the classes that are not
            in the picture are at least as close as this one, which is.
        sizes: `(n,)` number of classes of each picture; they sum to m.
        n_classes: Number of classes.
        n_expected: Number of pictures that there should be.
    """

    hits: Mapping[int, np.ndarray]
    sizes: np.ndarray
    n_classes: int
    n_expected: int

    def shares(self, k: int) -> np.ndarray:
        """For each picture `(n,)`, the share of its classes that are found."""
        starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        return np.add.reduceat(self.hits[k].astype(np.float64), starts) / self.sizes

    def to_record(self) -> dict[str, Any]:
        """Accuracies, counts, and the hits as packed hex strings."""
        return {
            "accuracy": {str(k): float(self.shares(k).mean()) for k in self.hits},
            "hits": {str(k): pack_bits(found) for k, found in self.hits.items()},
            "sizes": "".join(map(str, self.sizes)) if self.sizes.max() < 10 else self.sizes,
            "n_classes": self.n_classes,
            "n_used": len(self.sizes),
            "n_expected": self.n_expected,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> ZeroShotResult:
        """Read what `to_record` wrote.

        Raises:
            DataError: The record does not hold such a result.
        """
        try:
            sizes = np.array([int(size) for size in record["sizes"]])
            hits = {int(k): unpack_bits(found, int(sizes.sum()))
                    for k, found in record["hits"].items()}  # fmt: skip
            return cls(hits, sizes, record["n_classes"], record["n_expected"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"not a zero-shot result ({error!r}). Compute it anew.") from error


def zero_shot(encoder: Encoder, profile: str) -> dict[str, Any]:
    """Results of one model on every set of a profile, by the set's name.

    Raises:
        DataError: The data are not there; the message says where they are expected.
    """
    return {name: classify(encoder, pictures).to_record()
            for name, pictures in labelled_sets(profile).items()}  # fmt: skip


def classify(encoder: Encoder, pictures: LabelledImages) -> ZeroShotResult:
    """Rank the classes of each picture by cosine; a tie counts against the right one."""
    images = encoder.images([ImageRef(path) for path in pictures.paths])
    similarity = images @ class_vectors(encoder, pictures.classes).T
    present = np.zeros(similarity.shape, dtype=bool)
    for row, labels in enumerate(pictures.labels):
        present[row, list(labels)] = True
    absent = np.where(present, -np.inf, similarity)
    ranks = np.concatenate([
        (absent[row, :, None] >= similarity[row, list(labels)]).sum(axis=0)
        for row, labels in enumerate(pictures.labels)
    ])  # fmt: skip
    sizes = np.array([len(labels) for labels in pictures.labels])
    hits = {k: ranks < k for k in KS}
    return ZeroShotResult(hits, sizes, len(pictures.classes), pictures.n_expected)


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
