"""The gradient of the attribution loss against central finite differences in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cae_lib.attribution import perturbation
from cae_lib.methods import PAPER_METHODS
from cae_lib.training.losses import CAELoss

ACTIVE = 2.0
"""A margin with which the hinge is active."""


def assert_derivative(loss: Callable[[], Tensor], model: nn.Module, step: float) -> None:
    """Check the gradients in a direction that is tilted to them, so that no derivative is near 0
    by chance."""
    generator, moved = torch.Generator().manual_seed(2), []
    for parameter in model.parameters():
        if parameter.grad is not None and parameter.grad.norm() > 0:
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            direction = noise / noise.norm() + parameter.grad / parameter.grad.norm()
            moved.append((parameter, direction))
    values = []
    with torch.no_grad():
        for move in (step, -2 * step):
            for parameter, direction in moved:
                parameter.add_(direction, alpha=move)
            values.append(loss().item())
    derivative = sum((parameter.grad * direction).sum().item() for parameter, direction in moved)
    assert derivative == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        *((method, {}) for method in PAPER_METHODS),
        ("attention", {"hinge": "log", "scope": "caption"}),
        ("gradcam", {"hinge": "margin", "scope": "word"}),
        ("perturbation", {"hinge": "log", "scope": "word"}),
        ("gradient", {"hinge": "margin"}),
        ("gradient", {"scope": "caption"}),
        ("attention", {"renormalise": True, "layers": (1, -1)}),
        ("gradcam", {"start_layer": -1, "use_temperature": False}),
        ("perturbation", {"replacement": "zero"}),
        ("perturbation", {"replacement": "token", "use_temperature": True}),
        ("perturbation", {"replacement": "random", "unit": "token"}),
        ("gradient", {"reduction": "grad_x", "use_temperature": True}),
        ("gradcam", {"train_temperature": True}),
    ],
    ids=str,
)
def test_gradients_of_all_parameters_are_those_of_finite_differences(
    method, settings, model, batch, monkeypatch
) -> None:
    mean = model.token_embedding.weight.detach().mean(dim=0)  # of a masked token: a constant
    monkeypatch.setattr(perturbation, "mask_embedding", lambda tower, mask: mean)
    log = settings.get("hinge") == "log"
    margin, step = (40.0, 1e-8) if log else (ACTIVE, 1e-6)  # steep where A is small
    task = CAELoss(model, method, margin=margin, **settings)
    if log and task(*batch).objects < 0:  # no gradient from below the floor
        batch = (-batch[0], *batch[1:])
    task(*batch).loss.backward()
    reached = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}
    assert {"transformer", "positional_embedding"} <= reached and "visual" not in reached
    temperature = model.logit_scale.grad
    is_trained = temperature is not None and bool(temperature)
    assert is_trained == ("train_temperature" in settings)
    assert_derivative(lambda: task(*batch).loss, model, step)


def test_the_mean_embedding_of_a_mask_gets_no_gradient(model, batch) -> None:
    """Words that are not in the batch move the loss through the mean alone."""
    CAELoss(model, "perturbation", margin=ACTIVE)(*batch).loss.backward()
    unused = torch.ones(49408, dtype=torch.bool)
    unused[batch[1].unique()] = False
    assert not model.token_embedding.weight.grad[unused].any()
