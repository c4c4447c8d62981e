from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageFile

from cae_lib.data.benchmarks import load_benchmark, sugarcrepe
from cae_lib.data.benchmarks.base import ImageRef
from cae_lib.errors import DataError
from cae_lib.evaluation import embed
from cae_lib.evaluation.choice import answers, item_scores
from cae_lib.evaluation.embed import Encoder, neighbours
from cae_lib.evaluation.pictures import forget_pictures
from cae_lib.models.clip import load_clip
from cae_lib.models.packed import PackedEncoder

TEXTS = ["a cat", "a very small red cat is sitting on the large green mat near a door", "a dog on"]


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for n in range(5):
        pixels = rng.integers(0, 255, (60 + 10 * n, 90, 3), dtype=np.uint8)
        paths.append(tmp_path / f"{n}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def test_pictures_and_crops_equal_one_forward_pass_each(tiny_clip, pictures):
    refs = [
        *map(ImageRef, pictures),
        ImageRef(pictures[0], (5, 7, 45, 50)),
        ImageRef(pictures[0], (0.4, 0, 30.0, 30.0)),
    ]
    ours = Encoder(tiny_clip, batch_size=3).images(refs)
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
    texts = [*TEXTS, "two red dogs", "a bat"]
    ours = Encoder(tiny_clip, batch_size=3).texts(texts)
    with torch.no_grad():
        plain = F.normalize(tiny_clip.model.encode_text(tiny_clip.tokenizer(texts)))
    np.testing.assert_allclose(ours, plain.numpy(), atol=1e-5)


def test_each_distinct_picture_and_text_is_encoded_once(tiny_clip, pictures, monkeypatch):
    seen = {"images": 0, "texts": 0, "opened": 0}
    encode_image, encode_many = embed.encode_image, PackedEncoder.encode_many
    open_file = Image.open

    def count_images(model, pixels):
        seen["images"] += len(pixels)
        return encode_image(model, pixels)

    def count_texts(self, tokens):
        seen["texts"] += len(tokens)
        return encode_many(self, tokens)

    def count_opened(path):
        seen["opened"] += 1
        return open_file(path)

    monkeypatch.setattr(embed, "encode_image", count_images)
    monkeypatch.setattr(PackedEncoder, "encode_many", count_texts)
    monkeypatch.setattr(Image, "open", count_opened)
    encoder = Encoder(tiny_clip)
    crop = ImageRef(pictures[0], (0, 0, 20, 20))
    refs = [ImageRef(pictures[0]), crop, ImageRef(pictures[1]), ImageRef(pictures[0])]
    first = encoder.images(refs)
    again = encoder.images([*refs, ImageRef(pictures[2])])
    encoder.texts([*TEXTS, *TEXTS])
    encoder.texts(TEXTS[:1])
    assert seen == {"images": 4, "texts": 3, "opened": 3}
    assert (encoder.n_images, encoder.n_texts) == (4, 3)
    np.testing.assert_array_equal(again[:4], first)
    np.testing.assert_array_equal(first[0], first[3])


def test_batches_hold_texts_of_about_the_same_length(tiny_clip, monkeypatch):
    lengths = []
    encode_many = PackedEncoder.encode_many

    def note(self, tokens):
        lengths.append(sorted(tokens.argmax(-1).tolist()))
        return encode_many(self, tokens)

    monkeypatch.setattr(PackedEncoder, "encode_many", note)
    words = [" ".join(["cat"] * n) for n in (8, 1, 7, 2)]
    Encoder(tiny_clip, batch_size=2).texts(words)
    assert lengths == [[2, 3], [8, 9]]


def test_equal_pixels_in_two_files_are_encoded_once(tiny_clip, pictures, tmp_path, monkeypatch):
    encode_image, sizes = embed.encode_image, []

    def note(model, pixels):
        sizes.append(len(pixels))
        return encode_image(model, pixels)

    monkeypatch.setattr(embed, "encode_image", note)
    copy = tmp_path / "copy.bmp"
    Image.open(pictures[0]).save(copy)
    refs = [ImageRef(pictures[0]), ImageRef(pictures[1]), ImageRef(copy)]
    encoder = Encoder(tiny_clip)
    first, other, same = encoder.images(refs)
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 0
    assert sizes == [2] and encoder.n_images == 3
    np.testing.assert_array_equal(encoder.images(refs)[2], same)


def test_a_second_model_gets_the_same_bits_from_kept_pixels(tiny_clip, pictures):
    refs = [ImageRef(pictures[0], (0, 0, 30, 30)), *map(ImageRef, pictures), ImageRef(pictures[0])]
    forget_pictures()
    fresh = Encoder(tiny_clip).images(refs)
    np.testing.assert_array_equal(Encoder(tiny_clip).images(refs), fresh)


def test_pixels_are_the_models_input(tiny_clip, pictures):
    refs = [ImageRef(pictures[1]), ImageRef(pictures[0]), ImageRef(pictures[1])]
    found = Encoder(tiny_clip).pixels(refs)
    expected = [tiny_clip.preprocess(Image.open(ref.path)) for ref in refs]
    assert torch.equal(found, torch.stack(expected))


def test_the_model_comes_back_in_its_mode(tiny_clip, pictures):
    tiny_clip.model.train()
    Encoder(tiny_clip).images([ImageRef(pictures[0])])
    assert tiny_clip.model.training
    assert Encoder(tiny_clip).images([]).shape[0] == 0
    assert Encoder(tiny_clip).texts([]).shape[0] == 0


def test_missing_and_broken_pictures_are_named(tiny_clip, pictures, tmp_path):
    encoder = Encoder(tiny_clip)
    with pytest.raises(DataError, match=r"absent\.png: no such picture"):
        encoder.images([ImageRef(pictures[0]), ImageRef(tmp_path / "absent.png")])
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    with pytest.raises(DataError, match=r"broken\.jpg: cannot be decoded"):
        encoder.images([ImageRef(broken)])
    cut = tmp_path / "cut.png"
    cut.write_bytes(pictures[0].read_bytes()[:4000])
    with pytest.raises(DataError, match=r"cut\.png: cannot be decoded"):
        encoder.images([ImageRef(cut)])
    with pytest.raises(DataError, match=r"0\.png: the crop .* cannot be used"):
        encoder.images([ImageRef(pictures[0], (5.1, 5, 5.2, 50))])


def test_grey_and_transparent_pictures_become_rgb(tiny_clip, tmp_path):
    for mode in ("L", "RGBA", "P"):
        Image.new(mode, (20, 20)).save(tmp_path / f"{mode}.png")
    refs = [ImageRef(tmp_path / f"{mode}.png") for mode in ("L", "RGBA", "P")]
    assert Encoder(tiny_clip).images(refs).shape == (3, 128)


def test_a_picture_that_ends_too_early_is_taken_only_on_request(tiny_clip, pictures, tmp_path):
    whole, cut = tmp_path / "whole.jpg", tmp_path / "cut.jpg"
    Image.open(pictures[0]).save(whole, quality=95)
    cut.write_bytes(whole.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"cut\.jpg: cannot be decoded"):
        Encoder(tiny_clip).images([ImageRef(cut)])
    encoder = Encoder(tiny_clip, allow_truncated=True)
    first, second = encoder.images([ImageRef(whole), ImageRef(cut)])
    assert encoder.truncated == {cut}
    assert 0 < np.abs(first - second).max()
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture at all")
    with pytest.raises(DataError, match=r"broken\.jpg: cannot be decoded"):
        encoder.images([ImageRef(broken)])


@pytest.mark.skipif("CAE_REAL_DATA" not in os.environ, reason="CAE_REAL_DATA is not set")
def test_real_sugarcrepe_items_with_pictures_are_scored_by_a_random_vit_b_32():
    """End to end at full size; some scores are computed again with open_clip alone."""
    clip = load_clip("ViT-B-32", seed=0)
    root = Path(os.environ["CAE_REAL_DATA"])
    benchmarks = load_benchmark("sugarcrepe", root, official=True, allow_missing=True)
    encoder = Encoder(clip)
    found = answers(benchmarks, encoder)
    assert {part.subset: part.n_expected for part in benchmarks} == sugarcrepe.OFFICIAL
    assert len(found) == 399
    assert sum(part.n_expected for part in benchmarks) == 7511
    assert encoder.n_images == 48
    for benchmark in benchmarks:
        assert benchmark.n_used + benchmark.counts["missing_images"] == benchmark.n_expected
        item = benchmark.items[0]
        first = found[(found["subset"] == benchmark.subset) & (found["item"] == 0)].iloc[0]
        right = first["correct"]
        with torch.no_grad():
            pixels = clip.preprocess(Image.open(item.images[0].path))[None]
            image = clip.model.encode_image(pixels, normalize=True)
            texts = clip.model.encode_text(clip.tokenizer(list(item.texts)), normalize=True)
        true, false = (image @ texts.T)[0].tolist()
        ours = item_scores([item], encoder)[0][0]
        np.testing.assert_allclose(ours, [true, false], atol=1e-5)
        assert right == (true > false) or abs(true - false) < 1e-5


def test_neighbours_have_about_one_length_and_begin_alike(tiny_clip):
    texts = ["x b c d", "a b", "a b c e", "x b c", "a b c d", "a"]
    tokens = tiny_clip.tokenizer(texts)
    order = neighbours(tokens)
    # Lengths in pairs (2-3, 4-5); in each pair by tokens, where the end has the highest number.
    assert [texts[i] for i in order[:2]] == ["a b", "a"]
    assert {texts[i] for i in order[2:4]} == {"a b c d", "a b c e"}
    assert {texts[i] for i in order[4:]} == {"x b c", "x b c d"}
