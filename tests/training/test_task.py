"""The module for training loops: its parts, what it computes and what it refuses."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.attribution import Attribution, get_method
from cae_lib.attribution.grouping import word_index
from cae_lib.errors import ConfigError, DataError
from cae_lib.models import text_encoder
from cae_lib.models.packed import PackedEncoder
from cae_lib.training.losses import Hinge, attribution_loss, contrastive_loss
from cae_lib.training.task import CompositionAttributionLoss

EVERY = pytest.mark.parametrize("method", ["attention", "gradcam", "perturbation", "gradient"])


def gradients(task: CompositionAttributionLoss, model: nn.Module, batch) -> dict[str, Tensor]:
    model.zero_grad()
    task(*batch).loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@EVERY
@pytest.mark.parametrize("settings", [
    {}, {"scope": "caption"}, {"scope": "word"}, {"complete_captions": False}, {"hinge": "log"},
    {"hinge": "margin"}, {"hinge": "margin", "scope": "word"}, {"stop_gradient": True},
], ids=str)
def test_parts_are_those_of_the_scores(method: str, settings: dict, model, batch) -> None:
    images, tokens, roles = batch
    output = CompositionAttributionLoss(model, method, weight=3.0, margin=0.7, **settings)(*batch)
    attribution = get_method(method)(model, tokens, images)
    roles, words = (v[:, : attribution.length] for v in (roles, word_index(tokens, 49408)))
    kind = settings.get("hinge", "difference")
    rest = {name: value for name, value in settings.items() if name != "hinge"}
    parts = attribution_loss(attribution.scores, roles, Hinge(kind, 0.7, **rest), words)
    torch.testing.assert_close(output.loss.detach(), 3.0 * parts.loss)
    for name in ("objects", "composition", "n_objects", "n_composition"):
        torch.testing.assert_close(getattr(output, name), getattr(parts, name))
    if not settings:
        assert (output.n_objects.item(), output.n_composition.item()) == (8, 4)
    expected = F.normalize(model.encode_text(tokens), dim=-1)
    torch.testing.assert_close(output.text_features, expected, atol=1e-10, rtol=0)


@EVERY
def test_no_gradient_reaches_the_images(method: str, model, batch) -> None:
    images, tokens, roles = batch
    images = images.clone().requires_grad_()
    output = CompositionAttributionLoss(model, method, margin=2.0)(images, tokens, roles)
    output.loss.backward(retain_graph=True)
    assert images.grad is None
    contrastive_loss(images, output.text_features, model.logit_scale.exp()).backward()
    assert images.grad.abs().max() > 0  # the contrastive loss still trains the image tower


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
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_a_graph_the_numbers_are_the_same(method: str, mode: Any, model, batch) -> None:
    task = CompositionAttributionLoss(model, method, margin=2.0)
    training = task(*batch)
    with mode():
        silent = task(*(value.clone() for value in batch))
    assert not silent.loss.requires_grad and not silent.text_features.requires_grad
    torch.testing.assert_close(silent.loss, training.loss.detach())
    torch.testing.assert_close(silent.text_features, training.text_features.detach())


@EVERY
def test_neither_evaluation_mode_nor_the_path_changes_a_gradient(method, model, batch) -> None:
    tasks = [CompositionAttributionLoss(model, method, margin=2.0, path=path)
             for path in ("packed", "reference", "auto")]
    tasks[2].eval()
    expected, *others = (gradients(task, model, batch) for task in tasks)
    assert expected["transformer.resblocks.1.mlp.c_fc.weight"].abs().max() > 0
    for found in others:
        assert found.keys() == expected.keys()
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-8)


@pytest.mark.parametrize("place", [0, 1])
def test_a_copy_uses_the_copied_model_and_alone_the_same(place: int, model, batch) -> None:
    task = CompositionAttributionLoss(model, "gradient", margin=2.0, reduction="l1")
    alone = copy.deepcopy(copy.deepcopy(task))
    assert alone.model is model and alone.method == task.method
    torch.testing.assert_close(alone(*batch).loss, task(*batch).loss)
    parts = [model]
    parts.insert(place, task)
    step = copy.deepcopy(nn.ModuleList(parts))
    twin, other = step[place], step[1 - place]
    assert other is not model and twin.model is other
    twin(*batch).loss.backward()
    assert all(p.grad is None for p in model.parameters())
    assert other.get_parameter("transformer.resblocks.0.mlp.c_fc.weight").grad is not None


class Positions:
    """A method of somebody's own: the number of the position; knows no word of odd position."""

    reads_words = False

    def __init__(self, reads_roles: bool = False) -> None:
        self.reads_roles, self.given = reads_roles, {}

    def __call__(self, model, tokens, image_features, **options):
        self.given = options
        output = text_encoder(model).encode(tokens)
        scores = torch.arange(1.0, output.embeddings.shape[1] + 1).expand(len(tokens), -1)
        scored = (scores % 2 == 1) if self.reads_roles else None
        return Attribution(scores, output.features, scored)


@pytest.mark.parametrize("reads_roles", [False, True])
def test_a_method_can_be_an_object_and_leave_tokens_out(reads_roles: bool, model, batch) -> None:
    images, tokens, roles = batch
    method = Positions(reads_roles)
    output = CompositionAttributionLoss(model, method, complete_captions=False)(*batch)
    places = torch.arange(1.0, 78).expand(len(tokens), -1)
    used = (roles == 1) & (places % 2 == 1) if reads_roles else roles == 1
    torch.testing.assert_close(output.objects, places[used].mean())
    assert output.n_objects == used.sum()
    assert method.given.get("roles") is (roles if reads_roles else None)
    with pytest.raises(ConfigError, match="Positions"):
        CompositionAttributionLoss(model, Positions(), layers=(1,))


def test_the_model_is_not_owned_and_settings_are_printed(model) -> None:
    task = CompositionAttributionLoss(model, "gradient", weight=0.3, reduction="l1", hinge="log")
    assert not list(task.parameters()) and not task.state_dict()
    for part in ("reduction='l1'", "weight=0.3", "scope='batch'", "kind='log'", "path=auto"):
        assert part in repr(task)


@pytest.mark.parametrize(("options", "message"), [
    ({"method": "saliency"}, "attention, gradcam"),
    ({"scope": "sentence"}, "batch, caption, word"),
    ({"hinge": "ratio"}, "difference, log, margin"),
    ({"method": "gradient", "start_layer": 1}, "reduction, temperature"),
    ({"path": "fast"}, "auto, packed, reference"),
    ({"model": nn.Linear(2, 2)}, "Linear"),
], ids=str)
def test_bad_settings_are_refused_at_once(options: dict, message: str, model) -> None:
    with pytest.raises(ConfigError, match=message):
        CompositionAttributionLoss(**{"model": model} | options)


def test_shapes_must_agree(model, batch) -> None:
    images, tokens, roles = batch
    for wrong in ((images, tokens, roles[:, :20]), (images[:2], tokens, roles)):
        with pytest.raises(DataError, match="same captions"):
            CompositionAttributionLoss(model)(*wrong)
