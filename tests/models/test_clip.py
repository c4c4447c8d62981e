"""Models by name, and weights that only run with their own activation."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU
from PIL import Image
from torch import nn

from cae_lib.errors import CheckpointError, ConfigError
from cae_lib.models import CheckpointMeta, Clip, load_clip, save_checkpoint


def activation_of(model: nn.Module) -> str:
    """What the blocks of a model compute."""
    return "quickgelu" if any(isinstance(m, QuickGELU) for m in model.modules()) else "gelu"


@pytest.fixture
def checkpoint(tiny_clip: Clip, tmp_path: Path) -> Path:
    meta = CheckpointMeta("clip-mini", "quickgelu", step=7)
    return save_checkpoint(tmp_path / "base.safetensors", tiny_clip, meta)


def test_clip_mini(tiny_clip: Clip) -> None:
    assert (tiny_clip.name, tiny_clip.image_size, tiny_clip.weights_id) == (
        "clip-mini",
        112,
        "random-0",
    )
    assert tiny_clip.activation == activation_of(tiny_clip.model) == "quickgelu"
    picture = tiny_clip.preprocess(Image.new("RGB", (112, 112), "red"))
    tokens = tiny_clip.tokenizer(["a red square"])
    assert picture.shape == (3, 112, 112) and tokens.shape == (1, 77)
    assert tiny_clip.model.encode_image(picture[None]).shape == (1, 128)
    assert tiny_clip.model.encode_text(tokens).shape == (1, 128)
    weights = sum(p.numel() for p in tiny_clip.model.parameters())
    assert 2 * weights <= 16e6  # bytes in float16
    assert tiny_clip.model.visual.positional_embedding.std().item() == pytest.approx(0.5, abs=0.02)


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = load_clip(seed=3).model.state_dict()
    assert torch.rand(1) == expected  # the caller's generator was not touched
    second, third = load_clip(seed=3).model.state_dict(), load_clip(seed=4).model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["token_embedding.weight"], third["token_embedding.weight"])


@pytest.mark.parametrize("activation", ["quickgelu", "gelu"])
def test_activation_is_what_was_asked_for(activation: str) -> None:
    model = load_clip(activation=activation).model
    assert activation_of(model) == activation
    assert any(isinstance(m, QuickGELU) for m in model.modules()) == (activation == "quickgelu")


def test_checkpoint_round_trip(tiny_clip: Clip, checkpoint: Path) -> None:
    loaded = load_clip(weights=checkpoint, seed=9)
    before, after = tiny_clip.model.state_dict(), loaded.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert loaded.activation == "quickgelu" and len(loaded.weights_id) == 64


def test_activation_mismatch_is_refused(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="trained with quickgelu.*allow_activation_mismatch"):
        load_clip(weights=checkpoint, activation="gelu")
    chosen = load_clip(weights=checkpoint, activation="gelu", allow_activation_mismatch=True)
    assert activation_of(chosen.model) == chosen.activation == "gelu"


def test_checkpoint_decides_the_activation(tmp_path: Path) -> None:
    clip = load_clip(activation="gelu")
    path = save_checkpoint(tmp_path / "gelu", clip, CheckpointMeta("clip-mini", "gelu"))
    assert activation_of(load_clip(weights=path).model) == "gelu"


def test_plain_state_dict_needs_an_activation(tiny_clip: Clip, tmp_path: Path) -> None:
    path = tmp_path / "plain.pt"
    state = {f"module.{n}": v for n, v in tiny_clip.model.state_dict().items()}
    torch.save({"epoch": 5, "state_dict": state}, path)
    with pytest.raises(ConfigError, match="does not say which activation"):
        load_clip(weights=path)
    loaded = load_clip(weights=path, activation="quickgelu", seed=9)
    expected = tiny_clip.model.state_dict()["ln_final.weight"]
    assert torch.equal(loaded.model.state_dict()["ln_final.weight"], expected)


def test_logit_scale_is_stored_as_a_scalar_or_a_vector(tiny_clip: Clip, tmp_path: Path) -> None:
    state = tiny_clip.model.state_dict()
    state["logit_scale"] = torch.tensor([3.25])
    torch.save(state, tmp_path / "vector.pt")
    loaded = load_clip(weights=tmp_path / "vector.pt", activation="quickgelu")
    assert loaded.model.logit_scale.shape == () and loaded.model.logit_scale.item() == 3.25


def test_checkpoint_of_another_architecture_is_refused(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="holds clip-mini, not ViT-B-32"):
        load_clip("ViT-B-32", weights=checkpoint)


def test_names_that_differ_in_activation_only_are_one_architecture(
    tiny_clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = open_clip.get_model_config("clip-mini") | {"quick_gelu": False}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "clip-mini-gelu", config)
    meta = CheckpointMeta("clip-mini", "quickgelu")
    path = save_checkpoint(tmp_path / "base", tiny_clip, meta)
    assert load_clip("clip-mini-gelu", weights=path).activation == "quickgelu"


def test_state_dict_of_another_architecture_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="does not fit clip-mini.*Missing key"):
        load_clip(weights=tmp_path / "other.pt", activation="gelu")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "clip-mimi"}, ConfigError, "Did you mean clip-mini"),
        ({"activation": "relu"}, ConfigError, "quickgelu"),
        ({"weights": "nowhere.safetensors"}, CheckpointError, "no checkpoint at nowhere"),
        ({"weights": "laion"}, CheckpointError, "neither a file nor a tag"),
        ({"name": "ViT-B-32", "weights": "opena"}, CheckpointError, "openai"),
    ],
)
def test_errors_say_what_to_do(
    arguments: dict[str, str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_clip(**arguments)


def test_tag_brings_its_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def create(name: str, **options: object) -> None:
        asked.update(options)
        raise RuntimeError("no network")

    monkeypatch.setattr(open_clip, "create_model_and_transforms", create)
    with pytest.raises(CheckpointError, match="Without a network"):
        load_clip("ViT-B-32", weights="openai")
    assert asked["force_quick_gelu"] is True and asked["pretrained"] == "openai"
    with pytest.raises(CheckpointError, match="trained with quickgelu"):
        load_clip("ViT-B-32", weights="openai", activation="gelu")
