"""A stand-in for the encoder whose vectors are written down by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cae_lib.data.benchmarks.base import Benchmark, Choice, ImageRef


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
