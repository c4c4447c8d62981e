"""The gradient of the attribution loss against central finite differences in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cae_lib.attribution import perturbation
from cae_lib.training.losses import HINGES
from cae_lib.training.task import CompositionAttributionLoss

EVERY = pytest.mark.parametrize("method", ["attention", "gradcam", "perturbation", "gradient"])
LAYERS = "transformer.resblocks."
TABLE = "token_embedding.weight"
PARAMETERS = (
    LAYERS + "0.attn.in_proj_weight",
    LAYERS + "1.mlp.c_fc.weight",
    LAYERS + "2.ln_1.weight",
    LAYERS + "3.attn.in_proj_weight",
    "positional_embedding",
    TABLE,
)
ACTIVE = 2.0
"""A margin with which the hinge is active."""

Directions = dict[str, Tensor]


def _central_difference(
    loss: Callable[[], Tensor], model: nn.Module, directions: Directions, step: float = 1e-5
) -> float:
    """Change of the loss along directions in named parameters, per unit."""
    values = []
    with torch.no_grad():
        for sign in (1, -1):
            for name, direction in directions.items():
                model.get_parameter(name).add_(direction, alpha=sign * step)
            values.append(loss().item())
            for name, direction in directions.items():
                model.get_parameter(name).sub_(direction, alpha=sign * step)
    return (values[0] - values[1]) / (2 * step)


def _random_directions(model: nn.Module, names: list[str]) -> Directions:
    """Unit directions, leaned towards the gradient so that no derivative is near 0 by chance."""
    generator = torch.Generator().manual_seed(2)
    directions = {}
    for name in names:
        gradient = model.get_parameter(name).grad
        noise = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
        directions[name] = noise / noise.norm() + gradient / gradient.norm()
    return directions


def _derivative(model: nn.Module, directions: Directions) -> float:
    """What backward says about the same."""
    return sum((model.get_parameter(n).grad * d).sum().item() for n, d in directions.items())


def _hold_stand_in(monkeypatch: pytest.MonkeyPatch, model: nn.Module) -> None:
    """Keep the vector that stands in for a masked token, whatever happens to the table."""
    mean = model.token_embedding.weight.detach().mean(dim=0)
    monkeypatch.setattr(perturbation, "mask_vector", lambda tower, mask: mean)


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("attention", {}),
        ("attention", {"renormalise": True, "layers": (1, -1)}),
        ("gradcam", {}),
        ("gradcam", {"start_layer": -1, "temperature": False}),
        ("perturbation", {}),
        ("perturbation", {"replacement": "zero"}),
        ("perturbation", {"replacement": "token", "temperature": True}),
        ("perturbation", {"replacement": "random", "unit": "token"}),
        ("gradient", {}),
        ("gradient", {"reduction": "grad_x", "temperature": True}),
    ],
)
def test_single_parameters(method: str, parameters: dict, model, batch, monkeypatch) -> None:
    _hold_stand_in(monkeypatch, model)
    task = CompositionAttributionLoss(model, method, margin=ACTIVE, **parameters)
    task(*batch).loss.backward()
    for name, direction in _random_directions(model, list(PARAMETERS)).items():
        expected = _central_difference(lambda: task(*batch).loss, model, {name: direction})
        derivative = _derivative(model, {name: direction})
        assert abs(derivative) > 1e-7
        assert derivative == pytest.approx(expected, rel=1e-5, abs=1e-11), name


@EVERY
@pytest.mark.parametrize("scope", ["batch", "caption", "word"])
@pytest.mark.parametrize("hinge", HINGES)
def test_all_parameters_at_once(method, scope, hinge, model, batch, monkeypatch) -> None:
    if (hinge, scope) == ("margin", "caption"):
        pytest.skip("not offered")
    _hold_stand_in(monkeypatch, model)
    margin, step = (40.0, 1e-8) if hinge == "log" else (ACTIVE, 1e-6)  # steep where A is small
    task = CompositionAttributionLoss(model, method, margin=margin, scope=scope, hinge=hinge)
    if hinge == "log" and task(*batch).objects < 0:  # no gradient from below the floor
        batch = (-batch[0], *batch[1:])
    task(*batch).loss.backward()
    text = [name for name, parameter in model.named_parameters()
            if parameter.grad is not None and parameter.grad.norm() > 0]
    assert {name.split(".")[0] for name in text} >= {"transformer", "positional_embedding"}
    assert not any(name.startswith("visual") for name in text)
    directions = _random_directions(model, text)
    expected = _central_difference(lambda: task(*batch).loss, model, directions, step)
    assert _derivative(model, directions) == pytest.approx(expected, rel=1e-5)


@EVERY
def test_objects_held_fixed(method: str, model, batch, monkeypatch) -> None:
    """With `stop_gradient` the gradient is that of the loss with A_obj as a number."""
    _hold_stand_in(monkeypatch, model)
    task = CompositionAttributionLoss(model, method, margin=ACTIVE, stop_gradient=True)
    output = task(*batch)
    output.loss.backward()
    directions = _random_directions(model, list(PARAMETERS[:3]))
    expected = _central_difference(
        lambda: output.objects - task(*batch).composition + ACTIVE, model, directions
    )
    assert _derivative(model, directions) == pytest.approx(expected, rel=1e-5)


def test_the_mean_embedding_is_a_constant(model, batch) -> None:
    """Backward ignores that the table decides the stand-in, a difference of losses does not."""
    task = CompositionAttributionLoss(model, "perturbation", margin=ACTIVE)
    task(*batch).loss.backward()
    others = _random_directions(model, [name for name in PARAMETERS if name != TABLE])
    expected = _central_difference(lambda: task(*batch).loss, model, others)
    assert _derivative(model, others) == pytest.approx(expected, rel=1e-5)
    unused = torch.ones(len(model.token_embedding.weight), 1, dtype=torch.float64)
    unused[batch[1].unique()] = 0
    shift = {TABLE: unused * torch.randn(96, generator=torch.Generator().manual_seed(3)).double()}
    assert _derivative(model, shift) == 0
    moved = _central_difference(lambda: task(*batch).loss, model, shift)
    assert abs(moved) > 1e-6  # words that are not in the batch do move the loss, through the mean


@EVERY
def test_inactive_hinge_moves_nothing(method: str, model, batch) -> None:
    output = CompositionAttributionLoss(model, method, margin=-1e3)(*batch)
    output.loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert output.loss == 0 and gradients
    assert all(gradient.abs().max() == 0 for gradient in gradients)


def test_temperature_reaches_the_logit_scale(model, batch) -> None:
    task = CompositionAttributionLoss(model, "gradcam", margin=ACTIVE, train_temperature=True)
    task(*batch).loss.backward()
    direction = {"logit_scale": torch.tensor(1.0, dtype=torch.float64)}
    expected = _central_difference(lambda: task(*batch).loss, model, direction)
    assert model.logit_scale.grad.item() == pytest.approx(expected, rel=1e-5)
    model.zero_grad()
    CompositionAttributionLoss(model, "gradient", margin=ACTIVE)(*batch).loss.backward()
    assert model.logit_scale.grad is None
