"""Vectors against one forward pass each; what is read, tokenised and encoded once."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip import SimpleTokenizer
from open_clip.transform import CenterCropOrPad, PreprocessCfg, image_transform_v2
from PIL import Image
from torchvision.transforms import Compose

from cae_lib.data.benchmarks.base import ImageRef
from cae_lib.errors import DataError
from cae_lib.evaluation import encoder as module
from cae_lib.evaluation.encoder import Encoder, ImageReader, Weights, order_by_length_and_start
from cae_lib.models.clip import load_clip
from cae_lib.models.packed import PackedEncoder

TEXTS = [
    "a cat",
    "a very small red cat is sitting on the large green mat near a door",
    "a dog on",
    "two red dogs",
    "a bat",
]
ODD_TEXTS = [
    "a cat",
    "",
    "Hello!!! & <b>caf\u00e9</b>\n two  spaces \U0001f408",
    "!",
    "a cat",
    "ends with the mark <end_of_text> and goes on",
    "very " * 100,
    "A  Cat <x>",
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
    noted(PackedEncoder, "encode_many", lambda _, texts: tokens.append(texts))
    return sizes, tokens


def test_pictures_and_crops_equal_one_forward_pass_each(tiny_clip, pictures, monkeypatch):
    monkeypatch.setattr(module, "IMAGE_BATCH_SIZE_ON_CPU", 3)
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


def test_texts_equal_open_clip_at_77_tokens(tiny_clip, monkeypatch):
    monkeypatch.setattr(module, "TOKENIZER_BATCH_SIZE", 3)
    monkeypatch.setattr(module, "TEXT_BATCH_SIZE", 2)
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


def test_a_picture_that_is_asked_for_twice_has_two_rows(tiny_clip, pictures):
    encoder, (first, second, _) = Encoder(tiny_clip), map(ImageRef, pictures)
    found = encoder.images([first, second, first])
    assert found.shape == (3, tiny_clip.model.visual.output_dim)
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], encoder.images([second])[0])
    assert len(encoder.texts(["a cat", "a dog", "a cat"])) == 3


def test_a_model_in_training_is_evaluated_without_its_dropout(tiny_clip, pictures):
    modes, model = [], tiny_clip.model.train()
    for part in (model.visual, model.transformer):
        part.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    encoder = Encoder(tiny_clip)
    encoder.images([ImageRef(pictures[0])])
    encoder.texts(["a cat"])
    assert len(modes) >= 2 and not any(modes) and model.training


def test_batches_hold_texts_of_about_one_length_that_begin_alike(tiny_clip, encoded, monkeypatch):
    monkeypatch.setattr(module, "TEXT_BATCH_SIZE", 2)
    Encoder(tiny_clip).texts([" ".join(["cat"] * n) for n in (8, 1, 7, 2)])
    assert [sorted(part.argmax(-1).tolist()) for part in encoded[1]] == [[2, 3], [8, 9]]
    texts = ["x b c d", "a b", "a b c e", "x b c", "a b c d", "a"]
    order = order_by_length_and_start(tiny_clip.tokenizer(texts))
    # Lengths in pairs (2-3, 4-5); in each pair by tokens, where the end has the highest number.
    assert [texts[i] for i in order[:2]] == ["a b", "a"]
    assert {texts[i] for i in order[2:4]} == {"a b c d", "a b c e"}


@pytest.mark.parametrize(
    ("name", "crop"),
    [
        ("absent.png", None),
        ("broken.jpg", None),
        ("cut.png", None),
        ("0.png", (5.1, 5, 5.2, 50)),
    ],
)
def test_missing_and_broken_pictures_are_named(tiny_clip, pictures, tmp_path, name, crop):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    (tmp_path / "cut.png").write_bytes(pictures[0].read_bytes()[:4000])
    with pytest.raises(DataError, match=name):
        Encoder(tiny_clip).images([ImageRef(pictures[0]), ImageRef(tmp_path / name, crop)])


def test_pictures_are_decoded_on_the_cores_that_a_process_may_use(tiny_clip, monkeypatch):
    for cores, workers in ((1, 1), (3, 3), (64, 8)):
        own = set(range(cores))
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, own=own: own, raising=False)
        assert ImageReader(tiny_clip.preprocess).workers == workers


def test_the_models_input_is_bit_for_bit_that_of_the_preprocessing(tiny_clip, pictures):
    refs = [ImageRef(pictures[1]), ImageRef(pictures[0]), ImageRef(pictures[0], (3, 4, 40, 50))]
    refs.append(refs[0])
    opened = [Image.open(ref.path) for ref in refs]
    expected = torch.stack(
        [
            tiny_clip.preprocess(image.crop(ref.crop) if ref.crop else image)
            for image, ref in zip(opened, refs, strict=True)
        ]
    )
    assert torch.equal(Encoder(tiny_clip).pixels(refs), expected)


def test_runs_with_one_image_tower_share_vectors_and_read_what_has_changed(
    tiny_clip, pictures, encoded, noted, home
):
    (sizes, _), opened = encoded, []
    noted(Image, "open", lambda path: opened.append(path.name))
    refs = [*map(ImageRef, pictures), ImageRef(pictures[0], (0, 0, 20, 20))]
    first = Encoder(tiny_clip, "photo").images(refs)
    np.testing.assert_array_equal(Encoder(tiny_clip, "photo").images(refs), first)
    assert (sizes, opened) == ([4], ["0.png", "1.png", "2.png"]), "neither read nor encoded again"
    Image.new("RGB", (60, 60), "red").save(pictures[1])
    os.utime(pictures[1], ns=(1, 1))
    changed = np.abs(Encoder(tiny_clip, "photo").images(refs) - first).max(axis=1) > 0
    assert changed.tolist() == [False, True, False, False]
    assert (sizes[1:], opened[3:]) == ([1], ["1.png"])
    with torch.no_grad():
        tiny_clip.model.visual.proj.mul_(2)
    Encoder(tiny_clip, "photo").images(refs)
    assert sizes[2:] == [4], "of another tower"
    for _ in range(2):
        Encoder(tiny_clip, "paper").images(refs)  # which trains the tower
    assert sizes[3:] == [4, 4]


def test_two_runs_at_once_add_to_the_vectors_that_they_share(tiny_clip, pictures, encoded, home):
    refs, (sizes, _) = [*map(ImageRef, pictures)], encoded
    one, other = (Encoder(tiny_clip, "photo") for _ in range(2))
    one.images(refs[:1])
    other.images(refs[1:])
    Encoder(tiny_clip, "photo").images(refs)
    assert sizes == [1, 2]


@pytest.mark.parametrize("same", ["size", "time"])
def test_a_file_that_changes_and_keeps_its_size_or_its_time_is_read_again(
    tiny_clip, tmp_path, home, same
):
    path = tmp_path / "picture.bmp"
    Image.new("RGB", (60, 60), "red").save(path)
    os.utime(path, ns=(1, 1))
    first = Encoder(tiny_clip, "photo").images([ImageRef(path)])
    Image.new("RGB", (60, 60) if same == "size" else (60, 90), "blue").save(path)
    os.utime(path, ns=(1, 2) if same == "size" else (1, 1))
    second = Encoder(tiny_clip, "photo").images([ImageRef(path)])
    np.testing.assert_array_equal(second, Encoder(tiny_clip).images([ImageRef(path)]))
    assert np.abs(first - second).max() > 0


def test_weights_are_told_apart_by_all_that_they_are(tmp_path, monkeypatch):
    """Those of a checkpoint are its file; of a tag its file, its model and the activation."""
    files = [tmp_path / name for name in ("one", "two")]
    for path in files:
        path.write_text(path.name)
    monkeypatch.setattr(module, "pretrained_file", lambda model, tag: tmp_path / tag)
    found = [
        Weights(*given).digest()
        for given in (
            (files[0],),
            (files[1],),
            ("one", "a", "gelu"),
            ("two", "a", "gelu"),
            ("one", "b", "gelu"),
            ("one", "a", "quickgelu"),
            (None, "a", "gelu"),
            (None, "b", "gelu"),
            (None, "a", "quickgelu"),
        )
    ]
    assert len({*found}) == len(found)
    assert found[0] == hashlib.sha256(b"one").hexdigest() == Weights(files[0], "a", "b").digest()


def with_other_preprocessing(**changes):
    """A change of a model's preprocessing to another one of open_clip."""

    def change(clip, monkeypatch):
        cfg = PreprocessCfg(size=clip.image_size, **changes)
        monkeypatch.setattr(clip, "preprocess", image_transform_v2(cfg, is_train=False))

    return change


def with_other_weights(clip, monkeypatch):
    weight = clip.model.visual.conv1.weight
    monkeypatch.setattr(weight, "data", weight.data + 0.1)


def with_fewer_heads(clip, monkeypatch):
    """Another architecture with the same weights."""
    for block in clip.model.visual.transformer.resblocks:
        monkeypatch.setattr(block.attn, "num_heads", block.attn.num_heads // 2)
        monkeypatch.setattr(block.attn, "head_dim", block.attn.head_dim * 2)


def with_other_activation(clip, monkeypatch):
    """The modules stay, and only what the model says of itself differs."""
    monkeypatch.setattr(clip, "activation", {"gelu": "quickgelu"}.get(clip.activation, "gelu"))


def with_another_crop(clip, monkeypatch):
    resize, crop, *rest = clip.preprocess.transforms
    monkeypatch.setattr(clip, "preprocess", Compose([resize, CenterCropOrPad(crop.size), *rest]))


def with_another_fill(clip, monkeypatch):
    resize, crop, *rest = clip.preprocess.transforms
    filled = CenterCropOrPad(crop.size, fill=7)
    monkeypatch.setattr(clip, "preprocess", Compose([resize, filled, *rest]))


def with_newer_code(clip, monkeypatch):
    monkeypatch.setattr(module, "VECTORS_VERSION", module.VECTORS_VERSION + 1)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, with_other_weights),
        (None, with_fewer_heads),
        (None, with_other_activation),
        (None, with_other_preprocessing(mean=(0.5, 0.5, 0.5))),
        (None, with_other_preprocessing(std=(0.5, 0.5, 0.5))),
        (None, with_other_preprocessing(interpolation="bilinear")),
        (None, with_other_preprocessing(resize_mode="squash")),
        (None, with_another_crop),
        (with_another_crop, with_another_fill),
        (None, with_newer_code),
    ],
    ids=[
        "weights",
        "architecture",
        "activation",
        "mean",
        "std",
        "interpolation",
        "resize mode",
        "crop",
        "fill",
        "code",
    ],
)
def test_a_change_of_anything_that_decides_vectors_makes_new_ones(
    tiny_clip, pictures, encoded, home, monkeypatch, before, after
):
    if before:
        before(tiny_clip, monkeypatch)
    refs, (sizes, _) = [ImageRef(path) for path in pictures], encoded
    first = Encoder(tiny_clip, "photo").images(refs)
    with monkeypatch.context() as patch:
        after(tiny_clip, patch)
        second = Encoder(tiny_clip, "photo").images(refs)
        assert sizes == [3, 3], "encoded anew"
        np.testing.assert_array_equal(second, Encoder(tiny_clip).images(refs))
    np.testing.assert_array_equal(Encoder(tiny_clip, "photo").images(refs), first)
    assert sizes == [3, 3, 3], "the first vectors are still there"


def test_a_model_of_another_image_size_has_other_vectors(home, pictures, encoded):
    """Of the same weights: the tower has no positions of its own."""
    refs, (sizes, _) = [ImageRef(path) for path in pictures], encoded
    names = set()
    for size in (112, 56):
        clip = load_clip("clip-mini", seed=0)
        crop = image_transform_v2(PreprocessCfg(size=size), is_train=False)
        pad = CenterCropOrPad((112, 112))
        clip.preprocess = Compose([*crop.transforms[:2], pad, *crop.transforms[2:]])
        Encoder(clip, "photo").images(refs)
        names |= {path.name for path in (home / "data/cache/image-vectors").iterdir()}
    assert sizes == [3, 3] and len(names) == 2


def test_vectors_of_another_process_are_found(tiny_clip, pictures, encoded, home):
    """The name of a file of vectors does not hang on a process."""
    script = (
        "import sys; from pathlib import Path; from cae_lib.models.clip import load_clip\n"
        "from cae_lib.evaluation.encoder import Encoder\n"
        "from cae_lib.data.benchmarks.base import ImageRef\n"
        "refs = [ImageRef(Path(path)) for path in sys.argv[1:]]\n"
        "Encoder(load_clip('clip-mini', seed=0), 'photo').images(refs)\n"
    )
    subprocess.run([sys.executable, "-c", script, *map(str, pictures)], check=True)
    Encoder(tiny_clip, "photo").images([ImageRef(path) for path in pictures])
    assert encoded[0] == []


@pytest.mark.parametrize(
    ("options", "n"),
    [
        ({}, 0),
        ({"context_length": 16}, 1),
        ({"clean": "whitespace"}, 1),
        ({"additional_special_tokens": ["<x>"]}, 1),
        ({"context_length": 8, "reduction_mask": "random"}, 2),  # not remembered
    ],
)
def test_ids_are_those_of_the_tokenizer_which_reads_a_text_once_for_all_of_a_kind(
    tiny_clip, noted, options, n
):
    module.TOKEN_IDS.clear()
    Encoder(tiny_clip).tokens(ODD_TEXTS)
    tiny_clip.tokenizer, asked = SimpleTokenizer(**options), []
    expected = tiny_clip.tokenizer(ODD_TEXTS)
    noted(SimpleTokenizer, "__call__", lambda _, new, *rest: asked.extend(new))
    for _ in range(2):
        found = Encoder(tiny_clip).tokens(ODD_TEXTS)
        assert found.dtype == torch.long
        assert n == 2 or torch.equal(found, expected)
    assert len(asked) == {0: 0, 1: len({*ODD_TEXTS}), 2: 2 * len(ODD_TEXTS)}[n]


def test_progress_is_told_of_many_where_data_are_real(tiny_clip, pictures, monkeypatch, capsys):
    monkeypatch.setattr(module, "PROGRESS_THRESHOLD", 2)
    refs, encoder = [ImageRef(path) for path in pictures], Encoder(tiny_clip, "paper")
    encoder.images(refs)
    encoder.texts(["a", "b", "c"])
    _, first, _, second = capsys.readouterr().err.splitlines()
    assert first.startswith("clip-mini: pictures") and " 3/3 " in first
    assert second.startswith("clip-mini: texts") and " 3/3 " in second
    encoder.images(refs)
    encoder.texts(["d"])
    Encoder(tiny_clip).images(refs)
    assert not capsys.readouterr().err, "nothing of what is known, of few, or without a profile"
