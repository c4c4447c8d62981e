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
    task: CompositionAttributionLoss, model: nn.Module, batch: tuple[Tensor, ...], **autocast
) -> tuple[CompositionAttributionOutput, dict[str, Tensor]]:
    """The output, and the gradients of all parameters of the text tower."""
    model.zero_grad()
    with torch.autocast("cpu", enabled=bool(autocast), **autocast):
        output = task(*batch)
    output.loss.backward()
    return output, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@EVERY
def test_gradient_checkpointing_changes_nothing(method, model, batch, monkeypatch) -> None:
    task = CompositionAttributionLoss(model, method, margin=ACTIVE)
    plain, expected = _step(task, model, batch)
    recomputed: list[int] = []
    finish = packed.finish_block
    monkeypatch.setattr(packed, "finish_block", lambda *a: recomputed.append(1) or finish(*a))
    model.set_grad_checkpointing(True)
    output, gradients = _step(task, model, batch)
    assert len(recomputed) > 4  # once forward in each block, again in each backward pass
    for part in PARTS:
        torch.testing.assert_close(getattr(output, part), getattr(plain, part), rtol=1e-12, atol=0)
    torch.testing.assert_close(gradients, expected, atol=1e-12, rtol=1e-9)


@EVERY
@pytest.mark.parametrize(("dtype", "share", "angle", "checkpointing"), [
    (torch.bfloat16, 0.02, 0.996, False), (torch.bfloat16, 0.02, 0.996, True),
    (torch.float16, 0.005, 0.999, False),
])
def test_autocast(method, dtype, share, angle, checkpointing, model, batch) -> None:
    """Scores and loss in float32 within a share of the exact ones, gradients within 5 degrees.

    Perturbation takes differences of similarities that 16 bits have rounded: more than twice that.
    """
    batch = (batch[0].float(), *batch[1:])
    model.float().set_grad_checkpointing(checkpointing)
    task = CompositionAttributionLoss(model, method, margin=ACTIVE)
    exact, expected = _step(task, model, batch)
    output, gradients = _step(task, model, batch, dtype=dtype)
    assert output.text_features.dtype == dtype
    scale = share * max(exact.objects.abs(), exact.composition.abs())
    scale *= 2.5 if method == "perturbation" else 1
    for part in PARTS:
        assert getattr(output, part).dtype == torch.float32
        difference = (getattr(output, part) - getattr(exact, part)).abs()
        assert difference < scale + (0.01 if part == "loss" else 0), part
    found, wanted = (torch.cat([g[name].flatten() for name in expected])
                     for g in (gradients, expected))
    assert found.isfinite().all() and F.cosine_similarity(found, wanted, dim=0) > angle


@EVERY
@pytest.mark.parametrize("precision", ["bf16", "pure_bf16"])
def test_model_in_half_precision(method: str, precision: str, batch) -> None:
    images, tokens, roles = batch
    model = open_clip.create_model("clip-mini", precision=precision)
    expected = model.encode_text(tokens, normalize=True)
    task = CompositionAttributionLoss(model, method, margin=ACTIVE)
    output, gradients = _step(task, model, (images.bfloat16(), tokens, roles))
    assert output.loss.dtype == torch.float32
    assert output.text_features.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(output.text_features, expected, atol=0.01, rtol=0)
    assert gradients and all(gradient.isfinite().all() for gradient in gradients.values())


@EVERY
def test_beside_compiled_modules(method: str, model, batch) -> None:
    images, tokens, roles = batch
    pictures = torch.randn(4, 3, 112, 112, dtype=torch.float64)
    task = CompositionAttributionLoss(model, method, margin=ACTIVE)
    expected = task(model.encode_image(pictures), tokens, roles).loss
    model.visual = torch.compile(model.visual, backend="eager")
    found = task(model.encode_image(pictures), tokens, roles).loss
    torch.testing.assert_close(found, expected)
    found.backward()
    model.transformer.compile(backend="eager")
    torch.testing.assert_close(task(model.encode_image(pictures), tokens, roles).loss, expected)
