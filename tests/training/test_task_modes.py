"""The attribution loss in the modes of real training: checkpointing, autocast, half precision."""

from __future__ import annotations

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.models import packed
from cae_lib.training.task import CompositionAttributionLoss, CompositionAttributionOutput

EVERY = pytest.mark.parametrize("method", ["attention", "gradcam", "perturbation", "gradient"])
PARTS = ("loss", "objects", "composition")
ACTIVE = 2.0


def _step(
    task: CompositionAttributionLoss, model: nn.Module, batch: tuple[Tensor, ...]
) -> tuple[CompositionAttributionOutput, dict[str, Tensor]]:
    """The output, and the gradients of all parameters of the text tower."""
    model.zero_grad()
    output = task(*batch)
    output.loss.backward()
    return output, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@EVERY
def test_gradient_checkpointing_changes_nothing(
    method: str, model, batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = CompositionAttributionLoss(model, method, margin=ACTIVE)
    plain, expected = _step(task, model, batch)
    recomputed: list[int] = []
    finish = packed.finish_block

    def counted(block: nn.Module, x: Tensor, merged: Tensor) -> Tensor:
        recomputed.append(1)
        return finish(block, x, merged)

    monkeypatch.setattr(packed, "finish_block", counted)
    model.set_grad_checkpointing(True)
    output, gradients = _step(task, model, batch)
    assert len(recomputed) > 4  # once forward in each block, again in each backward pass
    for part in PARTS:
        torch.testing.assert_close(getattr(output, part), getattr(plain, part), rtol=1e-12, atol=0)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-12, rtol=1e-9)


@EVERY
@pytest.mark.parametrize("checkpointing", [False, True])
def test_autocast(method: str, checkpointing: bool, model, batch) -> None:
    """Scores and loss in float32; within 2 % of the exact ones, gradients within 5 degrees.

    Perturbation takes differences of similarities that 16 bits have rounded: 5 %.
    """
    images, tokens, roles = batch
    batch = (images.float(), tokens, roles)
    model.float().set_grad_checkpointing(checkpointing)
    task = CompositionAttributionLoss(model, method, margin=ACTIVE)
    exact, expected = _step(task, model, batch)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        output = task(*batch)
        attribution = task.method(model, tokens, batch[0], create_graph=True)
    output.loss.backward()
    assert attribution.scores.dtype == torch.float32
    assert output.text_features.dtype == torch.bfloat16
    share = 0.05 if method == "perturbation" else 0.02
    scale = share * max(exact.objects.abs(), exact.composition.abs())
    for part in PARTS:
        assert getattr(output, part).dtype == torch.float32
        difference = (getattr(output, part) - getattr(exact, part)).abs()
        assert difference < scale + (0.01 if part == "loss" else 0), part
    found = torch.cat([model.get_parameter(name).grad.flatten() for name in expected])
    wanted = torch.cat([gradient.flatten() for gradient in expected.values()])
    assert found.isfinite().all()
    assert F.cosine_similarity(found, wanted, dim=0) > 0.996


@EVERY
@pytest.mark.parametrize("precision", ["bf16", "pure_bf16"])
def test_model_in_half_precision(method: str, precision: str, batch) -> None:
    images, tokens, roles = batch
    model = open_clip.create_model("clip-mini", precision=precision)
    expected = model.encode_text(tokens, normalize=True)
    output = CompositionAttributionLoss(model, method, margin=ACTIVE)(
        images.bfloat16(), tokens, roles
    )
    assert output.loss.dtype == torch.float32
    assert output.text_features.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(output.text_features, expected, atol=0.01, rtol=0)
    output.loss.backward()
    gradients = [p.grad for p in model.transformer.parameters() if p.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)


@EVERY
def test_fp16_autocast(method: str, model, batch) -> None:
    images, tokens, roles = batch
    model.float()
    task = CompositionAttributionLoss(model, method, margin=ACTIVE)
    exact, expected = _step(task, model, (images.float(), tokens, roles))
    model.zero_grad()
    with torch.autocast("cpu", torch.float16):
        output = task(images.float(), tokens, roles)
    output.loss.backward()
    assert output.loss.dtype == torch.float32
    torch.testing.assert_close(output.loss, exact.loss, rtol=0.02, atol=0)
    found = torch.cat([model.get_parameter(name).grad.flatten() for name in expected])
    wanted = torch.cat([gradient.flatten() for gradient in expected.values()])
    assert found.isfinite().all() and F.cosine_similarity(found, wanted, dim=0) > 0.999


@EVERY
def test_beside_a_compiled_image_tower(method: str, model, batch) -> None:
    images, tokens, roles = batch
    pictures = torch.randn(4, 3, 112, 112, dtype=torch.float64)
    task = CompositionAttributionLoss(model, method, margin=ACTIVE)
    expected = task(model.encode_image(pictures), tokens, roles).loss
    model.visual = torch.compile(model.visual, backend="eager")
    found = task(model.encode_image(pictures), tokens, roles).loss
    torch.testing.assert_close(found, expected)
    found.backward()


@EVERY
def test_a_module_compiled_in_place(method: str, model, batch) -> None:
    task = CompositionAttributionLoss(model, method, margin=ACTIVE)
    expected = task(*batch).loss
    model.transformer.compile(backend="eager")
    torch.testing.assert_close(task(*batch).loss, expected)
