"""What all attribution methods have in common, and which settings they refuse."""

import pytest
import torch

from cae_lib.errors import ConfigError
from cae_lib.models import packed

EVERY = pytest.mark.parametrize("name", ["attention", "gradcam", "perturbation", "gradient"])
GRAPH = {"create_graph": True}


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("rollout", {}, "attention, gradcam, perturbation, gradient"),
        ("gradcam", {"depth": 2}, "start_layer, second_order"),
        ("counterfactual", {"samples": 0}, "samples is 0"),
        ("gradcam", {"use_temperature": False, "train_temperature": True}, "needs use_temperature"),
        ("gradcam", {"second_order": False, "train_temperature": True}, "needs .* second_order"),
        ("gradcam", {"start_layer": 4}, "start_layer=4"),
        ("attention", {"layers": (-5,)}, "4 layers"),
    ],
)
def test_bad_settings_are_refused(name, parameters, message, batch, attribute) -> None:
    with pytest.raises(ConfigError, match=message):
        attribute(batch, name, **parameters)


@EVERY
def test_shapes_features_graph_and_a_frozen_model(name: str, batch, attribute) -> None:
    actual, trained = attribute(batch, name), attribute(batch, name, GRAPH)
    assert actual.scores.shape == (4, 77)
    expected = batch.model.encode_text(batch.tokens)
    torch.testing.assert_close(actual.text_features, expected.detach(), atol=1e-10, rtol=0)
    assert actual.scores[torch.arange(77) > batch.eot[:, None]].abs().max() == 0
    assert not actual.scores.requires_grad and not actual.text_features.requires_grad
    torch.testing.assert_close(trained.scores.detach(), actual.scores, atol=1e-12, rtol=0)
    assert trained.scores.requires_grad and trained.text_features.requires_grad
    batch.model.requires_grad_(False)
    with torch.no_grad():
        torch.testing.assert_close(attribute(batch, name).scores, actual.scores)


@EVERY
def test_training_with_the_fused_kernel(name: str, batch, attribute, monkeypatch) -> None:
    """Use the fused kernel wherever one derivative is enough, as on a GPU."""
    weight = batch.model.transformer.resblocks[0].attn.in_proj_weight
    gradients = []
    for fused in (False, True):
        monkeypatch.setattr(packed, "_fused_is_faster", lambda device, fused=fused: fused)
        scores = attribute(batch, name, GRAPH).scores
        gradients += torch.autograd.grad(scores[:, 1].sum(), weight)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-10, rtol=1e-7)
