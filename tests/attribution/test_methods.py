"""What all attribution methods have in common."""

from __future__ import annotations

import dataclasses

import open_clip
import pytest
import torch
from open_clip.model import convert_to_custom_text_state_dict

from cae_lib.attribution import METHODS, get_method
from cae_lib.errors import ConfigError
from cae_lib.models import packed

EVERY = pytest.mark.parametrize("name", ["attention", "gradcam", "perturbation", "gradient"])


def test_every_method_is_listed() -> None:
    assert list(METHODS) == ["attention", "gradcam", "perturbation", "gradient"]


def test_unknown_method_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="attention, gradcam, perturbation, gradient"):
        get_method("rollout")


def test_unknown_parameter_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no parameter depth.*start_layer, second_order"):
        get_method("gradcam", depth=2)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("gradient", {"reduction": "l3"}),
        ("perturbation", {"replacement": "blank"}),
        ("perturbation", {"unit": "phrase"}),
    ],
)
def test_bad_value_is_refused_at_once(name: str, parameters: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=next(iter(parameters.values()))):
        get_method(name, **parameters)


@EVERY
def test_shapes_and_features(name: str, batch) -> None:
    attribution = get_method(name)(batch.model, batch.tokens, batch.image_features)
    assert attribution.scores.shape == (4, 77) and attribution.length == 77
    expected = batch.model.encode_text(batch.tokens)
    torch.testing.assert_close(attribution.text_features, expected.detach(), atol=1e-10, rtol=0)
    after = torch.arange(77) > batch.eot[:, None]
    assert attribution.scores[after].abs().max() == 0
    assert not attribution.scores.requires_grad and not attribution.text_features.requires_grad


@EVERY
def test_a_caption_scores_the_same_alone_as_in_a_batch(name: str, batch) -> None:
    method = get_method(name)
    together = method(batch.model, batch.tokens, batch.image_features).scores
    for i in range(4):
        alone = method(batch.model, batch.tokens[i : i + 1], batch.image_features[i : i + 1])
        assert alone.length == batch.eot[i] + 1
        expected = together[i : i + 1, : alone.length]
        torch.testing.assert_close(alone.scores, expected, atol=1e-10, rtol=0)


@EVERY
def test_scores_do_not_depend_on_the_graph(name: str, batch) -> None:
    method = get_method(name)
    plain = method(batch.model, batch.tokens, batch.image_features)
    with_graph = method(batch.model, batch.tokens, batch.image_features, create_graph=True)
    torch.testing.assert_close(with_graph.scores.detach(), plain.scores, atol=1e-12, rtol=0)
    assert with_graph.scores.requires_grad and with_graph.text_features.requires_grad


@EVERY
def test_frozen_model_under_no_grad(name: str, batch) -> None:
    method = get_method(name)
    expected = method(batch.model, batch.tokens, batch.image_features).scores
    batch.model.requires_grad_(False)
    with torch.no_grad():
        scores = method(batch.model, batch.tokens, batch.image_features).scores
    torch.testing.assert_close(scores, expected)


@EVERY
def test_float32_agrees_with_float64(name: str, batch) -> None:
    method = get_method(name)
    exact = method(batch.model, batch.tokens, batch.image_features).scores
    single = batch.single()
    scores = method(single.model, single.tokens, single.image_features).scores
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, exact.float(), atol=1e-5, rtol=1e-4)


@EVERY
def test_scores_are_float32_under_autocast(name: str, batch) -> None:
    single = batch.single()
    method = get_method(name)
    expected = method(single.model, single.tokens, single.image_features).scores
    with torch.autocast("cpu", torch.bfloat16):
        attribution = method(
            single.model, single.tokens, single.image_features, create_graph=True
        )
    assert attribution.scores.dtype == torch.float32
    scale = expected.abs().max()
    torch.testing.assert_close(attribution.scores / scale, expected / scale, atol=0.05, rtol=0)
    (attribution.scores.sum() + attribution.text_features.sum()).backward()
    gradients = [p.grad for p in single.model.transformer.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)


@EVERY
def test_training_with_the_fused_kernel(name: str, batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where the fused kernel is taken wherever one derivative is enough."""
    method = get_method(name)
    weight = batch.model.transformer.resblocks[0].attn.in_proj_weight
    gradients = []
    for fused in (False, True):
        monkeypatch.setattr(packed, "_fused_is_faster", lambda device, fused=fused: fused)
        attribution = method(batch.model, batch.tokens, batch.image_features, create_graph=True)
        gradients += torch.autograd.grad(attribution.scores[:, 1].sum(), weight)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-10, rtol=1e-7)


@EVERY
def test_custom_text_clip_scores_as_clip(name: str, batch) -> None:
    config = open_clip.get_model_config("clip-mini")
    custom = open_clip.CustomTextCLIP(**config).double()
    custom.load_state_dict(convert_to_custom_text_state_dict(batch.model.state_dict()))
    method = get_method(name)
    expected = method(batch.model, batch.tokens, batch.image_features).scores
    scores = method(custom, batch.tokens, batch.image_features).scores
    torch.testing.assert_close(scores, expected)


@EVERY
def test_methods_are_frozen_and_hashable(name: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        get_method(name).depth = 1
    assert hash(get_method(name)) == hash(get_method(name))
