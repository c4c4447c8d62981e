"""The gradient of the attribution loss against central finite differences in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cae_lib.attribution import perturbation
from cae_lib.training.losses import CAELoss

PAPER_METHODS = ("attention", "gradcam", "perturbation", "gradient")
ACTIVE = 2.0
"""A margin with which the hinge is active."""


def assert_derivative(
    loss: Callable[[], Tensor], model: nn.Module, directions: dict[str, Tensor], step: float = 1e-5
) -> None:
    """Check the gradient in a direction of named parameters by finite differences."""
    values = []
    with torch.no_grad():
        for move in (step, -2 * step, step):
            for name, direction in directions.items():
                model.get_parameter(name).add_(direction, alpha=move)
            values.append(loss().item())
    expected = (values[0] - values[1]) / (2 * step)
    actual = sum((model.get_parameter(n).grad * d).sum().item() for n, d in directions.items())
    assert actual == pytest.approx(expected, rel=1e-5)


def random_directions(model: nn.Module, names: list[str]) -> dict[str, Tensor]:
    """Return unit directions, tilted to the gradient so that no derivative is near 0 by chance."""
    generator = torch.Generator().manual_seed(2)
    directions = {}
    for name in names:
        gradient = model.get_parameter(name).grad
        noise = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
        directions[name] = noise / noise.norm() + gradient / gradient.norm()
    return directions


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, model: nn.Module) -> None:
    """Keep the vector of a masked token, whatever happens to the embedding table."""
    mean = model.token_embedding.weight.detach().mean(dim=0)
    monkeypatch.setattr(perturbation, "mask_embedding", lambda tower, mask: mean)


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
    method, settings, model, batch, held
) -> None:
    log = settings.get("hinge") == "log"
    margin, step = (40.0, 1e-8) if log else (ACTIVE, 1e-6)  # steep where A is small
    task = CAELoss(model, method, margin=margin, **settings)
    if log and task(*batch).objects < 0:  # no gradient from below the floor
        batch = (-batch[0], *batch[1:])
    task(*batch).loss.backward()
    text = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.norm() > 0
    ]
    assert {name.split(".")[0] for name in text} >= {"transformer", "positional_embedding"}
    assert not any(name.startswith("visual") for name in text)
    assert ("logit_scale" in text) == ("train_temperature" in settings)
    directions = random_directions(model, text)
    assert_derivative(lambda: task(*batch).loss, model, directions, step)


def test_the_mean_embedding_of_a_mask_gets_no_gradient(model, batch) -> None:
    """Words that are not in the batch move the loss through the mean alone."""
    CAELoss(model, "perturbation", margin=ACTIVE)(*batch).loss.backward()
    unused = torch.ones(49408, dtype=torch.bool)
    unused[batch[1].unique()] = False
    assert not model.token_embedding.weight.grad[unused].any()
