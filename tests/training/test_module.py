"""CAELoss: what it computes and refuses, alone and in training."""

from dataclasses import dataclass
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.attribution import Attribution, AttributionMethod, Captions, get_method
from cae_lib.attribution.binding import BindingAttribution
from cae_lib.attribution.gradient import GradientAttribution
from cae_lib.config import AttributionLossConfig
from cae_lib.errors import ConfigError
from cae_lib.models import packed
from cae_lib.training.losses import (
    AttributionLossOutput,
    CAELoss,
    attribution_loss,
    contrastive_loss,
)
from cae_lib.words.alignment import word_numbers

EVERY = pytest.mark.parametrize("method", ["attention", "gradcam", "perturbation", "gradient"])
PARTS = ("loss", "objects", "composition")
ACTIVE = 2.0
"""A margin with which the hinge is active."""


def step(
    loss: CAELoss, batch: tuple[Tensor, ...], **autocast: Any
) -> tuple[AttributionLossOutput, dict[str, Tensor]]:
    """Return the output, and the gradients of all parameters of the text tower."""
    loss.model.zero_grad()
    with torch.autocast("cpu", enabled=bool(autocast), **autocast):
        output = loss(*batch)
    output.loss.backward()
    gradients = {name: p.grad for name, p in loss.model.named_parameters() if p.grad is not None}
    return output, {name: gradient.clone() for name, gradient in gradients.items()}


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("attention", {}),
        ("gradcam", {"scope": "caption"}),
        ("perturbation", {"scope": "word", "stop_gradient": True}),
        ("gradient", {"complete_captions": False}),
        ("gradcam", {"hinge": "margin", "scope": "word"}),
    ],
    ids=str,
)
def test_parts_are_those_of_the_scores(method: str, settings: dict, model, batch) -> None:
    images, tokens, roles = batch
    output = CAELoss(model, method, weight=3.0, margin=0.7, **settings)(*batch)
    scores = get_method(method)(model, tokens, images).scores
    roles, words = (v[:, : scores.shape[1]] for v in (roles, word_numbers(tokens, 49408)))
    config = AttributionLossConfig(margin=0.7, **settings)
    expected = attribution_loss(scores, roles, config, words)
    torch.testing.assert_close(output.loss.detach(), 3.0 * expected.loss)
    for name in ("objects", "composition", "n_objects", "n_composition"):
        torch.testing.assert_close(getattr(output, name), getattr(expected, name))
    features = F.normalize(model.encode_text(tokens), dim=-1)
    torch.testing.assert_close(output.text_features, features, atol=1e-10, rtol=0)


@pytest.mark.parametrize(("method", "path"), [("gradcam", "packed"), ("perturbation", "reference")])
def test_image_gradient_decides_whether_the_loss_reaches_the_images(method, path, model, batch):
    """Check by finite differences; without it the contrastive loss still reaches the images."""
    images, *rest = batch
    open_loss, constant_loss = (
        CAELoss(model, method, margin=2.0, implementation=path, **options)
        for options in ({}, {"image_gradient": False})
    )
    inputs = images.clone().requires_grad_()
    output = constant_loss(inputs, *rest)
    output.loss.backward(retain_graph=True)
    assert inputs.grad is None
    contrastive_loss(inputs, output.text_features, model.logit_scale.exp()).backward()
    assert inputs.grad.abs().max() > 0
    inputs.grad = None
    loss = open_loss(inputs, *rest).loss
    torch.testing.assert_close(loss, output.loss, rtol=1e-12, atol=0)
    loss.backward()
    move = 1e-6 * inputs.grad / inputs.grad.norm()
    after, before = (open_loss(images + change, *rest).loss for change in (move, -move))
    expected = (after - before).item() / (2 * 1e-6)
    assert inputs.grad.norm().item() == pytest.approx(expected, rel=1e-6)


@dataclass(frozen=True)
class Positions(AttributionMethod):
    """A user's method: scores are positions, and even ones have no score."""

    def score(self, captions: Captions) -> Attribution:
        """Return the number of each position, from 1."""
        assert torch.equal(captions.requested, captions.roles > 0)
        output = captions.encoder.encode(captions.tokens)
        length = output.embeddings.shape[1]
        scores = torch.arange(1.0, length + 1).expand(len(captions.tokens), -1)
        return Attribution(scores, output.features, has_score=scores % 2 == 1)


def test_a_method_can_be_an_object_and_leave_tokens_out(model, batch) -> None:
    _, tokens, roles = batch
    output = CAELoss(model, Positions(), complete_captions=False)(*batch)
    positions = torch.arange(1.0, 78).expand(len(tokens), -1)
    used = (roles == 1) & (positions % 2 == 1)
    torch.testing.assert_close(output.objects, positions[used].mean())
    assert output.n_objects == used.sum()


def test_the_model_is_not_registered(model) -> None:
    loss = CAELoss(model)
    assert not list(loss.parameters())
    assert not loss.state_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": float("nan")}, "weight is nan"),
        ({"image_gradient": 0}, "image_gradient is 0"),
        ({"hinge": "margin"}, "margin"),
        ({"method": "gradient", "start_layer": 1}, "start_layer"),
        ({"method": Positions(), "layers": (1,)}, "Positions"),
        ({"method": GradientAttribution}, "GradientAttribution"),
        ({"method": "binding"}, "margin"),
        ({"method": "binding", "hinge": "difference", "margin": 0.5}, "hinge"),
        ({"method": BindingAttribution(), "hinge": "difference", "margin": 0.5}, "hinge"),
        ({"model": nn.Linear(2, 2)}, "Linear"),
    ],
    ids=str,
)
def test_bad_settings_are_refused_at_once(options: dict, message: str, model) -> None:
    with pytest.raises(ConfigError, match=message):
        CAELoss(**{"model": model} | options)


@pytest.mark.parametrize("method", ["gradcam", "gradient"])
def test_gradient_checkpointing_changes_nothing(method, model, batch, monkeypatch) -> None:
    loss = CAELoss(model, method, margin=ACTIVE)
    plain, expected = step(loss, batch)
    recomputed: list[int] = []
    finish = packed.finish_block
    monkeypatch.setattr(packed, "finish_block", lambda *a: recomputed.append(1) or finish(*a))
    model.set_grad_checkpointing(True)
    output, gradients = step(loss, batch)
    assert len(recomputed) > 4  # once forward in each block, again in each backward pass
    for part in PARTS:
        torch.testing.assert_close(getattr(output, part), getattr(plain, part), rtol=1e-12, atol=0)
    torch.testing.assert_close(gradients, expected, atol=1e-12, rtol=1e-9)


@EVERY
def test_autocast_leaves_scores_and_loss_in_float32(method, model, batch) -> None:
    """Scores and loss are float32, within 2 % of the exact ones; gradients within 5 degrees.

    Perturbation takes differences of similarities that 16 bits have rounded: more than twice that.
    """
    batch = (batch[0].float(), *batch[1:])
    model.float()
    loss = CAELoss(model, method, margin=ACTIVE)
    exact, expected = step(loss, batch)
    output, gradients = step(loss, batch, dtype=torch.bfloat16)
    assert output.text_features.dtype == torch.bfloat16
    scale = (0.05 if method == "perturbation" else 0.02) * max(
        exact.objects.abs(), exact.composition.abs()
    )
    for part in PARTS:
        assert getattr(output, part).dtype == torch.float32
        difference = (getattr(output, part) - getattr(exact, part)).abs()
        assert difference < scale + (0.01 if part == "loss" else 0), part
    actual, exact_gradient = (
        torch.cat([g[name].flatten() for name in expected]) for g in (gradients, expected)
    )
    assert F.cosine_similarity(actual, exact_gradient, dim=0) > 0.996


class Step(nn.Module):
    """A training step as a user writes it, with the loss inside the module."""

    def __init__(self, model: nn.Module, method: str) -> None:
        super().__init__()
        self.model, self.cae = model, CAELoss(model, method, margin=ACTIVE)

    def forward(self, pixels: Tensor, tokens: Tensor, roles: Tensor) -> Tensor:
        images = self.model.encode_image(pixels, normalize=True)
        output = self.cae(images, tokens, roles)
        scale = self.model.logit_scale.exp()
        return contrastive_loss(images, output.text_features, scale) + output.loss


@pytest.mark.parametrize("method", ["gradcam", "perturbation"])
def test_the_loss_within_a_compiled_module_gives_the_same_numbers(method, model, batch) -> None:
    """Compiled by AOTAutograd, which cannot differentiate within the forward pass."""
    step_module = Step(model, method)
    pixels, numbers = torch.randn(4, 3, 112, 112, dtype=torch.float64), []
    for module in (step_module, torch.compile(step_module, backend="aot_eager")):
        model.zero_grad()
        loss = module(pixels, *batch[1:])
        loss.backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        numbers.append((loss.detach(), gradients))
    torch.testing.assert_close(numbers[1], numbers[0], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("method", "precision"), [("gradcam", "bf16"), ("gradient", "pure_bf16")])
def test_model_in_half_precision(method: str, precision: str, batch) -> None:
    images, tokens, roles = batch
    model = open_clip.create_model("clip-mini", precision=precision)
    expected = model.encode_text(tokens, normalize=True)
    loss = CAELoss(model, method, margin=ACTIVE)
    output, gradients = step(loss, (images.bfloat16(), tokens, roles))
    assert output.loss.dtype == torch.float32
    assert output.text_features.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(output.text_features, expected, atol=0.01, rtol=0)
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize("method", ["attention", "perturbation"])
def test_scores_that_are_to_be_trained_have_a_graph_in_inference_mode_too(method, model, batch):
    images, tokens, _ = batch
    with torch.inference_mode():
        scores = get_method(method)(model, tokens, images, create_graph=True).scores
    assert scores.requires_grad
