"""Pixels and tokens that the process keeps are those of the preprocessing and the tokenizer."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from open_clip import SimpleTokenizer
from PIL import Image

from cae_lib.data.benchmarks.base import ImageRef
from cae_lib.evaluation import inputs
from cae_lib.evaluation.inputs import PictureReader, forget_pictures, forget_tokens, tokenize

TEXTS = [
    "a cat",
    "",
    "Hello!!! & <b>caf\u00e9</b>\n two  spaces \U0001f408",
    "ends with the mark <end_of_text> and goes on",
    "!",
    " ".join(["very"] * 100),
    "a cat",
]


@pytest.fixture(autouse=True)
def empty():
    forget_pictures()
    forget_tokens()


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


def pixels(preprocess, refs):
    reader = PictureReader(preprocess)
    return reader.normalised(list(reader.read(refs)), torch.device("cpu"))


def test_the_models_input_is_bit_for_bit_that_of_the_preprocessing(tiny_clip, files):
    resize, crop, *rest = tiny_clip.preprocess.transforms
    smaller = type(tiny_clip.preprocess)([type(resize)(64), type(crop)(64), *rest])
    refs = [ImageRef(files[0]), ImageRef(files[0], (3, 4, 40, 50)), ImageRef(files[1])]
    whole = Image.open(files[0])
    plain = [whole, whole.crop((3, 4, 40, 50)), Image.open(files[1])]
    for preprocess in (tiny_clip.preprocess, smaller) * 2:  # each one read, then kept
        expected = torch.stack([preprocess(picture) for picture in plain])
        assert torch.equal(pixels(preprocess, refs), expected)


def test_a_second_reader_opens_no_file_unless_it_changed(tiny_clip, files, opened):
    refs = [*map(ImageRef, files), ImageRef(files[0], (0, 0, 20, 20))]
    first = pixels(tiny_clip.preprocess, refs)
    assert sorted(opened) == ["0.png", "1.png", "2.png"]
    assert torch.equal(pixels(tiny_clip.preprocess, refs), first)
    assert len(opened) == 3
    Image.new("RGB", (60, 60), "red").save(files[1])
    os.utime(files[1], ns=(1, 1))
    again = pixels(tiny_clip.preprocess, refs)
    assert opened[3:] == ["1.png"]
    changed = (again != first).flatten(1).any(dim=1)
    assert changed.tolist() == [False, False, True, False]


def test_the_order_does_not_depend_on_what_is_kept(tiny_clip, files):
    refs = [ImageRef(files[2]), ImageRef(files[0]), ImageRef(files[1])]
    pixels(tiny_clip.preprocess, refs[1:2])
    assert [p.ref for p in PictureReader(tiny_clip.preprocess).read(refs)] == refs


def test_what_does_not_fit_is_read_again(tiny_clip, files, opened, monkeypatch):
    monkeypatch.setattr(inputs, "MOST_BYTES", 2 * 3 * 112 * 112)
    for _ in range(2):
        assert len(list(PictureReader(tiny_clip.preprocess, 1).read([*map(ImageRef, files)]))) == 3
    assert opened == ["0.png", "1.png", "2.png", "2.png"]


@pytest.fixture
def asked(monkeypatch):
    """The texts that open_clip's tokenizer is asked for."""
    texts, call = [], SimpleTokenizer.__call__

    def note(self, new, context_length=None):
        texts.extend(new)
        return call(self, new, context_length)

    monkeypatch.setattr(SimpleTokenizer, "__call__", note)
    return texts


@pytest.mark.parametrize("length", [77, 16])
def test_ids_are_those_of_the_tokenizer_also_when_remembered(length):
    tokenizer = SimpleTokenizer(context_length=length)
    expected = tokenizer(TEXTS)
    for _ in range(2):
        found = tokenize(tokenizer, TEXTS)
        assert found.dtype == torch.long and torch.equal(found, expected)


def test_two_tokenizers_of_one_kind_read_a_text_once(asked):
    tokenize(SimpleTokenizer(), TEXTS)
    tokenize(SimpleTokenizer(), [*TEXTS, "a dog"])
    assert sorted(asked) == sorted({*TEXTS, "a dog"})


@pytest.mark.parametrize("other", [
    {"context_length": 16}, {"clean": "whitespace"}, {"additional_special_tokens": ["<x>"]}
])
def test_another_length_cleaning_or_vocabulary_is_another_kind(other):
    tokenize(SimpleTokenizer(), ["A  Cat <x>"])
    tokenizer = SimpleTokenizer(**other)
    assert torch.equal(tokenize(tokenizer, ["A  Cat <x>"]), tokenizer(["A  Cat <x>"]))


def test_random_masking_and_other_tokenizers_are_called_each_time(asked):
    calls = []
    for _ in range(2):
        tokenize(SimpleTokenizer(context_length=8, reduction_mask="random"), ["a b c d e f g h i"])
        tokenize(lambda texts: calls.append(texts), ("a", "b"))
    assert len(asked) == 2 and calls == [["a", "b"], ["a", "b"]]
