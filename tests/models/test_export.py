"""Exported models against the models themselves, loaded by open_clip alone."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cae_lib.errors import ConfigError, DataError
from cae_lib.models import CheckpointMeta, Clip, load_clip, read_meta
from cae_lib.models.clip import export_clip, open_clip_name

META = CheckpointMeta("clip-mini", "quickgelu", step=3)


def features(model: nn.Module, size: int, tokens: Tensor) -> Tensor:
    """Unit vectors of a fixed picture and of captions, by open_clip's own forward pass."""
    picture = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return torch.cat([model.encode_image(picture, normalize=True),
                          model.encode_text(tokens, normalize=True)])


def test_vit_b_32_is_loaded_by_name_and_path(tmp_path: Path) -> None:
    clip = load_clip("ViT-B-32", activation="quickgelu", seed=5)
    tokens = clip.tokenizer(["the cat is touching the elephant", "a dog"])
    expected = features(clip.model, 224, tokens)
    meta = CheckpointMeta("ViT-B-32", "quickgelu")
    path = export_clip(clip, tmp_path, meta, "# card", "pt")
    del clip
    loaded, _, _ = open_clip.create_model_and_transforms("ViT-B-32-quickgelu", pretrained=str(path))
    torch.testing.assert_close(features(loaded.eval(), 224, tokens), expected, atol=1e-6, rtol=0)
    for module in loaded.modules():  # what the plain name would have built
        if isinstance(getattr(module, "gelu", None), open_clip.transformer.QuickGELU):
            module.gelu = nn.GELU()
    assert (features(loaded, 224, tokens) - expected).abs().max() > 1e-4


@pytest.mark.parametrize("form", ["safetensors", "pt"])
@pytest.mark.parametrize("activation", ["quickgelu", "gelu"])
def test_clip_mini_by_path(tmp_path: Path, form: str, activation: str) -> None:
    clip = load_clip(activation=activation, seed=4)
    tokens = clip.tokenizer(["a red cup on a bed"])
    path = export_clip(clip, tmp_path, CheckpointMeta("clip-mini", activation), "# card", form)
    loaded, _, _ = open_clip.create_model_and_transforms(
        "clip-mini", pretrained=str(path), quick_gelu=activation == "quickgelu"
    )
    expected = features(clip.model, 112, tokens)
    torch.testing.assert_close(features(loaded.eval(), 112, tokens), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("activation", ["quickgelu", "gelu"])
def test_a_folder_brings_architecture_activation_and_preprocessing(
    tmp_path: Path, activation: str
) -> None:
    clip = load_clip(activation=activation, seed=4)
    export_clip(clip, tmp_path, CheckpointMeta("clip-mini", activation), "# card")
    name = f"local-dir:{tmp_path}"
    loaded, _, preprocess = open_clip.create_model_and_transforms(name)
    tokens = open_clip.get_tokenizer(name)(["a red cup on a bed"])
    assert torch.equal(tokens, clip.tokenizer(["a red cup on a bed"]))
    picture = Image.effect_noise((140, 120), 80).convert("RGB")
    assert torch.equal(preprocess(picture), clip.preprocess(picture))
    expected = features(clip.model, 112, tokens)
    torch.testing.assert_close(features(loaded.eval(), 112, tokens), expected, atol=1e-6, rtol=0)


def test_what_is_written(tiny_clip: Clip, tmp_path: Path) -> None:
    path = export_clip(tiny_clip, tmp_path / "deep" / "folder", META, "# card\n")
    assert path.name == "open_clip_model.safetensors"
    assert (path.parent / "README.md").read_text() == "# card\n"
    config = json.loads((path.parent / "open_clip_config.json").read_text())
    assert config["model_cfg"]["quick_gelu"] is True
    assert read_meta(path) == META  # so that this library knows the activation, too
    assert not list(path.parent.glob("*.partial"))


def test_a_pickle_holds_tensors_alone(tiny_clip: Clip, tmp_path: Path) -> None:
    path = export_clip(tiny_clip, tmp_path, META, "# card", "pt")
    content = torch.load(path, weights_only=True)
    assert list(content) == list(tiny_clip.model.state_dict())


@pytest.mark.parametrize(
    ("name", "activation", "expected"),
    [
        ("ViT-B-32", "quickgelu", "ViT-B-32-quickgelu"),
        ("ViT-B-32", "gelu", "ViT-B-32"),
        ("ViT-B-32-quickgelu", "gelu", "ViT-B-32"),
        ("ViT-B-32-quickgelu", "quickgelu", "ViT-B-32-quickgelu"),
        ("clip-mini", "quickgelu", None),
        ("ViT-B-32-256", "quickgelu", None),
    ],
)
def test_name_in_open_clip(name: str, activation: str, expected: str | None) -> None:
    assert open_clip_name(name, activation) == expected


def test_bad_input(tiny_clip: Clip, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="safetensors or pt"):
        export_clip(tiny_clip, tmp_path, META, "", "onnx")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="make the folder"):
        export_clip(tiny_clip, tmp_path / "file", META, "", "pt")
