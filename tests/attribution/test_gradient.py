"""The gradient method against captum at the embedding layer."""

from __future__ import annotations

import pytest
import torch

from cae_lib.attribution import get_method


@pytest.mark.parametrize("temperature", [False, True])
def test_l2_norm(temperature: bool, batch) -> None:
    method = get_method("gradient", temperature=temperature)
    scores = method(batch.model, batch.tokens, batch.image_features).scores
    expected = batch.saliency(temperature).square().sum(-1).sqrt()
    torch.testing.assert_close(scores, expected, atol=1e-10, rtol=0)
    assert scores[:, 1].min() > 1e-4


def test_l2_norm_in_float32(batch) -> None:
    expected = batch.saliency().square().sum(-1).sqrt()
    single = batch.single()
    scores = get_method("gradient")(single.model, single.tokens, single.image_features).scores
    torch.testing.assert_close(scores, expected.float(), atol=1e-5, rtol=0)


def test_l1_norm(batch) -> None:
    method = get_method("gradient", reduction="l1")
    scores = method(batch.model, batch.tokens, batch.image_features).scores
    torch.testing.assert_close(scores, batch.saliency().abs().sum(-1), atol=1e-10, rtol=0)


@pytest.mark.parametrize("reduction", ["grad_x", "abs_grad_x"])
def test_gradient_times_embedding(reduction: str, batch) -> None:
    expected = batch.gradient_times_embedding()
    method = get_method("gradient", reduction=reduction)
    scores = method(batch.model, batch.tokens, batch.image_features).scores
    if reduction == "abs_grad_x":
        expected = expected.abs()
    else:
        assert expected.min() < 0 < expected.max()
    torch.testing.assert_close(scores, expected, atol=1e-10, rtol=0)
