"""The module for training loops: its parts, what it computes and what it refuses."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.attribution import Attribution, get_method
from cae_lib.attribution.grouping import word_index
from cae_lib.errors import ConfigError, DataError
from cae_lib.models import text_encoder
from cae_lib.models.packed import PackedEncoder
from cae_lib.training.losses import attribution_loss, contrastive_loss
from cae_lib.training.task import CompositionAttributionLoss

EVERY = pytest.mark.parametrize("method", ["attention", "gradcam", "perturbation", "gradient"])
LAYERS = "transformer.resblocks."


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
    words = word_index(tokens, 49408)[:, : scores.shape[1]]
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


def test_words_without_a_role_are_not_perturbed(model, batch, monkeypatch) -> None:
    rows: list[int] = []
    encode = PackedEncoder.encode_variants

    def counted(self: PackedEncoder, tokens: Tensor, caption: Tensor, *rest: Tensor) -> Tensor:
        rows.append(len(caption))
        return encode(self, tokens, caption, *rest)

    monkeypatch.setattr(PackedEncoder, "encode_variants", counted)
    CompositionAttributionLoss(model, "perturbation")(*batch)
    # "red", "dog", "chases", "cat"; "pterodactyls", "under", "striped", "tree"
    assert rows == [4 + 4]


@EVERY
def test_no_grad_builds_no_graph(method: str, model, batch) -> None:
    task = CompositionAttributionLoss(model, method, margin=2.0)
    training = task(*batch)
    with torch.no_grad():
        silent = task(*batch)
    assert not silent.loss.requires_grad and not silent.text_features.requires_grad
    torch.testing.assert_close(silent.loss, training.loss.detach())


@EVERY
def test_eval_mode_changes_no_gradient(method: str, model, batch) -> None:
    weight = model.get_parameter(LAYERS + "1.mlp.c_fc.weight")
    gradients = []
    for evaluated in (False, True):
        model.zero_grad()
        task = CompositionAttributionLoss(model, method, margin=2.0)
        output = (task.eval() if evaluated else task)(*batch)
        (output.loss + output.text_features.sum()).backward()
        gradients.append(weight.grad.clone())
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[1], gradients[0])


@EVERY
def test_inference_mode_gives_the_same_numbers(method: str, model, batch) -> None:
    expected = CompositionAttributionLoss(model, method, margin=2.0)(*batch)
    with torch.inference_mode():
        images, tokens, roles = (value.clone() for value in batch)  # inference tensors
        found = CompositionAttributionLoss(model, method, margin=2.0)(images, tokens, roles)
    torch.testing.assert_close(found.loss, expected.loss.detach())
    torch.testing.assert_close(found.text_features, expected.text_features.detach())


@pytest.mark.parametrize("loss_first", [False, True])
def test_a_copy_uses_the_copied_model(loss_first: bool, model, batch) -> None:
    task = CompositionAttributionLoss(model, "gradient", margin=2.0)
    parts = [task, model] if loss_first else [model, task]
    step = copy.deepcopy(nn.ModuleList(parts))
    twin = next(part for part in step if isinstance(part, CompositionAttributionLoss))
    other = next(part for part in step if part is not twin)
    assert other is not model and twin.model is other
    twin(*batch).loss.backward()
    assert all(p.grad is None for p in model.parameters())
    assert other.get_parameter(LAYERS + "0.mlp.c_fc.weight").grad is not None


def test_a_copy_alone_uses_the_same_model(model, batch) -> None:
    task = CompositionAttributionLoss(model, "gradient", margin=2.0, reduction="l1")
    twin = copy.deepcopy(task)
    assert twin.model is model and twin.method == task.method and twin.method is not None
    assert copy.deepcopy(twin).model is model
    torch.testing.assert_close(twin(*batch).loss, task(*batch).loss)


def test_gradcam_leaves_the_temperature_alone(model, batch) -> None:
    for options, moved in (({}, False), ({"train_temperature": True}, True)):
        model.zero_grad()
        CompositionAttributionLoss(model, "gradcam", margin=2.0, **options)(*batch).loss.backward()
        gradient = model.logit_scale.grad
        assert (gradient is not None and gradient.abs() > 0) == moved


class Positions:
    """A method of somebody's own: the number of the position."""

    reads_words = False

    def __call__(self, model, tokens, image_features, **options):
        output = text_encoder(model).encode(tokens)
        scores = torch.arange(1.0, output.embeddings.shape[1] + 1).expand(len(tokens), -1)
        return Attribution(scores, output.features)


def test_a_method_can_be_an_object(model, batch) -> None:
    images, tokens, roles = batch
    output = CompositionAttributionLoss(model, Positions(), complete_captions=False)(*batch)
    places = torch.arange(1.0, 78).expand(len(tokens), -1)
    torch.testing.assert_close(output.objects, places[roles == 1].mean())
    with pytest.raises(ConfigError, match="Positions"):
        CompositionAttributionLoss(model, Positions(), layers=(1,))


@EVERY
def test_the_reference_path_gives_the_same_gradients(method: str, model, batch) -> None:
    gradients = []
    for path in ("packed", "reference"):
        model.zero_grad()
        CompositionAttributionLoss(model, method, margin=2.0, path=path)(*batch).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-12, rtol=1e-8)


def test_an_unknown_path_is_refused(model) -> None:
    with pytest.raises(ConfigError, match="auto, packed, reference"):
        CompositionAttributionLoss(model, path="fast")


def test_batch_without_roles_gives_zero(model, batch) -> None:
    images, tokens, roles = batch
    output = CompositionAttributionLoss(model, margin=1.0)(images, tokens, torch.zeros_like(roles))
    assert output.loss.item() == 0 and output.n_objects.item() == 0
    output.loss.backward()


@EVERY
def test_length_of_image_features_does_not_matter(method: str, model, batch) -> None:
    images, tokens, roles = batch
    task = CompositionAttributionLoss(model, method, margin=2.0)
    expected = task(images, tokens, roles)
    output = task(3.0 * images, tokens, roles)
    torch.testing.assert_close(output.loss, expected.loss)
    torch.testing.assert_close(output.objects, expected.objects)


def test_settings_are_printed(model) -> None:
    printed = repr(CompositionAttributionLoss(model, "gradient", weight=0.3, reduction="l1"))
    assert "reduction='l1'" in printed and "weight=0.3" in printed and "scope=batch" in printed


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
    with pytest.raises(ConfigError, match="Linear"):
        CompositionAttributionLoss(nn.Linear(2, 2))


def test_shapes_must_agree(model, batch) -> None:
    images, tokens, roles = batch
    task = CompositionAttributionLoss(model)
    with pytest.raises(DataError, match="same captions"):
        task(images, tokens, roles[:, :20])
    with pytest.raises(DataError, match="same captions"):
        task(images[:2], tokens, roles)
