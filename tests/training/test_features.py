"""A locked image tower: it stays as it is, and its features are computed once if possible."""

from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from toys import FT, Toys, same_weights, toy_clip, toy_run, toy_train, weights

from cae_lib.data.images import ImagesOnDisk
from cae_lib.errors import DataError
from cae_lib.models.clip import Clip
from cae_lib.training import features, trainer
from cae_lib.training.distributed import Ranks

LOCKED = replace(FT, lock_image=True, augment=False)
CAE = replace(LOCKED, method="gradcam", weight=3.0, margin=2.0)
VIT = {"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16}
VIT |= {"patch_dropout": 0.5}
TIMM = {"timm_model_name": "test_efficientnet", "image_size": 32, "timm_proj": "linear"}
TIMM |= {"timm_drop": 0.5}


def clip_with(vision: dict) -> Clip:
    """Return a model with a small image tower of another kind, with CLIP's vocabulary."""
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    torch.manual_seed(0)
    model = open_clip.CustomTextCLIP(16, vision, text).eval()
    return replace(toy_clip(), model=model, name="small", image_size=vision["image_size"])


def features_files(home: Path) -> list[Path]:
    return sorted((home / "data" / "cache" / "features").glob("*"))


@pytest.mark.parametrize(
    "experiment",
    [
        CAE,
        replace(LOCKED, negatives=True),
        replace(LOCKED, lock_image=False, lock_trunk=True),
    ],
    ids=["cae", "negclip", "trunk"],
)
def test_features_give_the_weights_that_images_give(experiment, home, tmp_path, monkeypatch):
    """Rounding depends on the size of a batch, so the sizes are the same here."""

    def trained(name: str) -> tuple[Clip, list]:
        clip = clip_with(TIMM | {"timm_drop": 0}) if experiment.lock_trunk else toy_clip()
        images = Toys(size=clip.image_size)
        return toy_train(experiment, tmp_path / name, clip, images=images)

    monkeypatch.setattr(features, "BATCH_SIZE", 8 if experiment.negatives else 4)
    actual, log = trained("features")
    assert len(features_files(home)) == 1
    split = trainer.split_image_tower
    with monkeypatch.context() as patch:  # no features, and the whole tower after them
        patch.setattr(trainer, "precompute_features", lambda clip, locked, images, *rest: images)
        patch.setattr(
            trainer,
            "split_image_tower",
            lambda *inputs: (split(*inputs)[0], None, features.encode_image_features),
        )
        expected, plain = trained("images")
    assert log == plain
    assert same_weights(actual, expected)


def test_each_image_is_encoded_once_and_the_features_are_kept(home, monkeypatch, capsys) -> None:
    encoded: list[int] = []
    encode = features.encode_image

    def counted(model: nn.Module, pixels: Tensor):
        encoded.append(len(pixels))
        assert not model.visual.training
        return encode(model, pixels)

    monkeypatch.setattr(features, "encode_image", counted)
    clip = toy_clip()
    clip.model.train()
    run = toy_run(LOCKED, clip, show_progress=True)
    for step in range(5):
        run.step(step, run.batches.at(step))
    assert encoded == [8]
    assert " 8/8 " in capsys.readouterr().err
    with torch.no_grad():
        expected = toy_clip().model.encode_image(Toys().pixels)
    values = run.batches.images.values
    torch.testing.assert_close(values, expected, atol=1e-5, rtol=1e-4)
    assert not values.requires_grad
    again = toy_run(replace(CAE, seed=1))
    assert encoded == [8]
    assert again.workers == 0
    assert torch.equal(again.batches.images.values, values)
    (path,) = features_files(home)
    path.write_bytes(b"no tensors")
    with pytest.raises(DataError, match="damaged file of image features.*Delete it"):
        toy_run(LOCKED)


CHANGES = {
    "weights": {"weight": 2.0},
    "architecture": {"stride": 2},
    "model": {"name": "other"},
    "activation": {"activation": "other"},
    "size": {"size": 4},
    "mean": {"normalization": (1.0, 1.0)},
    "std": {"normalization": (2.0, 0.0)},
    "precision": {"bf16": True},
    "version": {"version": -1},
    "files": {"tail": b"another file"},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_anything_that_decides_features_makes_new_ones(
    change, home, tmp_path, monkeypatch
):
    encoded: list[int] = []

    def encode(model: nn.Module, pixels: Tensor) -> Tensor:
        encoded.append(len(pixels))
        return pixels.mean((2, 3))

    def compute(weight=1.0, stride=1, size=8, normalization=(1.0, 0.0), **options) -> None:
        path, locked = tmp_path / "image.png", nn.Conv2d(3, 4, 2, stride, bias=False)
        nn.init.constant_(locked.weight, weight)
        Image.new("RGB", (16, 16)).save(path)
        path.write_bytes(path.read_bytes() + options.pop("tail", b""))
        images = ImagesOnDisk([path], size)
        images.normalization = tuple(torch.tensor(value) for value in normalization)
        monkeypatch.setattr(features, "TRAINING_VERSION", options.pop("version", 1))
        bf16, clip = options.pop("bf16", False), replace(toy_clip(), **options)
        features.precompute_features(clip, locked, images, encode, bf16, Ranks(), 0, False)

    compute()
    compute(**change)
    assert encoded == [1, 1]
    compute(**change)
    assert encoded == [1, 1], "kept"


@pytest.mark.parametrize(
    ("vision", "lock", "augment"),
    [
        (VIT, "lock_image", True),
        (TIMM, "lock_image", False),
        (TIMM, "lock_trunk", True),
        (TIMM, "lock_trunk", False),
        (VIT, None, True),
    ],
    ids=str,
)
def test_locked_parts_are_in_evaluation_mode_while_training(vision, lock, augment, home, tmp_path):
    """Statistics stay, nothing is dropped and nothing decays; the head of a trunk is trained."""
    clip, modes = clip_with(vision), []
    start = {name: value.clone() for name, value in weights(clip).items()}
    locked = {"lock_image": "visual.", "lock_trunk": "visual.trunk.", None: "nothing"}[lock]

    def note(module: nn.Module, arguments: object) -> None:
        modes.append({f"{name}." for name, part in clip.model.named_modules() if part.training})

    clip.model.text.transformer.register_forward_pre_hook(note)
    experiment = replace(FT, augment=augment, **{lock: True} if lock else {})
    images, leaves_it_in_training = Toys(size=clip.image_size), lambda step, model: model.train()
    toy_train(
        experiment, tmp_path, clip, None, images, on_step_every=1, on_step=leaves_it_in_training
    )
    assert len(features_files(home)) == (lock is not None and not augment)
    assert len(modes) == 5
    for training in modes:
        assert "text." in training and ("visual." in training) == (lock != "lock_image")
        assert not [name for name in training if name.startswith(locked)]
    for name, value in weights(clip).items():
        if name.startswith("visual."):
            assert torch.equal(value, start[name]) == name.startswith(locked), name
