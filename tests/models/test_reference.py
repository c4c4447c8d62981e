"""The reference encoder of every family of models, against the models' own code and by hand."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, ROLES, WORDS, Case, clip
from open_clip.hf_model import MaxPooler
from torch import Tensor, nn

from cae_lib.attribution import get_method
from cae_lib.errors import ConfigError
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


def test_given_embeddings_are_used_and_left_as_they_are(case: Case) -> None:
    encoder = text_encoder(case.model, "reference")
    embeddings = encoder.embed(case.tokens).detach()
    torch.testing.assert_close(embeddings, case.embedding(case.tokens).detach())
    other = embeddings.flip(0)
    with case.given(other):
        expected = case.features(case.tokens)
    found = encoder.encode(case.tokens, embeddings=other)
    torch.testing.assert_close(found.features, expected, atol=1e-10, rtol=0)
    assert found.embeddings is other and torch.equal(other, embeddings.flip(0))


@pytest.mark.parametrize("method", ["gradcam", "gradient"])
def test_frozen_models_are_scored(case: Case, method: str) -> None:
    arguments = (text_encoder(case.model, "reference"), case.tokens, case.images)
    expected = get_method(method)(*arguments).scores
    wanted = [p.requires_grad for p in case.model.parameters()]
    case.model.requires_grad_(False)
    found = get_method(method)(*arguments).scores
    for parameter, trained in zip(case.model.parameters(), wanted, strict=True):
        parameter.requires_grad_(trained)
    torch.testing.assert_close(found, expected, atol=case.tolerance, rtol=0)


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


def test_models_that_are_refused() -> None:
    model = clip()
    for wrapper in (nn.DataParallel(model), torch.compile(model, backend="eager")):
        with pytest.raises(ConfigError, match="pass model"):
            text_encoder(wrapper)
    with pytest.raises(ConfigError, match="Linear"):
        text_encoder(nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="pooled by 'none'"):
        text_encoder(clip(pool_type="none"))
    with pytest.raises(ConfigError, match="expected auto, packed, reference"):
        text_encoder(model, "fast")


def test_pooling_that_reads_no_position() -> None:
    case = FAMILIES["bert"]()
    case.model.text.pooler = MaxPooler()
    with pytest.raises(ConfigError, match="MaxPooler"):
        text_encoder(case.model)


def test_prompts_are_refused_and_adapters_are_found_in_their_wrapper() -> None:
    peft = pytest.importorskip("peft")
    case = FAMILIES["LoRA, MLP"]()
    inner = case.model.get_base_model()
    assert text_encoder(case.model).model is inner
    torch.testing.assert_close(
        text_encoder(inner).encode(case.tokens).features, case.features(case.tokens)
    )
    with case.model.disable_adapter():
        plain = text_encoder(case.model).encode(case.tokens).features
        torch.testing.assert_close(plain, case.features(case.tokens))
    assert (plain - case.features(case.tokens)).abs().max() > 1e-3
    case.model.peft_config["default"] = peft.PromptTuningConfig(num_virtual_tokens=2)
    with pytest.raises(ConfigError, match="prompt learning"):
        text_encoder(case.model)
