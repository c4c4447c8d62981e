"""The gradient method against captum at the embedding layer."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerGradientXActivation, Saliency
from torch import Tensor

from cae_lib.attribution import get_method


def _saliency(batch, temperature: bool = False) -> Tensor:
    """dS/dx `(B, 77, D)` by captum, through open_clip's own encoder."""
    embedding = batch.model.token_embedding

    def score(embeddings: Tensor) -> Tensor:
        hook = embedding.register_forward_hook(lambda module, inputs, output: embeddings)
        features = batch.model.encode_text(batch.tokens)
        hook.remove()
        return batch.similarity(features, temperature)

    inputs = embedding(batch.tokens).detach().requires_grad_()
    return Saliency(score).attribute(inputs, abs=False)


@pytest.mark.parametrize("temperature", [False, True])
def test_l2_norm(temperature: bool, batch) -> None:
    method = get_method("gradient", temperature=temperature)
    scores = method(batch.model, batch.tokens, batch.image_features).scores
    expected = _saliency(batch, temperature).square().sum(-1).sqrt()
    torch.testing.assert_close(scores, expected, atol=1e-10, rtol=0)
    assert scores[:, 1].min() > 1e-4


def test_l2_norm_in_float32(batch) -> None:
    expected = _saliency(batch).square().sum(-1).sqrt()
    single = batch.single()
    scores = get_method("gradient")(single.model, single.tokens, single.image_features).scores
    torch.testing.assert_close(scores, expected.float(), atol=1e-5, rtol=0)


def test_l1_norm(batch) -> None:
    method = get_method("gradient", reduction="l1")
    scores = method(batch.model, batch.tokens, batch.image_features).scores
    torch.testing.assert_close(scores, _saliency(batch).abs().sum(-1), atol=1e-10, rtol=0)


@pytest.mark.parametrize("reduction", ["grad_x", "abs_grad_x"])
def test_gradient_times_embedding(reduction: str, batch) -> None:
    def score(tokens: Tensor) -> Tensor:
        return batch.similarity(batch.model.encode_text(tokens))

    layer = LayerGradientXActivation(score, batch.model.token_embedding)
    expected = layer.attribute(batch.tokens).sum(-1).detach()
    method = get_method("gradient", reduction=reduction)
    scores = method(batch.model, batch.tokens, batch.image_features).scores
    if reduction == "abs_grad_x":
        expected = expected.abs()
    else:
        assert expected.min() < 0 < expected.max()
    torch.testing.assert_close(scores, expected, atol=1e-10, rtol=0)
