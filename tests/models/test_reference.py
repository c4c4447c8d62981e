"""The reference encoder of every family of models, against the models' own code and by hand."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, ROLES, WORDS, Case
from torch import Tensor

from cae_lib.models import text_encoder
from cae_lib.training.task import CompositionAttributionLoss

METHODS = ("attention", "gradcam", "gradient", "perturbation")


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest) -> Case:
    """One model, in float64."""
    torch.manual_seed(0)
    return FAMILIES[request.param]()


def _gradients(case: Case, value: Tensor) -> dict[str, Tensor]:
    """Gradients of the parameters that the value depends on."""
    case.model.zero_grad()
    value.backward()
    return {n: p.grad for n, p in case.model.named_parameters() if p.grad is not None}


def test_features_and_gradients_are_those_of_the_model(case: Case) -> None:
    encoder = text_encoder(case.model, "reference")
    found = encoder.encode(case.tokens).features
    expected = case.features(case.tokens)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(encoder.encode_many(case.tokens), expected, atol=1e-10, rtol=0)
    own, reference = (_gradients(case, case.cosine(f).sum()) for f in (expected, found))
    torch.testing.assert_close(reference, own, atol=1e-10, rtol=1e-9)
    adapters = [g for name, g in reference.items() if "lora_" in name]
    assert all(gradient.abs().max() > 1e-6 for gradient in adapters)
    assert bool(adapters) == hasattr(case.model, "peft_config")


def test_maps_are_those_written_out(case: Case) -> None:
    encoder = text_encoder(case.model, "reference")
    with case.by_hand() as expected:
        features = case.features(case.tokens)
    torch.testing.assert_close(features, case.features(case.tokens), atol=case.tolerance, rtol=0)
    output = encoder.encode(case.tokens, attention="maps")
    torch.testing.assert_close(output.features, features, atol=case.tolerance, rtol=0)
    assert len(output.attention) == len(expected) == 2
    torch.testing.assert_close(output.attention, expected, atol=case.tolerance, rtol=0)
    torch.testing.assert_close(output.readout, case.readout)
    for found in output.attention:
        torch.testing.assert_close(found.sum(-1), torch.ones_like(found[..., 0]))
    rows = encoder.encode(case.tokens, attention="row").attention
    read = [torch.einsum("bt,bhts->bhs", case.readout, m) for m in expected]
    torch.testing.assert_close(rows, read, atol=case.tolerance, rtol=0)


def _expected_scores(case: Case, method: str) -> Tensor:
    """Scores `(2, 8)`, differentiable, from maps and gradients taken by hand."""
    columns = slice(case.tokens.shape[1])
    if method == "perturbation":
        return _drops(case)
    embeddings = case.embedding(case.tokens)
    embeddings = embeddings if embeddings.requires_grad else embeddings.requires_grad_()
    with case.given(embeddings), case.by_hand() as maps:
        similarity = case.cosine(case.features(case.tokens))
    if method == "gradient":
        (slope,) = torch.autograd.grad(similarity.sum(), embeddings, create_graph=True)
        return torch.linalg.vector_norm(slope, dim=-1)
    if method == "attention":
        rows = [torch.einsum("bt,bhts->bhs", case.readout, m) for m in maps]
        return torch.cat(rows, dim=1).mean(dim=1)[:, columns]
    if getattr(case.model, "logit_scale", None) is not None:
        similarity = similarity * case.model.logit_scale.detach().exp()
    slopes = torch.autograd.grad(similarity.sum(), maps, create_graph=True)
    relevance = torch.eye(case.length, dtype=torch.float64).repeat(2, 1, 1)
    for weights, slope in zip(maps, slopes, strict=True):
        relevance = relevance + (slope * weights).clamp(min=0).mean(1) @ relevance
    return torch.einsum("bt,bts->bs", case.readout, relevance)[:, columns]


def _drops(case: Case) -> Tensor:
    """How much S falls when a word is masked, one word at a time."""
    size = 40
    mean = case.embedding(torch.arange(size)).mean(0).detach()
    whole = case.cosine(case.features(case.tokens))
    scores = torch.zeros(WORDS.shape, dtype=torch.float64)
    for row in range(2):
        for word in range(1, int(WORDS[row].max()) + 1):
            inside = WORDS == torch.where(torch.arange(2) == row, word, -1)[:, None]
            embeddings = torch.where(inside[..., None], mean, case.embedding(case.tokens))
            with case.given(embeddings):
                masked = case.cosine(case.features(case.tokens))
            scores = scores + inside * (whole - masked)[:, None]
    return scores


@pytest.mark.parametrize("method", METHODS)
def test_scores_and_loss_are_those_written_out(case: Case, method: str) -> None:
    expected = _expected_scores(case, method)
    assert (expected * (WORDS > 0)).abs().amax(dim=1).min() > 1e-6
    task = CompositionAttributionLoss(case.model, method, 0.7, margin=50.0, path="reference")
    attribution = task.method(
        text_encoder(case.model, "reference"), case.tokens, case.images, words=WORDS
    )
    torch.testing.assert_close(
        attribution.scores, expected.detach(), atol=case.tolerance, rtol=1e-8
    )
    output = task(case.images, case.tokens, ROLES, WORDS)
    lead = expected[ROLES == 1].mean() - expected[ROLES >= 2].mean()
    torch.testing.assert_close(output.loss, 0.7 * (lead + 50), atol=case.tolerance, rtol=1e-8)
    wanted, found = _gradients(case, 0.7 * lead), _gradients(case, output.loss)
    wanted = {name: g for name, g in wanted.items() if g.abs().max() > 1e-12}
    found = {name: g for name, g in found.items() if g.abs().max() > 1e-12}
    scale = max(g.abs().max() for g in wanted.values())
    assert wanted.keys() <= found.keys()
    for name, gradient in found.items():
        other = wanted.get(name, torch.zeros_like(gradient))
        torch.testing.assert_close(
            gradient / scale, other / scale, atol=case.tolerance, rtol=1e-7, msg=name
        )
