"""Vectors of pictures and texts against one forward pass each, and what is encoded once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageFile

from cae_lib.data.benchmarks.base import ImageRef
from cae_lib.errors import DataError
from cae_lib.evaluation import embed
from cae_lib.evaluation.embed import Encoder, neighbours
from cae_lib.models.packed import PackedEncoder

TEXTS = ["a cat", "a very small red cat is sitting on the large green mat near a door", "a dog on",
         "two red dogs", "a bat"]


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{n}.png" for n in range(5)]
    for n, path in enumerate(paths):
        Image.fromarray(rng.integers(0, 255, (60 + 10 * n, 90, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def encoded(monkeypatch):
    """Numbers of pictures, and token ids of texts, of each forward pass."""
    sizes, tokens = [], []
    encode_image, encode_many = embed.encode_image, PackedEncoder.encode_many

    def note_images(model, pixels):
        sizes.append(len(pixels))
        return encode_image(model, pixels)

    def note_texts(self, texts):
        tokens.append(texts)
        return encode_many(self, texts)

    monkeypatch.setattr(embed, "encode_image", note_images)
    monkeypatch.setattr(PackedEncoder, "encode_many", note_texts)
    return sizes, tokens


def test_pictures_and_crops_equal_one_forward_pass_each(tiny_clip, pictures, monkeypatch):
    monkeypatch.setattr(embed, "PICTURES_AT_ONCE_ON_CPU", 3)
    crops = [(5, 7, 45, 50), (0.4, 0, 30.0, 30.0)]
    refs = [*map(ImageRef, pictures), *(ImageRef(pictures[0], crop) for crop in crops)]
    ours = Encoder(tiny_clip).images(refs)
    assert ours.dtype == np.float32
    for ref, row in zip(refs, ours, strict=True):
        picture = Image.open(ref.path).convert("RGB")
        if ref.crop is not None:
            picture = picture.crop(tuple(round(x) for x in ref.crop))
        with torch.no_grad():
            plain = F.normalize(tiny_clip.model.encode_image(tiny_clip.preprocess(picture)[None]))
        np.testing.assert_allclose(row, plain[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("tokenized_at_once", [1, 2, 9])
def test_texts_equal_open_clip_at_77_tokens_in_the_given_order(
    tiny_clip, tokenized_at_once, monkeypatch
):
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
    encoder = Encoder(tiny_clip)
    refs = [ImageRef(pictures[0]), crop, ImageRef(pictures[1]), ImageRef(copy)]
    first = encoder.images(refs)
    again = encoder.images([*refs, ImageRef(pictures[2])])
    encoder.texts([*TEXTS, *TEXTS])
    encoder.texts(TEXTS[:1])
    assert sizes == [3, 1] and sum(map(len, tokens)) == len(TEXTS)
    np.testing.assert_array_equal(again[:4], first)
    np.testing.assert_array_equal(first[0], first[3])
    assert np.abs(first[0] - first[2]).max() > 0


def test_batches_hold_texts_of_about_the_same_length(tiny_clip, encoded, monkeypatch):
    monkeypatch.setattr(embed, "TEXTS_AT_ONCE", 2)
    Encoder(tiny_clip).texts([" ".join(["cat"] * n) for n in (8, 1, 7, 2)])
    assert [sorted(part.argmax(-1).tolist()) for part in encoded[1]] == [[2, 3], [8, 9]]


def test_neighbours_have_about_one_length_and_begin_alike(tiny_clip):
    texts = ["x b c d", "a b", "a b c e", "x b c", "a b c d", "a"]
    order = neighbours(tiny_clip.tokenizer(texts))
    # Lengths in pairs (2-3, 4-5); in each pair by tokens, where the end has the highest number.
    assert [texts[i] for i in order[:2]] == ["a b", "a"]
    assert {texts[i] for i in order[2:4]} == {"a b c d", "a b c e"}
    assert {texts[i] for i in order[4:]} == {"x b c", "x b c d"}


def test_the_model_comes_back_in_its_mode(tiny_clip, pictures):
    tiny_clip.model.train()
    Encoder(tiny_clip).images([ImageRef(pictures[0])])
    assert tiny_clip.model.training
    assert len(Encoder(tiny_clip).images([])) == len(Encoder(tiny_clip).texts([])) == 0


def test_missing_and_broken_pictures_are_named(tiny_clip, pictures, tmp_path):
    encoder = Encoder(tiny_clip)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    (tmp_path / "cut.png").write_bytes(pictures[0].read_bytes()[:4000])
    for name, message in (("absent.png", "no such picture"), ("broken.jpg", "cannot be decoded"),
                          ("cut.png", "cannot be decoded")):
        with pytest.raises(DataError, match=f"{name}: {message}"):
            encoder.images([ImageRef(pictures[0]), ImageRef(tmp_path / name)])
    with pytest.raises(DataError, match=r"0\.png: the crop .* cannot be used"):
        encoder.images([ImageRef(pictures[0], (5.1, 5, 5.2, 50))])


def test_grey_and_transparent_pictures_become_rgb(tiny_clip, tmp_path):
    for mode in ("L", "RGBA", "P"):
        Image.new(mode, (20, 20)).save(tmp_path / f"{mode}.png")
    refs = [ImageRef(tmp_path / f"{mode}.png") for mode in ("L", "RGBA", "P")]
    assert Encoder(tiny_clip).images(refs).shape == (3, 128)


def test_a_picture_that_ends_too_early_is_taken_only_on_request(tiny_clip, pictures, tmp_path):
    whole, cut, broken = (tmp_path / f"{name}.jpg" for name in ("whole", "cut", "broken"))
    Image.open(pictures[0]).save(whole, quality=95)
    cut.write_bytes(whole.read_bytes()[:3000])
    broken.write_bytes(b"no picture at all")
    for _ in range(2):  # what is there is not kept for others
        with pytest.raises(DataError, match=r"cut\.jpg: cannot be decoded"):
            Encoder(tiny_clip).images([ImageRef(cut)])
        encoder = Encoder(tiny_clip, allow_truncated=True)
        first, second = encoder.images([ImageRef(whole), ImageRef(cut)])
        assert encoder.truncated == {cut} and np.abs(first - second).max() > 0
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    with pytest.raises(DataError, match=r"broken\.jpg: cannot be decoded"):
        encoder.images([ImageRef(broken)])
