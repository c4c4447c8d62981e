"""Vectors against one forward pass each; what is read, tokenised and encoded once."""

import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cae_lib.evaluation.inputs import PictureReader, forget, tokenize
from open_clip import SimpleTokenizer
from PIL import Image

from cae_lib.data.benchmarks.base import ImageRef
from cae_lib.errors import DataError
from cae_lib.evaluation import embed, inputs
from cae_lib.evaluation.encoder import Encoder, neighbours
from cae_lib.models.packed import PackedEncoder

TEXTS = ["a cat", "a very small red cat is sitting on the large green mat near a door", "a dog on",
         "two red dogs", "a bat"]
ODD_TEXTS = ["a cat", "", "Hello!!! & <b>caf\u00e9</b>\n two  spaces \U0001f408", "!", "a cat",
             "ends with the mark <end_of_text> and goes on", "very " * 100]


@pytest.fixture(autouse=True)
def nothing_kept():
    forget()


@pytest.fixture
def pictures(tmp_path):
    """Files of noise, in colour, grey and with transparency."""
    rng, paths = np.random.default_rng(0), [tmp_path / f"{n}.png" for n in range(3)]
    for n, mode in enumerate(("RGB", "L", "RGBA")):
        noise = rng.integers(0, 255, (60 + 30 * n, 90, 3), dtype=np.uint8)
        Image.fromarray(noise).convert(mode).save(paths[n])
    return paths


def noting(monkeypatch, owner, name, note):
    """Let a function of `owner` be noted with its arguments before it is called."""
    call = getattr(owner, name)
    def noted(*arguments, **options):
        note(*arguments)
        return call(*arguments, **options)
    monkeypatch.setattr(owner, name, noted)


@pytest.fixture
def encoded(monkeypatch):
    """Numbers of pictures, and token ids of texts, of each forward pass."""
    sizes, tokens = [], []
    noting(monkeypatch, embed, "encode_image", lambda _, pixels: sizes.append(len(pixels)))
    noting(monkeypatch, PackedEncoder, "encode_many", lambda _, texts: tokens.append(texts))
    return sizes, tokens


def test_pictures_and_crops_equal_one_forward_pass_each(tiny_clip, pictures, monkeypatch):
    monkeypatch.setattr(embed, "PICTURES_AT_ONCE_ON_CPU", 3)
    crops = [(5, 7, 45, 50), (0.4, 0, 30.0, 30.0)]
    refs = [*map(ImageRef, pictures), *(ImageRef(pictures[0], crop) for crop in crops)]
    ours = Encoder(tiny_clip).images(refs)
    assert ours.dtype == np.float32
    for ref, row in zip(refs, ours, strict=True):
        picture = Image.open(ref.path).convert("RGB")
        picture = picture.crop(tuple(map(round, ref.crop or (0, 0, *picture.size))))
        with torch.no_grad():
            plain = F.normalize(tiny_clip.model.encode_image(tiny_clip.preprocess(picture)[None]))
        np.testing.assert_allclose(row, plain[0].numpy(), atol=1e-5)


@pytest.mark.parametrize("tokenized_at_once", [1, 2, 9])
def test_texts_equal_open_clip_at_77_tokens(tiny_clip, tokenized_at_once, monkeypatch):
    monkeypatch.setattr(embed, "TOKENIZED_AT_ONCE", tokenized_at_once)
    monkeypatch.setattr(embed, "TEXTS_AT_ONCE", 3)
    ours = Encoder(tiny_clip).texts(TEXTS)
    with torch.no_grad():
        plain = F.normalize(tiny_clip.model.encode_text(tiny_clip.tokenizer(TEXTS)))
    np.testing.assert_allclose(ours, plain.numpy(), atol=1e-5)


def test_each_distinct_picture_and_text_is_encoded_once(tiny_clip, pictures, encoded, tmp_path):
    sizes, tokens = encoded
    copy = tmp_path / "copy.bmp"  # other bytes, equal pixels
    Image.open(pictures[0]).save(copy)
    crop = ImageRef(pictures[0], (0, 0, 20, 20))
    tiny_clip.model.train()
    encoder = Encoder(tiny_clip)
    refs = [ImageRef(pictures[0]), crop, ImageRef(pictures[1]), ImageRef(copy)]
    first = encoder.images(refs)
    again = encoder.images([*refs, ImageRef(pictures[2])])
    encoder.texts([*TEXTS, *TEXTS])
    encoder.texts(TEXTS[:1])
    assert tiny_clip.model.training and len(encoder.images([])) == len(encoder.texts([])) == 0
    assert sizes == [3, 1] and sum(map(len, tokens)) == len(TEXTS)
    np.testing.assert_array_equal(again[:4], first)
    np.testing.assert_array_equal(first[0], first[3])
    assert np.abs(first[0] - first[2]).max() > 0


def test_batches_hold_texts_of_about_one_length_that_begin_alike(tiny_clip, encoded, monkeypatch):
    monkeypatch.setattr(embed, "TEXTS_AT_ONCE", 2)
    Encoder(tiny_clip).texts([" ".join(["cat"] * n) for n in (8, 1, 7, 2)])
    assert [sorted(part.argmax(-1).tolist()) for part in encoded[1]] == [[2, 3], [8, 9]]
    texts = ["x b c d", "a b", "a b c e", "x b c", "a b c d", "a"]
    order = neighbours(tiny_clip.tokenizer(texts))
    # Lengths in pairs (2-3, 4-5); in each pair by tokens, where the end has the highest number.
    assert [texts[i] for i in order[:2]] == ["a b", "a"]
    assert {texts[i] for i in order[2:4]} == {"a b c d", "a b c e"}


@pytest.mark.parametrize("name, crop, message", [
    ("absent.png", None, "no such picture"), ("broken.jpg", None, "cannot be decoded"),
    ("cut.png", None, "cannot be decoded"),
    ("0.png", (5.1, 5, 5.2, 50), "the crop .* cannot be used"),
])
def test_missing_and_broken_pictures_are_named(tiny_clip, pictures, tmp_path, name, crop, message):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    (tmp_path / "cut.png").write_bytes(pictures[0].read_bytes()[:4000])
    with pytest.raises(DataError, match=f"{name}: {message}"):
        Encoder(tiny_clip).images([ImageRef(pictures[0]), ImageRef(tmp_path / name, crop)])


def test_pictures_are_decoded_on_the_cores_that_a_process_may_use(tiny_clip, monkeypatch):
    for cores, workers in ((1, 1), (3, 3), (64, 8)):
        own = set(range(cores))
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, own=own: own, raising=False)
        assert PictureReader(tiny_clip.preprocess).workers == workers
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert PictureReader(tiny_clip.preprocess).workers == 1
    assert PictureReader(tiny_clip.preprocess, workers=5).workers == 5


def pixels(preprocess, refs):
    reader = PictureReader(preprocess, workers=1)
    return reader.normalised(list(reader.read(refs)), torch.device("cpu"))


def test_the_models_input_is_bit_for_bit_that_of_the_preprocessing(tiny_clip, pictures):
    resize, crop, *rest = tiny_clip.preprocess.transforms
    smaller = type(tiny_clip.preprocess)([type(resize)(64), type(crop)(64), *rest])
    refs = [ImageRef(pictures[1]), ImageRef(pictures[0]), ImageRef(pictures[0], (3, 4, 40, 50))]
    plain = [Image.open(ref.path).crop(ref.crop) if ref.crop else Image.open(ref.path)
             for ref in refs]
    for preprocess in (tiny_clip.preprocess, smaller) * 2:  # each one read, then kept
        expected = torch.stack([preprocess(picture) for picture in plain])
        assert torch.equal(pixels(preprocess, refs), expected)
    again = Encoder(tiny_clip).pixels([refs[0], refs[1], refs[0]])
    assert torch.equal(again, pixels(tiny_clip.preprocess, refs)[[0, 1, 0]])


def test_a_second_reader_opens_files_that_changed_or_do_not_fit(tiny_clip, pictures, monkeypatch):
    opened, refs = [], [*map(ImageRef, pictures), ImageRef(pictures[0], (0, 0, 20, 20))]
    noting(monkeypatch, Image, "open", lambda path: opened.append(path.name))
    first = pixels(tiny_clip.preprocess, refs)
    assert torch.equal(pixels(tiny_clip.preprocess, refs), first)
    assert opened == ["0.png", "1.png", "2.png"]
    Image.new("RGB", (60, 60), "red").save(pictures[1])
    os.utime(pictures[1], ns=(1, 1))
    changed = (pixels(tiny_clip.preprocess, refs) != first).flatten(1).any(dim=1)
    assert opened[3:] == ["1.png"]
    assert changed.tolist() == [False, False, True, False]  # crops of a file stand together
    forget()
    opened.clear()
    monkeypatch.setattr(inputs, "MOST_BYTES", 2 * 3 * 112 * 112)
    for _ in range(2):
        assert len(pixels(tiny_clip.preprocess, [*map(ImageRef, pictures)])) == 3
    assert opened == ["0.png", "1.png", "2.png", "2.png"]


@pytest.mark.parametrize("options", [{}, {"context_length": 16}, {"clean": "whitespace"},
                                     {"additional_special_tokens": ["<x>"]}])
def test_ids_are_those_of_the_tokenizer_also_when_remembered(options):
    tokenize(SimpleTokenizer(), ODD_TEXTS)
    tokenizer = SimpleTokenizer(**options)
    for _ in range(2):
        found = tokenize(tokenizer, [*ODD_TEXTS, "A  Cat <x>"])
        assert found.dtype == torch.long
        assert torch.equal(found, tokenizer([*ODD_TEXTS, "A  Cat <x>"]))


def test_two_tokenizers_of_one_kind_read_a_text_once_but_others_each_time(monkeypatch):
    asked = []
    noting(monkeypatch, SimpleTokenizer, "__call__", lambda _, new, *rest: asked.extend(new))
    for texts in (ODD_TEXTS, [*ODD_TEXTS, "a dog"]):
        tokenize(SimpleTokenizer(), texts)
    assert sorted(asked) == sorted({*ODD_TEXTS, "a dog"})
    calls, masking = [], SimpleTokenizer(context_length=8, reduction_mask="random")
    for _ in range(2):
        tokenize(masking, ["a b c d e f g h i"])
        tokenize(lambda texts: calls.append(texts), ("a", "b"))
    assert asked[-2:] == ["a b c d e f g h i"] * 2 and calls == [["a", "b"]] * 2


def test_vectors_kept_by_the_image_tower_are_not_computed_again(tiny_clip, pictures, encoded,
                                                                tmp_path):
    (sizes, _), refs = encoded, [*map(ImageRef, pictures)]
    before = embed.image_digest(tiny_clip.model)
    kept = tmp_path / "kept" / f"{before}.npz"
    expected = Encoder(tiny_clip, kept=kept).images(refs[:2])
    again = Encoder(tiny_clip, kept=kept)
    np.testing.assert_array_equal(again.images(refs[:2]), expected)
    again.images(refs)
    Encoder(tiny_clip, kept=kept).images(refs)
    assert sizes == [2, 1], "the third one is new"
    with torch.no_grad():
        tiny_clip.model.visual.proj.mul_(2)
    assert embed.image_digest(tiny_clip.model) != before


def test_progress_is_told_of_many_if_the_encoder_has_a_name(tiny_clip, pictures, monkeypatch,
                                                            capsys):
    monkeypatch.setattr(embed, "MANY", 2)
    refs = [ImageRef(path) for path in pictures]
    encoder = Encoder(tiny_clip, progress="base")
    encoder.images(refs)
    encoder.texts(["a", "b", "c"])
    _, first, _, second = capsys.readouterr().err.splitlines()
    assert first.startswith("base: pictures") and f" {len(refs)}/{len(refs)} " in first
    assert second.startswith("base: texts") and " 3/3 " in second
    encoder.images(refs)
    encoder.texts(["d"])
    Encoder(tiny_clip).images(refs)
    assert not capsys.readouterr().err, "nothing of what is known, of few, or without a name"
