"""GradCAM's row against the rule of Chefer et al. written out for the whole T x T matrix."""

from __future__ import annotations

import pytest
import torch
from oracles import explicit_attention

from cae_lib.attribution import get_method
from cae_lib.errors import ConfigError


@pytest.mark.parametrize("start_layer", [0, 2, 3])
@pytest.mark.parametrize("temperature", [True, False])
def test_rule_written_out(start_layer, temperature, batch) -> None:
    method = get_method("gradcam", start_layer=start_layer, temperature=temperature)
    scores = method(batch.model, batch.tokens, batch.image_features).scores
    expected = batch.relevance(start_layer, temperature)
    torch.testing.assert_close(scores, expected, atol=1e-10, rtol=0)
    assert expected[:, 1].abs().max() > 1e-4  # the words' scores are not all 0


def test_defaults_are_all_layers_with_temperature(batch) -> None:
    single = batch.single()
    scores = get_method("gradcam")(single.model, single.tokens, single.image_features).scores
    double = batch.model.double()
    assert double is batch.model
    expected = batch.relevance()
    torch.testing.assert_close(scores, expected.float(), atol=1e-5, rtol=1e-5)


def test_negative_start_layer_counts_from_the_top(batch) -> None:
    arguments = (batch.model, batch.tokens, batch.image_features)
    last = get_method("gradcam", start_layer=-1)(*arguments).scores
    torch.testing.assert_close(last, get_method("gradcam", start_layer=3)(*arguments).scores)


def test_start_layer_must_exist(batch) -> None:
    with pytest.raises(ConfigError, match="start_layer=4 does not fit a tower of 4 layers"):
        get_method("gradcam", start_layer=4)(batch.model, batch.tokens, batch.image_features)


def test_without_second_order_the_gradient_is_a_constant(batch) -> None:
    method = get_method("gradcam", start_layer=3, second_order=False)
    attribution = method(
        batch.model, batch.tokens, batch.image_features, create_graph=True
    )
    weight = batch.model.transformer.resblocks[0].mlp.c_fc.weight
    (first_order,) = torch.autograd.grad(attribution.scores[:, 1].sum(), weight)
    with explicit_attention(batch.model) as maps:
        features = batch.model.encode_text(batch.tokens)
    similarity = batch.similarity(features, temperature=True)
    (constant,) = torch.autograd.grad(similarity.sum(), maps[3], retain_graph=True)
    rows = (constant * maps[3]).clamp(min=0).mean(dim=1)
    score = rows[torch.arange(4), batch.eot, 1].sum()
    (expected,) = torch.autograd.grad(score, weight)
    torch.testing.assert_close(first_order, expected, atol=1e-10, rtol=1e-8)
