"""Integrated gradients against captum's, completeness, and finite differences."""

import dataclasses
import itertools

import pytest
import torch
from captum.attr import IntegratedGradients
from oracles import Batch, assert_gradient
from torch import Tensor

from cae_lib.attribution import integrated_gradients
from cae_lib.words.alignment import word_numbers

NAME, GRAPH = "integrated_gradients", {"create_graph": True}


@pytest.fixture
def short(batch) -> Batch:
    return batch.first(3)


def captums(batch: Batch, baseline: Tensor, points: int) -> Tensor:
    embeddings = batch.model.token_embedding(batch.tokens).detach()
    options = {"n_steps": points, "method": "gausslegendre", "internal_batch_size": 3}
    return IntegratedGradients(batch.score).attribute(embeddings, baseline, **options).sum(-1)


def masked(batch: Batch) -> Tensor:
    table = batch.model.token_embedding
    words = word_numbers(batch.tokens, 49408).unsqueeze(-1) > 0
    return torch.where(words, table.weight.mean(0), table(batch.tokens)).detach()


def test_scores_are_captums(short, attribute) -> None:
    scores = attribute(short, NAME, points=40).scores
    expected = captums(short, masked(short), 40)[:, : scores.shape[1]]
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(scores, expected, atol=1e-6, rtol=0)


def test_points_of_training_are_spread_over_the_whole_line(short, attribute) -> None:
    """With one point in each of 48 parts, the error is far below that of points in one half."""
    caption = short.first(1)
    exact = attribute(caption, NAME, points=40).scores
    torch.manual_seed(0)
    scores = attribute(caption, NAME, GRAPH, training_points=48).scores.detach()
    assert (scores - exact).abs().max() < 0.02 * exact.abs().max()


def test_expected_gradients_are_unbiased(short, attribute) -> None:
    """The mean of draws against captum's mean over all baselines of words of the batch."""
    table, dog = short.model.token_embedding, short.tokens[0, :4]  # "a dog"
    exact = torch.zeros(4, dtype=torch.float64)
    for words in itertools.product(dog[1:3], repeat=2):
        tokens = short.tokens[:1].clone()
        tokens[0, 1:3] = torch.stack(words)
        exact += captums(short.first(1), table(tokens).detach(), 30)[0, :4] / 4
    n = 1500  # copies of the caption, each with a point and a baseline of its own
    many = dataclasses.replace(
        short, tokens=short.tokens[:1].expand(n, -1), image_features=short.image_features[[0] * n]
    )
    for create_graph in (False, True):
        call = {"create_graph": create_graph}
        torch.manual_seed(0)
        draws = attribute(many, NAME, call, expected=True).scores.detach()
        error = draws.std(0) / n**0.5
        assert ((draws.mean(0) - exact).abs() <= 4 * error).all()
        assert error.max() < exact.abs().max() / 5
    torch.manual_seed(0)
    assert torch.equal(attribute(many, NAME, call, expected=True).scores.detach(), draws)


@pytest.mark.parametrize("parameters", [{"training_points": 3}, {"expected": True}], ids=str)
def test_gradient_is_that_of_finite_differences(parameters, short, attribute, monkeypatch) -> None:
    """Also by the embedding of the end token, which is no word and the same in the baseline."""
    model = short.model
    mean = model.token_embedding.weight.detach().mean(0)
    monkeypatch.setattr(integrated_gradients, "mask_embedding", lambda encoder: mean)

    def score() -> Tensor:
        torch.manual_seed(1)
        return attribute(short.first(2), NAME, GRAPH, **parameters).scores[:, 2].sum()

    assert_gradient(score, model.transformer.resblocks[1].mlp.c_fc.weight)
    assert_gradient(score, model.token_embedding.weight, row=49407)


def test_the_baseline_of_expected_gradients_is_a_constant(short, attribute, monkeypatch) -> None:
    """Words of another caption that serve as the baseline alone get no gradient."""
    words = word_numbers(short.tokens, 49408) > 0
    n_first, n_words = int(words[0].sum()), int(words[:2].sum())

    def of_second_caption(high: int, size: torch.Size) -> Tensor:
        return torch.arange(size.numel()).view(size) % (n_words - n_first) + n_first

    monkeypatch.setattr(torch, "randint", of_second_caption)
    scores = attribute(short.first(2), NAME, GRAPH, expected=True).scores
    table = short.model.token_embedding.weight
    (gradient,) = torch.autograd.grad(scores[0].sum(), table)
    used = set(short.tokens[0].tolist())
    others = [token for token in short.tokens[1][words[1]].tolist() if token not in used]
    assert others and gradient[short.tokens[0, 2]].abs().max() > 0
    assert not gradient[others].any()
