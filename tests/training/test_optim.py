"""Parameter groups, AdamW and the schedule, against formulas written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from cae_lib.training.run import adamw, gradient_norm, learning_rate


def test_only_matrices_decay(tiny_clip):
    groups = adamw(tiny_clip.model, 0.1, 0.2).param_groups
    names = {id(p): name for name, p in tiny_clip.model.named_parameters()}
    decayed, spared = ({names[id(p)] for p in group["params"]} for group in groups)
    assert [group["weight_decay"] for group in groups] == [0.2, 0.0]
    assert decayed | spared == set(names.values()) and not decayed & spared
    assert {"token_embedding.weight", "text_projection", "visual.proj"} <= decayed
    assert "logit_scale" in spared
    assert all(name in spared for name in names.values() if "bias" in name or ".ln_" in name)


def test_two_steps_of_adamw_by_hand():
    torch.manual_seed(0)
    model = nn.Linear(2, 1).double()
    lr, decay, (b1, b2), eps = 0.1, 0.2, (0.9, 0.98), 1e-6
    optimizer = adamw(model, lr, decay, (b1, b2), eps)
    assert optimizer.defaults["fused"]
    expected = {name: p.detach().clone() for name, p in model.named_parameters()}
    moments = {name: (0.0, 0.0) for name in expected}
    for t in (1, 2):
        for name, parameter in model.named_parameters():
            g = torch.full_like(parameter, 0.5 * t)
            parameter.grad = g
            m, v = moments[name][0] * b1 + (1 - b1) * g, moments[name][1] * b2 + (1 - b2) * g * g
            moments[name] = (m, v)
            wd = decay if name == "weight" else 0.0
            step = (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + eps)
            expected[name] = expected[name] * (1 - lr * wd) - lr * step
        optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name])


def test_warm_up_then_cosine():
    rates = [learning_rate(step, steps=12, peak=2.0, warmup=4) for step in range(13)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[8] == pytest.approx(1.0) and rates[12] == pytest.approx(0.0)
    assert rates[6] == pytest.approx(1 + math.cos(math.pi / 4))
    assert all(a >= b for a, b in zip(rates[3:], rates[4:], strict=False))
    assert learning_rate(0, steps=5, peak=1.0, warmup=0) == 1.0


def test_gradient_norm_is_euclidean_and_shows_a_single_nan():
    layer = nn.Linear(2, 1)
    layer.weight.grad, layer.bias.grad = torch.tensor([[3.0, 0.0]]), torch.tensor([4.0])
    assert gradient_norm(layer).item() == pytest.approx(5.0)
    layer.weight.grad[0, 1] = math.nan
    assert math.isnan(gradient_norm(layer).item())
