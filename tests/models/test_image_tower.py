"""The image tower against open_clip's own."""

from __future__ import annotations

import open_clip
import pytest
import torch
from open_clip.transformer import PatchDropout

from cae_lib.errors import ConfigError
from cae_lib.models import Clip, encode_image


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_features_and_gradients_are_those_of_open_clip(
    tiny_clip: Clip, attention: bool, checkpointing: bool
) -> None:
    model = tiny_clip.model.double()
    model.set_grad_checkpointing(checkpointing)
    images = torch.randn(3, 3, 112, 112, dtype=torch.float64)
    direction = torch.randn(3, 128, dtype=torch.float64)
    results = []
    for features in (
        model.encode_image(images),
        encode_image(model, images, attention=attention).features,
    ):
        model.zero_grad()
        (features * direction).sum().backward()
        results.append((features, {n: p.grad for n, p in model.visual.named_parameters()}))
    torch.testing.assert_close(results[1], results[0], atol=1e-11, rtol=1e-9)


def test_maps_are_those_of_explicit_attention(tiny_clip: Clip) -> None:
    model = tiny_clip.model.double()
    blocks = model.visual.transformer.resblocks
    expected: list[torch.Tensor] = []

    def remember(module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        attention = blocks[len(expected)].attn
        _, weights = attention(output, output, output, average_attn_weights=False)
        expected.append(weights)

    hooks = [block.ln_1.register_forward_hook(remember) for block in blocks]
    images = torch.randn(2, 3, 112, 112, dtype=torch.float64)
    with torch.no_grad():
        model.encode_image(images)
        for hook in hooks:
            hook.remove()
        maps = encode_image(model, images, attention=True).attention
    assert [m.shape[2] for m in maps] == [50, 50, 50, 1]
    torch.testing.assert_close(maps[:3], expected[:3])
    torch.testing.assert_close(maps[3], expected[3][:, :, :1])


def test_maps_are_on_the_path_to_the_features(tiny_clip: Clip) -> None:
    output = encode_image(tiny_clip.model, torch.randn(2, 3, 112, 112), attention=True)
    gradients = torch.autograd.grad(output.features.sum(), output.attention)
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_patches_are_dropped_in_training_as_open_clip_drops_them(tiny_clip: Clip) -> None:
    model, images = tiny_clip.model, torch.randn(2, 3, 112, 112)
    whole = encode_image(model, images).features
    model.visual.patch_dropout = PatchDropout(0.5)
    for training in (True, False):
        model.train(training)
        torch.manual_seed(1)
        expected = model.encode_image(images)
        torch.manual_seed(1)
        features = encode_image(model, images).features
        torch.testing.assert_close(features, expected)
        assert torch.allclose(features, whole, atol=1e-4) != training


def test_other_towers_are_run_by_open_clip() -> None:
    config = open_clip.get_model_config("clip-mini")
    config["vision_cfg"]["pool_type"] = "avg"
    model = open_clip.CLIP(**config).eval()
    images = torch.randn(2, 3, 112, 112)
    torch.testing.assert_close(encode_image(model, images).features, model.encode_image(images))
    with pytest.raises(ConfigError, match="class token"):
        encode_image(model, images, attention=True)
