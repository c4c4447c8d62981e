"""The module for training loops: its parts, and its gradient against finite differences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.attribution import get_method
from cae_lib.attribution.grouping import word_index
from cae_lib.errors import ConfigError, DataError
from cae_lib.models import Clip
from cae_lib.training.losses import attribution_loss, contrastive_loss
from cae_lib.training.task import CompositionAttributionLoss

EVERY = pytest.mark.parametrize("method", ["attention", "gradcam", "perturbation", "gradient"])
CAPTIONS = ["a red dog chases a cat", "the giraffe", "two pterodactyls under a striped tree", ""]
ROLES = [  # the second caption has no composition word, "pterodactyls" has several tokens
    {2: 2, 3: 1, 4: 3, 6: 1},
    {2: 1},
    {2: 1, 3: 1, 4: 1, 5: 1, 6: 1, 7: 3, 9: 2, 10: 1},
    {},
]
LAYERS = "transformer.resblocks."


@pytest.fixture
def model(tiny_clip: Clip) -> nn.Module:
    """A float64 clip-mini whose scores are far from 0."""
    with torch.no_grad():
        tiny_clip.model.token_embedding.weight.mul_(20)
    return tiny_clip.model.double().train()


@pytest.fixture
def batch(tiny_clip: Clip) -> tuple[Tensor, Tensor, Tensor]:
    """Image features `(4, 128)`, tokens and roles `(4, 77)`."""
    tokens = tiny_clip.tokenizer(CAPTIONS)
    roles = torch.zeros(tokens.shape, dtype=torch.int8)
    for caption, marks in enumerate(ROLES):
        for position, role in marks.items():
            roles[caption, position] = role
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, 128, generator=generator, dtype=torch.float64)
    return F.normalize(images, dim=-1), tokens, roles


@EVERY
def test_parts_are_those_of_the_scores(method: str, model, batch) -> None:
    images, tokens, roles = batch
    task = CompositionAttributionLoss(model, method, weight=3.0, margin=0.7)
    output = task(images, tokens, roles)
    attribution = get_method(method)(model, tokens, images)
    parts = attribution_loss(attribution.scores, roles[:, : attribution.length], margin=0.7)
    torch.testing.assert_close(output.loss.detach(), 3.0 * parts.loss)
    torch.testing.assert_close(output.objects, parts.objects)
    torch.testing.assert_close(output.composition, parts.composition)
    assert (output.n_objects.item(), output.n_composition.item()) == (8, 4)
    expected = F.normalize(model.encode_text(tokens), dim=-1)
    torch.testing.assert_close(output.text_features, expected, atol=1e-10, rtol=0)


@EVERY
@pytest.mark.parametrize("scope", ["caption", "word"])
def test_scopes(method: str, scope: str, model, batch) -> None:
    images, tokens, roles = batch
    output = CompositionAttributionLoss(model, method, margin=0.7, scope=scope)(*batch)
    scores = get_method(method)(model, tokens, images).scores
    words = word_index(tokens, tokens.argmax(-1), 49408)[:, : scores.shape[1]]
    parts = attribution_loss(
        scores, roles[:, : scores.shape[1]], margin=0.7, scope=scope, words=words
    )
    torch.testing.assert_close(output.loss.detach(), parts.loss)


@EVERY
def test_all_captions_can_be_counted(method: str, model, batch) -> None:
    images, tokens, roles = batch
    task = CompositionAttributionLoss(model, method, margin=0.7, complete_captions=False)
    output = task(*batch)
    scores = get_method(method)(model, tokens, images).scores
    parts = attribution_loss(
        scores, roles[:, : scores.shape[1]], margin=0.7, complete_captions=False
    )
    torch.testing.assert_close(output.loss.detach(), parts.loss)
    assert output.n_objects.item() == 9


def _finite_difference(loss, parameter: Tensor, direction: Tensor, step: float = 1e-5) -> float:
    """Central difference of the loss along a direction in one parameter."""
    values = []
    with torch.no_grad():
        for sign in (1, -1):
            parameter.add_(direction, alpha=sign * step)
            values.append(loss().item())
            parameter.sub_(direction, alpha=sign * step)
    return (values[0] - values[1]) / (2 * step)


PARAMETERS = (
    LAYERS + "0.attn.in_proj_weight",
    LAYERS + "1.mlp.c_fc.weight",
    LAYERS + "2.ln_1.weight",
    LAYERS + "3.attn.in_proj_weight",
    "positional_embedding",
    "token_embedding.weight",
)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("attention", {}),
        ("gradcam", {}),
        ("gradcam", {"start_layer": -1, "temperature": False}),
        ("perturbation", {"replacement": "zero"}),
        ("perturbation", {"replacement": "token", "temperature": True}),
        ("gradient", {}),
        ("gradient", {"reduction": "grad_x", "temperature": True}),
    ],
)
def test_gradient_is_that_of_finite_differences(
    method: str, parameters: dict, checkpointing: bool, model, batch
) -> None:
    model.set_grad_checkpointing(checkpointing)
    task = CompositionAttributionLoss(model, method, margin=2.0, **parameters)
    task(*batch).loss.backward()
    generator = torch.Generator().manual_seed(2)
    for name in PARAMETERS:
        parameter = model.get_parameter(name)
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        direction = noise / noise.norm() + parameter.grad / parameter.grad.norm()
        expected = _finite_difference(lambda: task(*batch).loss, parameter, direction)
        derivative = (parameter.grad * direction).sum().item()
        assert abs(derivative) > 1e-7
        assert derivative == pytest.approx(expected, rel=1e-5, abs=1e-11), name


def test_temperature_reaches_the_logit_scale(model, batch) -> None:
    task = CompositionAttributionLoss(model, "gradcam", margin=2.0)
    task(*batch).loss.backward()
    expected = _finite_difference(
        lambda: task(*batch).loss, model.logit_scale, torch.tensor(1.0, dtype=torch.float64)
    )
    assert model.logit_scale.grad.item() == pytest.approx(expected, rel=1e-5)
    model.zero_grad()
    CompositionAttributionLoss(model, "gradient", margin=2.0)(*batch).loss.backward()
    assert model.logit_scale.grad is None


@EVERY
def test_no_gradient_reaches_the_images(method: str, model, batch) -> None:
    images, tokens, roles = batch
    images = images.clone().requires_grad_()
    output = CompositionAttributionLoss(model, method, margin=2.0)(images, tokens, roles)
    output.loss.backward(retain_graph=True)
    assert images.grad is None
    contrastive_loss(images, output.text_features, model.logit_scale.exp()).backward()
    assert images.grad.abs().max() > 0  # the contrastive loss still trains the image tower


@EVERY
def test_both_losses_are_differentiated_together(method: str, model, batch) -> None:
    """One backward pass of the sum gives the sum of the two gradients."""
    images, tokens, roles = batch
    weight = model.get_parameter(LAYERS + "1.mlp.c_fc.weight")
    gradients = []
    for contrastive, attribution in ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0)):
        model.zero_grad()
        output = CompositionAttributionLoss(model, method, margin=2.0)(images, tokens, roles)
        scale = model.logit_scale.exp()
        itc = contrastive_loss(images, output.text_features, scale)
        (contrastive * itc + attribution * output.loss).backward()
        gradients.append(weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1] + gradients[2])


@EVERY
def test_a_few_steps_close_the_gap(method: str, model, batch) -> None:
    task = CompositionAttributionLoss(model, method, margin=0.0)
    images, tokens, roles = batch
    with torch.no_grad():
        scores = task(*batch)
    sign = -1 if scores.objects < scores.composition else 1
    flipped = torch.where(roles == 1, 2, torch.where(roles >= 2, 1, 0)).to(torch.int8)
    roles = roles if sign == 1 else flipped  # start from objects in the lead
    optimiser = torch.optim.SGD(model.parameters(), lr=0.0)
    before = task(images, tokens, roles)
    assert before.loss > 0
    before.loss.backward()
    norm = torch.sqrt(sum(p.grad.square().sum() for p in model.parameters() if p.grad is not None))
    optimiser.param_groups[0]["lr"] = 0.1 * before.loss.item() / norm.item() ** 2
    optimiser.step()
    assert 0.8 * before.loss < task(images, tokens, roles).loss < before.loss


def test_stop_gradient_moves_composition_only(model, batch) -> None:
    images, tokens, roles = batch
    task = CompositionAttributionLoss(model, "attention", margin=2.0, stop_gradient=True)
    task(*batch).loss.backward()
    weight = model.get_parameter(LAYERS + "0.attn.in_proj_weight")
    stopped = weight.grad.clone()
    attribution = get_method("attention")(model, tokens, images, create_graph=True)
    complete = torch.tensor([True, False, True, False]).unsqueeze(1)
    composition = (roles[:, : attribution.length] >= 2) & complete
    (expected,) = torch.autograd.grad(-attribution.scores[composition].mean(), weight)
    torch.testing.assert_close(stopped, expected)


def test_words_without_a_role_are_not_perturbed(model, batch) -> None:
    rows: list[int] = []
    hook = model.ln_final.register_forward_hook(lambda m, inputs, out: rows.append(len(inputs[0])))
    CompositionAttributionLoss(model, "perturbation")(*batch)
    hook.remove()
    # four captions; "red", "dog", "chases", "cat"; "pterodactyls", "under", "striped", "tree"
    assert rows == [4 + 4 + 4]


@EVERY
def test_eval_mode_builds_no_graph(method: str, model, batch) -> None:
    task = CompositionAttributionLoss(model, method, margin=2.0)
    training = task(*batch)
    with torch.no_grad():
        silent = task(*batch)
    evaluated = task.eval()(*batch)
    for output in (silent, evaluated):
        assert not output.loss.requires_grad and not output.text_features.requires_grad
        torch.testing.assert_close(output.loss, training.loss.detach())


def test_batch_without_roles_gives_zero(model, batch) -> None:
    images, tokens, roles = batch
    output = CompositionAttributionLoss(model, margin=1.0)(images, tokens, torch.zeros_like(roles))
    assert output.loss.item() == 0 and output.n_objects.item() == 0
    output.loss.backward()


def test_model_is_not_owned(model) -> None:
    task = CompositionAttributionLoss(model)
    assert not list(task.parameters()) and not task.state_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "saliency"}, "attention, gradcam"),
        ({"scope": "sentence"}, "batch, caption, word"),
        ({"method": "gradient", "start_layer": 1}, "reduction, temperature"),
    ],
)
def test_bad_settings_are_refused_at_once(options: dict, message: str, model) -> None:
    with pytest.raises(ConfigError, match=message):
        CompositionAttributionLoss(model, **options)


def test_unsupported_model_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="not supported"):
        CompositionAttributionLoss(nn.Linear(2, 2))


def test_shapes_must_agree(model, batch) -> None:
    images, tokens, roles = batch
    task = CompositionAttributionLoss(model)
    with pytest.raises(DataError, match="same captions"):
        task(images, tokens, roles[:, :20])
    with pytest.raises(DataError, match="same captions"):
        task(images[:2], tokens, roles)
