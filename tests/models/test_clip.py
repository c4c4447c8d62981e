"""Models by name, weights that only run with their own activation, and what open_clip exports."""

from pathlib import Path
from unittest.mock import Mock

import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU
from PIL import Image
from torch import Tensor, nn

from cae_lib.errors import CheckpointError, ConfigError
from cae_lib.models import encode_image, encode_text, text_encoder
from cae_lib.models.checkpoint import CheckpointMeta, save_checkpoint
from cae_lib.models.clip import ACTIVATIONS, Clip, load_clip

CAPTIONS = ["a red cup on a bed", "a dog"]


def activation_of(model: nn.Module) -> str:
    return "quickgelu" if any(isinstance(m, QuickGELU) for m in model.modules()) else "gelu"


def features(model: nn.Module, size: int, tokens: Tensor) -> Tensor:
    """Return unit vectors of a fixed image and of captions, by open_clip's own code."""
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return torch.cat(
            [
                model.eval().encode_image(image, normalize=True),
                model.encode_text(tokens, normalize=True),
            ]
        )


def test_clip_mini_has_its_sizes(tiny_clip: Clip) -> None:
    assert (tiny_clip.image_size, tiny_clip.weights_id) == (112, "random-0")
    assert tiny_clip.activation == activation_of(tiny_clip.model) == "quickgelu"
    assert tiny_clip.preprocess(Image.new("RGB", (300, 200), "red")).shape == (3, 112, 112)
    assert features(tiny_clip.model, 112, tiny_clip.tokenizer(CAPTIONS)).shape == (3, 128)
    assert 2 * sum(p.numel() for p in tiny_clip.model.parameters()) <= 16e6  # bytes in float16
    assert tiny_clip.model.visual.positional_embedding.std().item() == pytest.approx(0.5, abs=0.02)


def test_clip_photo_trains_the_head_of_a_locked_tower() -> None:
    """A network of timm beside CLIP's own text tower; locked, its head is trained."""
    clip = load_clip("clip-photo", seed=2)
    assert (clip.image_size, clip.activation) == (224, "quickgelu")
    images = clip.preprocess(Image.effect_noise((300, 240), 80).convert("RGB"))[None]
    tokens = clip.tokenizer(CAPTIONS)
    assert tokens.shape == (2, 32) and text_encoder(clip.model).implementation == "packed"
    clip.model.lock_image_tower()
    both = encode_image(clip.model, images).features, encode_text(clip.model, tokens).features
    torch.testing.assert_close(both[1], clip.model.encode_text(tokens), atol=1e-5, rtol=0)
    torch.cosine_similarity(*both).sum().backward()
    trained = {n.split(".")[0] for n, p in clip.model.visual.named_parameters() if p.requires_grad}
    assert trained == {"head"}
    assert clip.model.token_embedding.weight.grad.abs().max() > 0


def test_random_weights_depend_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The generators of the caller, and those of GPUs, are not touched."""
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda _: pytest.fail("of a GPU"))
    states = [load_clip(seed=seed).model.state_dict() for seed in (3, 3, 4)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["visual.proj"], states[2]["visual.proj"])


@pytest.mark.parametrize(("activation", "other"), [ACTIVATIONS, ACTIVATIONS[::-1]])
def test_checkpoint_decides_the_activation(activation: str, other: str, tmp_path: Path) -> None:
    clip = load_clip(activation=activation)
    path = save_checkpoint(tmp_path / "model", clip, CheckpointMeta("clip-mini", activation))
    loaded = load_clip(weights=path, seed=9)
    before, after = clip.model.state_dict(), loaded.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (
        activation_of(loaded.model) == loaded.activation == activation_of(clip.model) == activation
    )
    assert len(loaded.weights_id) == 64
    with pytest.raises(
        CheckpointError, match=f"trained with {activation}.*allow_activation_mismatch"
    ):
        load_clip(weights=path, activation=other)
    allowed = load_clip(weights=path, activation=other, allow_activation_mismatch=True)
    assert activation_of(allowed.model) == allowed.activation == other


def test_weights_of_another_architecture_are_refused(
    tiny_clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_checkpoint(tmp_path / "base", tiny_clip, CheckpointMeta("clip-mini", "quickgelu"))
    with pytest.raises(CheckpointError, match="holds clip-mini, not ViT-B-32"):
        load_clip("ViT-B-32", path)
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ConfigError, match="does not say which activation"):
        load_clip(weights=tmp_path / "other.pt")
    vector = tiny_clip.model.state_dict() | {"logit_scale": torch.tensor([3.25])}
    torch.save(vector, tmp_path / "vector.pt")  # as in some published files
    loaded = load_clip(weights=tmp_path / "vector.pt", activation="quickgelu")
    assert loaded.model.logit_scale.shape == () and loaded.model.logit_scale == 3.25
    with pytest.raises(CheckpointError, match="does not fit clip-mini.*Missing key"):
        load_clip(weights=tmp_path / "other.pt", activation="gelu")
    config = open_clip.get_model_config("clip-mini") | {"quick_gelu": False}  # no other one
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "clip-mini-gelu", config)
    assert load_clip("clip-mini-gelu", path).activation == "quickgelu"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "clip-mimi"}, "Did you mean clip-mini"),
        ({"weights": "nowhere.safetensors"}, "no checkpoint at nowhere"),
        ({"name": "ViT-B-32", "weights": "opena"}, "openai"),
    ],
)
def test_errors_say_what_to_do(arguments: dict[str, str], message: str) -> None:
    with pytest.raises((ConfigError, CheckpointError), match=message):
        load_clip(**arguments)


def test_tag_brings_its_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    create = Mock(side_effect=RuntimeError("no network"))
    monkeypatch.setattr(open_clip, "create_model_and_transforms", create)
    with pytest.raises(CheckpointError, match="no network. Without a network"):
        load_clip("ViT-B-32", weights="openai")
    assert create.call_args.kwargs.items() >= {("force_quick_gelu", True), ("pretrained", "openai")}
    with pytest.raises(CheckpointError, match="trained with quickgelu"):
        load_clip("ViT-B-32", weights="openai", activation="gelu")
