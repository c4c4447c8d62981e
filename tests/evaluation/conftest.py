"""A stand-in for the encoder whose vectors are written down by hand; captions with pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cae_lib.data.benchmarks.base import Benchmark, Choice, ImageRef
from cae_lib.data.captions import Pairs
from cae_lib.evaluation import sets
from cae_lib.words.alignment import Alignment, align
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION, Span

CAPTIONS = ["a red cat", "the very small dog is on a wide bed", "", "a wet car near it", "two cups"]
PICTURES = [2, 0, 1, 0, 1]
ROLE_OF = (
    dict.fromkeys(("cat", "dog", "bed", "car", "cups"), OBJECT)
    | dict.fromkeys(("red", "small", "wide", "wet"), ATTRIBUTE)
    | dict.fromkeys(("on", "near"), RELATION)
)


class HandEncoder:
    """Vectors of pictures (by file name) and texts, given as numbers."""

    def __init__(self, images, texts):
        self._images, self._texts = images, texts

    def images(self, refs):
        return np.array([self._images[ref.path.name] for ref in refs], dtype=np.float32)

    def texts(self, texts):
        return np.array([self._texts[text] for text in texts], dtype=np.float32)


@pytest.fixture
def hand_encoder():
    return HandEncoder


@pytest.fixture
def choice():
    def make(images, texts, truth=0, group="g", name="0"):
        refs = tuple(ImageRef(Path(image)) for image in images)
        return Choice(refs, tuple(texts), truth, group, name)

    return make


@pytest.fixture
def benchmark_of():
    def make(*items, **fields):
        return Benchmark("family", "part", tuple(items), fields.pop("n_expected", 9), **fields)

    return make


@dataclass
class Five:
    """Five captions, one token a word and one of them empty, of three pictures in no order."""

    pairs: Pairs
    alignment: Alignment
    pictures: list[int]
    role_of: dict[str, int]


@pytest.fixture
def five(tmp_path, tiny_clip):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        noise = np.random.default_rng(number).integers(0, 256, (112, 112, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    spans = []
    for caption in CAPTIONS:
        starts = {word: f" {caption} ".index(f" {word} ") for word in caption.split()}
        own = {word: start for word, start in starts.items() if word in ROLE_OF}
        spans.append([Span(at, at + len(word), ROLE_OF[word]) for word, at in own.items()])
    pairs = Pairs(paths, CAPTIONS, torch.tensor(PICTURES), "toy", 5, 5)
    return Five(pairs, align(CAPTIONS, spans, tiny_clip.tokenizer), PICTURES, ROLE_OF)


@pytest.fixture(scope="module")
def world_home(smoke_world, tmp_path_factory):
    """Let the profile smoke have the world that the tests share; returns the world's folder."""
    root = tmp_path_factory.mktemp("home")
    (root / "data").mkdir()
    (root / "data" / "raw").symlink_to(smoke_world.parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAE_HOME", str(root))
        forget_sets()
        yield smoke_world
    forget_sets()


@pytest.fixture
def fresh_sets():
    """Let the test sets be read anew, now and afterwards."""
    forget_sets()
    yield
    forget_sets()


def forget_sets():
    for read in (sets.benchmarks, sets.retrieval_pairs, sets.similarity_pairs, sets.class_sets):
        read.cache_clear()
