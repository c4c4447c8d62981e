"""A locked image tower: it stays as it is, and its features are computed once where they can be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.transformer import PatchDropout
from toys import FT, Toys, same_weights, toy_clip, toy_run, toy_train, weights
from torch import nn

from cae_lib.errors import ConfigError, DataError
from cae_lib.models.clip import Clip
from cae_lib.training import features
from cae_lib.training import run as run_module
from cae_lib.training.features import Features

LOCKED = replace(FT, lock_image=True, augment=False, eps=1e-3)  # rounding is not blown up to lr
CAE = replace(LOCKED, method="gradcam", weight=3.0, margin=2.0)
VIT = {"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16,
       "patch_dropout": 0.5}
CONVOLUTIONAL = {"timm_model_name": "test_efficientnet", "image_size": 32, "timm_drop": 0.5}


def clip_with(vision: dict) -> Clip:
    """A model with a small image tower of another kind, with CLIP's vocabulary."""
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    torch.manual_seed(0)
    model = open_clip.CustomTextCLIP(16, vision, text).eval()
    return replace(toy_clip(), model=model, name="small", image_size=vision["image_size"])


def features_files(home: Path) -> list[Path]:
    return sorted((home / "data" / "cache" / "features").glob("*"))


@pytest.mark.parametrize("experiment", [
    LOCKED, CAE, replace(LOCKED, negatives=True), replace(CAE, precision="bf16"),
], ids=["clip-ft", "cae", "negclip", "cae-bf16"])
def test_features_give_the_weights_that_pictures_give(experiment, home, tmp_path, monkeypatch):
    """Rounding depends on the size of a batch, so the sizes are the same here."""
    monkeypatch.setattr(features, "PICTURES", 8 if experiment.negatives else 4)
    found, log = toy_train(experiment, tmp_path / "features")
    assert len(features_files(home)) == 1
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "picture_features", lambda clip, locked, images, *rest: images)
        patch.setattr(run_module, "given_features", torch.no_grad()(run_module.image_features))
        expected, plain = toy_train(experiment, tmp_path / "pictures")
    assert log == plain
    assert same_weights(found, expected)
    start = weights(toy_clip())
    for name, value in weights(expected).items():
        if name.startswith("visual."):  # as it was, in spite of weight decay
            assert torch.equal(value, start[name])
    assert not torch.equal(weights(found)["text_projection"], start["text_projection"])


def test_each_picture_is_encoded_once_and_the_features_are_kept(home, monkeypatch, capsys) -> None:
    encoded: list[int] = []
    encode = run_module.encode_image

    def counted(model, pixels):
        encoded.append(len(pixels))
        assert not model.visual.training and not torch.is_grad_enabled()
        return encode(model, pixels)

    monkeypatch.setattr(run_module, "encode_image", counted)
    run = toy_run(LOCKED, log=True)
    for step in range(5):
        run.step(step, run.batches.at(step))
    assert encoded == [8] and "image features 8/8" in capsys.readouterr().err
    with torch.no_grad():
        expected = toy_clip().model.encode_image(Toys().pixels)
    torch.testing.assert_close(run.batches.images.values, expected, atol=1e-5, rtol=1e-4)
    again = toy_run(replace(CAE, seed=1))
    assert encoded == [8] and again.workers == 0
    assert torch.equal(again.batches.images.values, run.batches.images.values)
    other, clip = Toys(), toy_clip()
    other.pixels[3] += 1
    clip.model.visual.proj.data.mul_(2)
    for changes in ({"images": other}, {"clip": clip}):
        toy_run(LOCKED, **changes)
    toy_run(replace(LOCKED, precision="bf16"))
    assert encoded == [8] * 4 and len(features_files(home)) == 4
    for path in features_files(home):
        path.write_bytes(b"no tensors")
    with pytest.raises(DataError, match="damaged file of image features.*Delete it"):
        toy_run(LOCKED)


@pytest.mark.parametrize("changes", [{"augment": True}, {"lock_image": False}], ids=str)
def test_pictures_that_may_change_are_encoded_at_every_step(changes, home) -> None:
    run = toy_run(replace(LOCKED, **changes))
    assert run.batches.at(0).pixels.ndim == 4 and not features_files(home)


@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize(("vision", "trunk"), [
    (VIT, False), (CONVOLUTIONAL | {"timm_proj": "linear"}, False),
    (CONVOLUTIONAL | {"timm_proj": "linear"}, True),
], ids=["vit", "timm", "timm-trunk"])
def test_what_is_locked_stays_and_is_in_evaluation_mode(vision, trunk, augment, home, tmp_path):
    """Statistics stay, and nothing is dropped; the head of a locked trunk is trained."""
    clip = clip_with(vision)
    start = {name: value.clone() for name, value in weights(clip).items()}
    images = Toys(size=clip.image_size)
    modes: list[dict[str, bool]] = []

    def look(step: int, model: nn.Module) -> None:
        modes.append({name: part.training for name, part in model.named_modules()})

    experiment = replace(LOCKED, augment=augment, lock_image=not trunk, lock_trunk=trunk)
    run = toy_run(experiment, clip, images=images)
    run.train_mode()
    training = {name for name, part in clip.model.named_modules() if part.training}
    assert "text" in training and ("visual.head" in training) == trunk
    assert training & {"visual", "visual.trunk"} == ({"visual"} if trunk else set())
    assert isinstance(run.batches.images, Features) == (not augment)
    toy_train(experiment, tmp_path, clip, images=images, every=1, on_step=look)
    for name, value in weights(clip).items():
        if name.startswith("visual."):
            assert torch.equal(value, start[name]) != (trunk and ".head" in name), name


def test_grids_of_a_locked_trunk_give_the_weights_that_pictures_give(home, tmp_path, monkeypatch):
    experiment = replace(LOCKED, lock_image=False, lock_trunk=True)
    vision = CONVOLUTIONAL | {"timm_proj": "linear", "timm_drop": 0.0}

    def trained(name: str) -> tuple[dict[str, torch.Tensor], list]:
        clip = clip_with(vision)
        return toy_train(experiment, tmp_path / name, clip, images=Toys(size=32))

    monkeypatch.setattr(features, "PICTURES", 4)
    found, log = trained("grids")
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "picture_features", lambda clip, locked, images, *rest: images)
        patch.setattr(run_module, "_run_head", run_module.image_features)
        expected, plain = trained("pictures")
    assert [line["loss"] for line in log] == pytest.approx([line["loss"] for line in plain], 1e-5)
    for name, value in weights(found).items():
        torch.testing.assert_close(value, weights(expected)[name], atol=1e-5, rtol=1e-4)


def test_a_trunk_is_timms(home) -> None:
    with pytest.raises(ConfigError, match="lock_trunk needs an image tower of timm"):
        toy_run(replace(LOCKED, lock_image=False, lock_trunk=True))


def test_a_locked_tower_drops_no_patches(home) -> None:
    """Else its features would be others in every step."""
    losses = []
    for step in (0, 1):
        clip = toy_clip()
        clip.model.visual.patch_dropout = PatchDropout(0.5)
        run = toy_run(replace(LOCKED, augment=True), clip)
        run.train_mode()
        losses.append(run.step(step, run.batches.at(0))["loss"])
    assert losses[0] == losses[1]
    assert same_weights(toy_clip(), toy_clip())
