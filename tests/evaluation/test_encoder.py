"""Vectors against one forward pass each; what is read and encoded once."""

import hashlib
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip import SimpleTokenizer
from open_clip.transform import CenterCropOrPad, PreprocessCfg, image_transform_v2
from PIL import Image
from torchvision.transforms import Compose
from toys import random_clip

from cae_bench import encoder as module
from cae_bench.benchmarks.base import ImageRef
from cae_bench.encoder import Encoder
from cae_lib.errors import CheckpointError, DataError
from cae_lib.models import weights
from cae_lib.models.packed import PackedEncoder
from cae_lib.models.weights import Weights

TEXTS = [
    "a cat",
    "a very small red cat is sitting on the large green mat near a door",
    "a dog on",
    "two red dogs",
    "a bat",
]


@pytest.fixture
def pictures(tmp_path):
    """Files of noise, in colour, grey and with transparency."""
    rng, paths = np.random.default_rng(0), [tmp_path / f"{n}.png" for n in range(3)]
    for n, mode in enumerate(("RGB", "L", "RGBA")):
        noise = rng.integers(0, 255, (60 + 30 * n, 90, 3), dtype=np.uint8)
        Image.fromarray(noise).convert(mode).save(paths[n])
    return paths


@pytest.fixture
def noted(monkeypatch):
    """Let a function of an owner be noted with its arguments before it is called."""

    def note(owner, name, keep):
        call = getattr(owner, name)

        def noting(*arguments, **options):
            keep(*arguments)
            return call(*arguments, **options)

        monkeypatch.setattr(owner, name, noting)

    return note


@pytest.fixture
def encoded(noted):
    """Numbers of pictures, and token ids of texts, of each forward pass."""
    sizes, tokens = [], []
    noted(module, "encode_image", lambda _, pixels: sizes.append(len(pixels)))
    noted(PackedEncoder, "encode_features", lambda _, texts: tokens.append(texts))
    return sizes, tokens


def test_pictures_and_crops_equal_one_forward_pass_each(tiny_clip, pictures, monkeypatch):
    monkeypatch.setattr(module, "IMAGE_BATCH_SIZE_ON_CPU", 3)
    crops = [(5, 7, 45, 50), (0.4, 0, 30.0, 30.0)]
    refs = [*map(ImageRef, pictures), *(ImageRef(pictures[0], crop) for crop in crops)]
    ours = Encoder(tiny_clip).encode_images(refs)
    assert ours.dtype == np.float32
    for ref, row in zip(refs, ours, strict=True):
        image = Image.open(ref.path).convert("RGB")
        image = image.crop(tuple(map(round, ref.crop or (0, 0, *image.size))))
        with torch.no_grad():
            plain = F.normalize(tiny_clip.model.encode_image(tiny_clip.preprocess(image)[None]))
        np.testing.assert_allclose(row, plain[0].numpy(), atol=1e-5)


def test_texts_equal_open_clip_at_77_tokens(tiny_clip, monkeypatch):
    monkeypatch.setattr(module, "TOKENIZER_BATCH_SIZE", 3)
    monkeypatch.setattr(module, "TEXT_BATCH_SIZE", 2)
    ours = Encoder(tiny_clip).encode_texts(TEXTS)
    with torch.no_grad():
        plain = F.normalize(tiny_clip.model.encode_text(tiny_clip.tokenizer(TEXTS)))
    np.testing.assert_allclose(ours, plain.numpy(), atol=1e-5)


def test_seeds_share_the_tokens_of_the_same_texts(monkeypatch):
    first, second = (random_clip(seed) for seed in (0, 1))
    texts = ["a brown dog &amp; a cat", "a red cup"]
    plain = second.tokenizer(texts)
    assert torch.equal(module.tokenize(first.tokenizer, texts), plain)
    with monkeypatch.context() as patch:
        patch.setattr(SimpleTokenizer, "encode", lambda *_: pytest.fail("split again"))
        tokens = module.tokenize(second.tokenizer, texts)
    assert torch.equal(tokens, plain) and tokens.dtype == plain.dtype
    tokens[:] = 0  # as a caller may
    assert torch.equal(module.tokenize(first.tokenizer, texts), plain)
    assert torch.equal(module.tokenize(first.tokenizer, texts[::-1]), plain.flip(0))
    shorter = SimpleTokenizer(context_length=9)
    assert torch.equal(module.tokenize(shorter, texts), shorter(texts))
    shorter.context_length = 5
    assert torch.equal(module.tokenize(shorter, texts), shorter(texts))


def test_each_distinct_picture_and_text_is_encoded_once(tiny_clip, pictures, encoded, tmp_path):
    sizes, tokens = encoded
    copy = tmp_path / "copy.bmp"  # other bytes, equal pixels
    Image.open(pictures[0]).save(copy)
    crop = ImageRef(pictures[0], (0, 0, 20, 20))
    tiny_clip.model.train()
    encoder = Encoder(tiny_clip)
    refs = [ImageRef(pictures[0]), crop, ImageRef(pictures[1]), ImageRef(copy)]
    first = encoder.encode_images(refs)
    again = encoder.encode_images([*refs, ImageRef(pictures[2])])
    encoder.encode_texts([*TEXTS, *TEXTS])
    encoder.encode_texts(TEXTS[:1])
    assert tiny_clip.model.training
    assert len(encoder.encode_images([])) == len(encoder.encode_texts([])) == 0
    assert sizes == [3, 1] and sum(map(len, tokens)) == len(TEXTS)
    np.testing.assert_array_equal(again[:4], first)
    np.testing.assert_array_equal(first[0], first[3])
    assert np.abs(first[0] - first[2]).max() > 0


def test_a_model_in_training_is_evaluated_without_its_dropout(tiny_clip, pictures):
    modes, model = [], tiny_clip.model.train()
    for part in (model.visual, model.transformer):
        part.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    encoder = Encoder(tiny_clip)
    encoder.encode_images([ImageRef(pictures[0])])
    encoder.encode_texts(["a cat"])
    assert len(modes) >= 2 and not any(modes) and model.training


@pytest.mark.parametrize(
    ("name", "crop"),
    [
        *((name, None) for name in ("absent.png", "broken.jpg", "cut.png")),
        ("0.png", (5.1, 5, 5.2, 50)),
    ],
)
def test_missing_and_broken_pictures_are_named(tiny_clip, pictures, tmp_path, name, crop):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    (tmp_path / "cut.png").write_bytes(pictures[0].read_bytes()[:4000])
    with pytest.raises(DataError, match=name):
        Encoder(tiny_clip).encode_images([ImageRef(pictures[0]), ImageRef(tmp_path / name, crop)])


def test_runs_with_one_image_tower_share_vectors(tiny_clip, pictures, encoded, noted, home):
    (sizes, _), opened = encoded, []
    noted(Image, "open", lambda path: opened.append(path.name))
    refs = [*map(ImageRef, pictures), ImageRef(pictures[0], (0, 0, 20, 20))]
    first = Encoder(tiny_clip, store_images=True).encode_images(refs)
    np.testing.assert_array_equal(Encoder(tiny_clip, store_images=True).encode_images(refs), first)
    assert (sizes, opened) == ([4], ["0.png", "1.png", "2.png"]), "neither read nor encoded again"
    for _ in range(2):
        Encoder(tiny_clip).encode_images(refs)  # which trains the tower
    assert sizes[1:] == [4, 4]


def test_two_runs_at_once_add_to_the_vectors_that_they_share(tiny_clip, pictures, encoded, home):
    refs, (sizes, _) = [*map(ImageRef, pictures)], encoded
    one, other = (Encoder(tiny_clip, store_images=True) for _ in range(2))
    one.encode_images(refs[:1])
    other.encode_images(refs[1:])
    Encoder(tiny_clip, store_images=True).encode_images(refs)
    assert sizes == [1, 2]


@pytest.mark.parametrize("same", ["size", "time"])
def test_a_file_that_changes_and_keeps_its_size_or_its_time_is_read_again(
    tiny_clip, tmp_path, home, same
):
    path, vectors = tmp_path / "picture.bmp", []
    for color, height, time in (
        ("red", 60, 1),
        ("blue", *((60, 2) if same == "size" else (90, 1))),
    ):
        Image.new("RGB", (60, height), color).save(path)
        os.utime(path, ns=(1, time))
        vectors.append(Encoder(tiny_clip, store_images=True).encode_images([ImageRef(path)]))
    np.testing.assert_array_equal(vectors[1], Encoder(tiny_clip).encode_images([ImageRef(path)]))
    assert np.abs(vectors[0] - vectors[1]).max() > 0


def test_an_unknown_tag_is_named_with_those_that_there_are():
    with pytest.raises(CheckpointError, match=r"'no-tag'.*openai"):
        weights.fetch_pretrained_file("ViT-B-32", "no-tag")


def test_weights_are_told_apart_by_all_that_they_are(tmp_path, monkeypatch):
    """Those of a checkpoint are its file; of a tag its file, its model and the activation."""
    files = [tmp_path / name for name in ("one", "two")]
    for path in files:
        path.write_text(path.name)
    monkeypatch.setattr(weights, "fetch_pretrained_file", lambda model, tag: tmp_path / tag)
    models = ("a", "gelu"), ("b", "gelu"), ("a", "quickgelu")
    named = [(files[0],), (files[1],), ("two", "a", "gelu")]
    named += [(weights, *model) for weights in ("one", None) for model in models]
    digests = [Weights(*arguments).digest() for arguments in named]
    assert len({*digests}) == len(digests)
    assert digests[0] == hashlib.sha256(b"one").hexdigest() == Weights(files[0], "a", "b").digest()


def fewer_heads(clip):
    """Another architecture with the same weights."""
    for block in clip.model.visual.transformer.resblocks:
        block.attn.num_heads //= 2
        block.attn.head_dim *= 2


def crop_or_pad(clip):
    resize, crop, *rest = clip.preprocess.transforms
    clip.preprocess = Compose([resize, CenterCropOrPad(crop.size), *rest])


CHANGES = {
    "weights": lambda clip: clip.model.visual.conv1.weight.data.add_(0.1),
    "architecture": fewer_heads,
    "activation": lambda clip: setattr(clip, "activation", "gelu"),  # the modules stay
    "mean": {"mean": (0.5, 0.5, 0.5)},
    "std": {"std": (0.5, 0.5, 0.5)},
    "interpolation": {"interpolation": "bilinear"},
    "resize mode": {"resize_mode": "squash"},
    "crop": crop_or_pad,
    "code": None,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_anything_that_decides_vectors_makes_new_ones(
    tiny_clip, pictures, encoded, home, change, monkeypatch
):
    refs, (sizes, _) = [ImageRef(path) for path in pictures], encoded
    Encoder(tiny_clip, store_images=True).encode_images(refs)
    assert sizes == [3]
    if isinstance(change, dict):
        settings = PreprocessCfg(size=tiny_clip.image_size, **change)
        tiny_clip.preprocess = image_transform_v2(settings, is_train=False)
    elif change:
        change(tiny_clip)
    else:
        monkeypatch.setattr(module, "VECTORS_VERSION", module.VECTORS_VERSION + 1)
    vectors = Encoder(tiny_clip, store_images=True).encode_images(refs)
    assert sizes == [3, 3], "encoded anew"
    np.testing.assert_array_equal(vectors, Encoder(tiny_clip).encode_images(refs))
