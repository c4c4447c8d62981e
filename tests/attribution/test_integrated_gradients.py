"""Integrated gradients against captum's, completeness, and finite differences."""

from __future__ import annotations

import pytest
import torch
from captum.attr import IntegratedGradients

from cae_lib.attribution import get_method
from cae_lib.attribution.grouping import word_index
from cae_lib.errors import ConfigError


@pytest.fixture
def short(batch):
    """Three captions."""
    return batch.first(3)


def _baseline(batch) -> torch.Tensor:
    table = batch.model.token_embedding
    words = word_index(batch.tokens, 49408).unsqueeze(-1) > 0
    return torch.where(words, table.weight.mean(0), table(batch.tokens)).detach()


def test_scores_are_captums(short) -> None:
    scores = get_method("integrated_gradients", points=40)(
        short.model, short.tokens, short.image_features
    ).scores
    embeddings = short.model.token_embedding(short.tokens).detach()
    expected = IntegratedGradients(short.score).attribute(
        embeddings, _baseline(short), n_steps=40, method="gausslegendre", internal_batch_size=3
    )
    expected = expected.sum(-1)[:, : scores.shape[1]]
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(scores, expected, atol=1e-6, rtol=0)


def test_scores_sum_to_the_drop_of_a_caption_without_words(short) -> None:
    method = get_method("integrated_gradients", points=128)
    scores = method(short.model, short.tokens, short.image_features).scores
    with torch.no_grad():
        whole = short.score(short.model.token_embedding(short.tokens))
        drop = whole - short.score(_baseline(short))
    torch.testing.assert_close(scores.sum(1), drop, atol=1e-3, rtol=0)
    assert drop.abs().max() > 0.05


def test_training_draws_points_whose_mean_is_the_integral(short) -> None:
    arguments = (short.model, short.tokens[:1], short.image_features[:1])
    exact = get_method("integrated_gradients", points=100)(*arguments).scores
    method = get_method("integrated_gradients", training_points=4)
    torch.manual_seed(0)
    draws = [method(*arguments, create_graph=True).scores.detach() for _ in range(12)]
    assert not torch.equal(draws[0], draws[1])
    spread = torch.stack(draws).std(0).max() / 12**0.5
    torch.testing.assert_close(torch.stack(draws).mean(0), exact, atol=5 * spread.item(), rtol=0)


def test_gradient_is_that_of_finite_differences(short) -> None:
    weight = short.model.transformer.resblocks[1].mlp.c_fc.weight
    method = get_method("integrated_gradients", training_points=3)

    def score() -> torch.Tensor:
        torch.manual_seed(1)
        scores = method(
            short.model, short.tokens[:2], short.image_features[:2], create_graph=True
        ).scores
        return scores[:, 2].sum()

    (gradient,) = torch.autograd.grad(score(), weight)
    place = divmod(gradient.abs().argmax().item(), gradient.shape[1])
    step, values = 1e-4, []
    for sign in (1, -1):
        with torch.no_grad():
            weight[place] += sign * step
            values.append(score().item())
            weight[place] -= sign * step
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(gradient[place].item(), rel=1e-4)


def test_at_least_one_point() -> None:
    with pytest.raises(ConfigError, match="one point"):
        get_method("integrated_gradients", points=0)
