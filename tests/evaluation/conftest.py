"""A stand-in for the encoder whose vectors are written by hand, items, and a world for all."""

from pathlib import Path

import numpy as np
import pytest
from toys import forget, toy_clip

from cae_bench.benchmarks.base import Benchmark, ImageRef, Item


class HandEncoder:
    """Vectors of pictures (by file name) and texts, given as numbers."""

    def __init__(self, images, texts):
        self._images, self._texts = images, texts

    def encode_images(self, refs):
        return np.array([self._images[ref.path.name] for ref in refs], dtype=np.float32)

    def encode_texts(self, texts):
        return np.array([self._texts[text] for text in texts], dtype=np.float32)


@pytest.fixture
def hand_encoder():
    return HandEncoder


@pytest.fixture
def choice():
    def make(images, texts, truth=0, group="g", name="0"):
        refs = tuple(ImageRef(Path(image)) for image in images)
        return Item(name, refs, tuple(texts), truth, group)

    return make


@pytest.fixture
def benchmark_of():
    def make(*items, **fields):
        subset, n_expected = fields.pop("subset", "part"), fields.pop("n_expected", 9)
        return Benchmark("family", subset, tuple(items), n_expected, **fields)

    return make


@pytest.fixture(scope="module")
def clip():
    return toy_clip()


@pytest.fixture(scope="module")
def world_home(smoke_world, tmp_path_factory):
    """Let the profile smoke have the world that the tests share; returns the world's folder."""
    root = tmp_path_factory.mktemp("home")
    (root / "data").mkdir()
    (root / "data" / "raw").symlink_to(smoke_world.parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAE_HOME", str(root))
        forget()
        yield smoke_world
    forget()


@pytest.fixture
def raw(home):
    """The folder of the profile `paper`, in a home of its own."""
    forget()
    yield home / "data" / "raw"
    forget()
