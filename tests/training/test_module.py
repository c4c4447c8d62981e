"""CAELoss: what it computes and refuses, alone and in training."""

from dataclasses import dataclass
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.attribution import Attribution, AttributionMethod, Captions, get_method
from cae_lib.config import AttributionLossConfig
from cae_lib.errors import ConfigError, DataError
from cae_lib.models import packed
from cae_lib.training.losses import (
    AttributionLoss,
    CAELoss,
    attribution_loss,
    contrastive_loss,
)
from cae_lib.words.alignment import word_index

EVERY = pytest.mark.parametrize("method", ["attention", "gradcam", "perturbation", "gradient"])
PARTS = ("loss", "objects", "composition")
ACTIVE = 2.0
"""A margin with which the hinge is active."""


def step(
    task: CAELoss, batch: tuple[Tensor, ...], **autocast: Any
) -> tuple[AttributionLoss, dict[str, Tensor]]:
    """Return the output, and the gradients of all parameters of the text tower."""
    task.model.zero_grad()
    with torch.autocast("cpu", enabled=bool(autocast), **autocast):
        output = task(*batch)
    output.loss.backward()
    gradients = {name: p.grad for name, p in task.model.named_parameters() if p.grad is not None}
    return output, {name: gradient.clone() for name, gradient in gradients.items()}


@EVERY
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"scope": "caption"},
        {"scope": "word"},
        {"complete_captions": False},
        {"hinge": "log"},
        {"hinge": "margin", "scope": "word"},
        {"stop_gradient": True},
    ],
    ids=str,
)
def test_parts_are_those_of_the_scores(method: str, settings: dict, model, batch) -> None:
    images, tokens, roles = batch
    settings = settings | {"margin": 0.7}
    output = CAELoss(model, method, weight=3.0, **settings)(*batch)
    actual = get_method(method)(model, tokens, images)
    roles, words = (v[:, : actual.length] for v in (roles, word_index(tokens, 49408)))
    expected = attribution_loss(actual.scores, roles, AttributionLossConfig(**settings), words)
    torch.testing.assert_close(output.loss.detach(), 3.0 * expected.loss)
    for name in ("objects", "composition", "n_objects", "n_composition"):
        torch.testing.assert_close(getattr(output, name), getattr(expected, name))
    if settings == {"margin": 0.7}:
        assert (output.n_objects.item(), output.n_composition.item()) == (8, 4)
    features = F.normalize(model.encode_text(tokens), dim=-1)
    torch.testing.assert_close(output.text_features, features, atol=1e-10, rtol=0)


@EVERY
@pytest.mark.parametrize("path", ["packed", "reference"])
def test_whether_the_gradient_reaches_the_images_is_a_setting(method, path, model, batch) -> None:
    """Check by finite differences; without it the contrastive loss still reaches the images."""
    images, *rest = batch
    task, constant = (
        CAELoss(model, method, margin=2.0, path=path, **options)
        for options in ({}, {"image_gradient": False})
    )
    inputs = images.clone().requires_grad_()
    output = constant(inputs, *rest)
    output.loss.backward(retain_graph=True)
    assert inputs.grad is None
    contrastive_loss(inputs, output.text_features, model.logit_scale.exp()).backward()
    assert inputs.grad.abs().max() > 0
    inputs.grad = None
    actual = task(inputs, *rest).loss
    torch.testing.assert_close(actual, output.loss, rtol=1e-12, atol=0)
    actual.backward()
    if method == "attention":
        assert inputs.grad is None or not inputs.grad.any()
        return
    move = 1e-6 * inputs.grad / inputs.grad.norm()
    ahead, behind = (task(images + change, *rest).loss for change in (move, -move))
    expected = (ahead - behind).item() / (2 * 1e-6)
    assert inputs.grad.norm().item() == pytest.approx(expected, rel=1e-6)


@EVERY
def test_paths_and_modes_give_the_same_numbers(method, model, batch) -> None:
    """Also without a graph, where nothing can be differentiated."""
    tasks = [
        CAELoss(model, method, margin=ACTIVE, path=path) for path in ("packed", "reference", "auto")
    ]
    tasks[2].eval()
    (output, expected), *others = (step(task, batch) for task in tasks)
    assert expected["transformer.resblocks.1.mlp.c_fc.weight"].abs().max() > 0
    for _, actual in others:
        torch.testing.assert_close(actual, expected, atol=1e-12, rtol=1e-8)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            silent = tasks[0](*(value.clone() for value in batch))
        for name in ("loss", "text_features"):
            assert not getattr(silent, name).requires_grad
            torch.testing.assert_close(getattr(silent, name), getattr(output, name).detach())


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
    places = torch.arange(1.0, 78).expand(len(tokens), -1)
    used = (roles == 1) & (places % 2 == 1)
    torch.testing.assert_close(output.objects, places[used].mean())
    assert output.n_objects == used.sum()
    with pytest.raises(ConfigError, match="Positions"):
        CAELoss(model, Positions(), layers=(1,))


def test_the_model_is_not_registered_and_settings_are_printed(model) -> None:
    task = CAELoss(model, "gradient", weight=0.3, reduction="l1", hinge="log")
    assert not list(task.parameters())
    assert not task.state_dict()
    for part in ("reduction='l1'", "weight=0.3", "scope='batch'", "hinge='log'", "path=auto"):
        assert part in repr(task)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": float("nan")}, "weight is nan"),
        ({"weight": True}, "weight is True"),
        ({"image_gradient": 0}, "image_gradient is 0"),
        ({"hinge": "margin"}, "margin"),
        ({"method": "saliency"}, "saliency"),
        ({"path": "fast"}, "fast"),
        ({"method": "gradient", "start_layer": 1}, "start_layer"),
        ({"model": nn.Linear(2, 2)}, "Linear"),
    ],
    ids=str,
)
def test_bad_settings_are_refused_at_once(options: dict, message: str, model) -> None:
    with pytest.raises(ConfigError, match=message):
        CAELoss(**{"model": model} | options)


@EVERY
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"roles": lambda b: b["roles"][:, :20]}, r"roles \(4, 20\)"),
        ({"images": lambda b: b["images"][:2]}, r"image features \(2, 128\)"),
        ({"words": lambda b: b["words"][:1]}, r"words \(1, 77\)"),
        ({"images": lambda b: b["images"][:, None]}, r"image features \(4, 1, 128\)"),
        ({"images": lambda b: b["images"][:, :1]}, r"\(\d+, 1\) do not fit .*\(\d+, 128\)"),
        (
            {
                name: lambda b, name=name: b[name][:0]
                for name in ("images", "tokens", "roles", "words")
            },
            r"tokens \(0, 77\)",
        ),
        ({"words": lambda b: 0 * b["words"]}, "caption 0 .* role 2 and word 0 at token 2"),
        ({"words": lambda b: -b["words"]}, "caption 0 .* word -1 at token 1"),
        ({"roles": lambda b: b["roles"] * 2}, "caption 0 .* role 4 "),
        (
            {"roles": lambda b: b["roles"].roll(1, 0), "words": lambda b: None},
            "caption 1 .* word 0",
        ),
        (
            {name: lambda b, name=name: b[name][:, :4] for name in ("tokens", "roles", "words")},
            "caption 0 .*no end-of-text",
        ),
    ],
    ids=map(str, range(11)),
)
def test_what_does_not_fit_together_is_refused(method, changed, message, model, batch) -> None:
    given = dict(zip(("images", "tokens", "roles"), batch, strict=True))
    given["words"] = word_index(given["tokens"], 49408)
    CAELoss(model, method)(*given.values())
    wrong = given | {name: change(given) for name, change in changed.items()}
    with pytest.raises(DataError, match=message):
        CAELoss(model, method)(*wrong.values())


@EVERY
def test_gradient_checkpointing_changes_nothing(method, model, batch, monkeypatch) -> None:
    task = CAELoss(model, method, margin=ACTIVE)
    plain, expected = step(task, batch)
    recomputed: list[int] = []
    finish = packed.finish_block
    monkeypatch.setattr(packed, "finish_block", lambda *a: recomputed.append(1) or finish(*a))
    model.set_grad_checkpointing(True)
    output, gradients = step(task, batch)
    assert len(recomputed) > 4  # once forward in each block, again in each backward pass
    for part in PARTS:
        torch.testing.assert_close(getattr(output, part), getattr(plain, part), rtol=1e-12, atol=0)
    torch.testing.assert_close(gradients, expected, atol=1e-12, rtol=1e-9)


@EVERY
@pytest.mark.parametrize(
    ("dtype", "share", "angle", "checkpointing"),
    [
        (torch.bfloat16, 0.02, 0.996, False),
        (torch.bfloat16, 0.02, 0.996, True),
        (torch.float16, 0.005, 0.999, False),
    ],
)
def test_autocast(method, dtype, share, angle, checkpointing, model, batch) -> None:
    """Scores and loss are float32, within a share of the exact ones; gradients within 5 degrees.

    Perturbation takes differences of similarities that 16 bits have rounded: more than twice that.
    """
    batch = (batch[0].float(), *batch[1:])
    model.float().set_grad_checkpointing(checkpointing)
    task = CAELoss(model, method, margin=ACTIVE)
    exact, expected = step(task, batch)
    output, gradients = step(task, batch, dtype=dtype)
    assert output.text_features.dtype == dtype
    scale = share * max(exact.objects.abs(), exact.composition.abs())
    scale *= 2.5 if method == "perturbation" else 1
    for part in PARTS:
        assert getattr(output, part).dtype == torch.float32
        difference = (getattr(output, part) - getattr(exact, part)).abs()
        assert difference < scale + (0.01 if part == "loss" else 0), part
    actual, exact_gradient = (
        torch.cat([g[name].flatten() for name in expected]) for g in (gradients, expected)
    )
    assert actual.isfinite().all()
    assert F.cosine_similarity(actual, exact_gradient, dim=0) > angle


@EVERY
@pytest.mark.parametrize("precision", ["bf16", "pure_bf16"])
def test_model_in_half_precision(method: str, precision: str, batch) -> None:
    images, tokens, roles = batch
    model = open_clip.create_model("clip-mini", precision=precision)
    expected = model.encode_text(tokens, normalize=True)
    task = CAELoss(model, method, margin=ACTIVE)
    output, gradients = step(task, (images.bfloat16(), tokens, roles))
    assert output.loss.dtype == torch.float32
    assert output.text_features.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(output.text_features, expected, atol=0.01, rtol=0)
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@EVERY
def test_beside_compiled_modules(method: str, model, batch) -> None:
    _, tokens, roles = batch
    pictures = torch.randn(4, 3, 112, 112, dtype=torch.float64)
    task = CAELoss(model, method, margin=ACTIVE)
    expected = task(model.encode_image(pictures), tokens, roles).loss
    model.visual = torch.compile(model.visual, backend="eager")
    actual = task(model.encode_image(pictures), tokens, roles).loss
    torch.testing.assert_close(actual, expected)
    actual.backward()
    model.transformer.compile(backend="eager")
    torch.testing.assert_close(task(model.encode_image(pictures), tokens, roles).loss, expected)
