from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from PIL import Image

from cae_lib.data.benchmarks.base import ImageRef
from cae_lib.errors import DataError
from cae_lib.evaluation import pictures as module
from cae_lib.evaluation.pictures import PictureReader, forget_pictures
from cae_lib.evaluation.recipe import Recipe


@pytest.fixture(autouse=True)
def empty():
    forget_pictures()
    yield
    forget_pictures()


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{n}.png" for n in range(3)]
    for n, path in enumerate(paths):
        pixels = rng.integers(0, 255, (60 + 30 * n, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


@pytest.fixture
def opened(monkeypatch):
    """Names of the files that are opened."""
    names, open_file = [], Image.open

    def note(path):
        names.append(path.name)
        return open_file(path)

    monkeypatch.setattr(Image, "open", note)
    return names


def _input(reader: PictureReader, refs: list[ImageRef]) -> torch.Tensor:
    return reader.normalised(list(reader.read(refs)), torch.device("cpu"))


def test_the_models_input_is_bit_for_bit_that_of_the_preprocessing(tiny_clip, files):
    refs = [ImageRef(files[0]), ImageRef(files[0], (3, 4, 40, 50)), ImageRef(files[1])]
    whole = Image.open(files[0])
    plain = [whole, whole.crop((3, 4, 40, 50)), Image.open(files[1])]
    expected = torch.stack([tiny_clip.preprocess(picture) for picture in plain])
    for _ in range(2):
        assert torch.equal(_input(PictureReader(tiny_clip.preprocess), refs), expected)


def test_a_second_reader_opens_no_file_unless_it_changed(tiny_clip, files, opened):
    refs = [*map(ImageRef, files), ImageRef(files[0], (0, 0, 20, 20))]
    first = _input(PictureReader(tiny_clip.preprocess), refs)
    assert sorted(opened) == ["0.png", "1.png", "2.png"]
    assert torch.equal(_input(PictureReader(tiny_clip.preprocess), refs), first)
    assert len(opened) == 3
    Image.new("RGB", (60, 60), "red").save(files[1])
    os.utime(files[1], ns=(1, 1))
    again = _input(PictureReader(tiny_clip.preprocess), refs)
    assert opened[3:] == ["1.png"]
    changed = (again != first).flatten(1).any(dim=1)
    assert changed.tolist() == [False, False, True, False]


def test_the_order_does_not_depend_on_what_is_kept(tiny_clip, files):
    refs = [ImageRef(files[2]), ImageRef(files[0]), ImageRef(files[1])]
    fresh = [p.ref for p in PictureReader(tiny_clip.preprocess).read(refs)]
    forget_pictures()
    list(PictureReader(tiny_clip.preprocess).read(refs[1:2]))
    assert [p.ref for p in PictureReader(tiny_clip.preprocess).read(refs)] == fresh == refs


def test_what_does_not_fit_is_read_again(tiny_clip, files, opened, monkeypatch):
    one = 3 * 112 * 112
    monkeypatch.setattr(module, "MOST_BYTES", 2 * one)
    for _ in range(2):
        found = list(PictureReader(tiny_clip.preprocess, workers=1).read([*map(ImageRef, files)]))
        assert [picture.pixels.nbytes for picture in found] == [one] * 3
    assert opened == ["0.png", "1.png", "2.png", "2.png"]


def test_a_picture_that_ends_too_early_is_never_kept(tiny_clip, files, tmp_path):
    cut = tmp_path / "cut.jpg"
    Image.open(files[2]).save(cut, quality=95)
    cut.write_bytes(cut.read_bytes()[:3000])
    for _ in range(2):
        reader = PictureReader(tiny_clip.preprocess, allow_truncated=True)
        assert len(list(reader.read([ImageRef(cut)]))) == 1
        assert reader.truncated == {cut}
    with pytest.raises(DataError, match=r"cut\.jpg: cannot be decoded"):
        list(PictureReader(tiny_clip.preprocess).read([ImageRef(cut)]))


def test_an_unknown_preprocessing_is_called_each_time(files, opened):
    def mean_colour(picture: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(picture, dtype=np.float32).mean(axis=(0, 1)))

    for _ in range(2):
        found = _input(PictureReader(mean_colour), [ImageRef(files[0])])
        assert torch.equal(found[0], mean_colour(Image.open(files[0]).convert("RGB")))
    assert opened.count("0.png") == 4


def test_another_size_is_another_recipe(tiny_clip):
    resize, crop, *rest = tiny_clip.preprocess.transforms
    other = type(tiny_clip.preprocess)([type(resize)(64), type(crop)(64), *rest])
    picture = Image.new("RGB", (100, 120), "green")
    first, second = Recipe.of(tiny_clip.preprocess), Recipe.of(other)
    assert first.name and second.name and first.name != second.name
    assert second.cut(picture).shape == (3, 64, 64)
    assert torch.equal(second.normalised(second.cut(picture)[None])[0], other(picture))
