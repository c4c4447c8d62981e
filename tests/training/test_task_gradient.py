"""The gradient of the attribution loss against central finite differences in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cae_lib.attribution import perturbation
from cae_lib.training.losses import HINGES, SCOPES
from cae_lib.training.task import CompositionAttributionLoss

METHODS = ("attention", "gradcam", "perturbation", "gradient")
TABLE = "token_embedding.weight"
PARAMETERS = [
    "transformer.resblocks.0.attn.in_proj_weight", "transformer.resblocks.1.mlp.c_fc.weight",
    "transformer.resblocks.2.ln_1.weight", "positional_embedding",
]
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


@pytest.mark.parametrize(("method", "settings"), [
    *((method, {"scope": scope, "hinge": hinge})
      for method in METHODS for hinge in HINGES for scope in SCOPES
      if (hinge, scope) != ("margin", "caption")),
    ("attention", {"renormalise": True, "layers": (1, -1)}),
    ("gradcam", {"start_layer": -1, "temperature": False}),
    ("perturbation", {"replacement": "zero"}),
    ("perturbation", {"replacement": "token", "temperature": True}),
    ("perturbation", {"replacement": "random", "unit": "token"}),
    ("gradient", {"reduction": "grad_x", "temperature": True}),
    ("gradcam", {"train_temperature": True}),
], ids=str)
def test_all_parameters_at_once(method, settings, model, batch, monkeypatch) -> None:
    _hold_stand_in(monkeypatch, model)
    log = settings.get("hinge") == "log"
    margin, step = (40.0, 1e-8) if log else (ACTIVE, 1e-6)  # steep where A is small
    task = CompositionAttributionLoss(model, method, margin=margin, **settings)
    if log and task(*batch).objects < 0:  # no gradient from below the floor
        batch = (-batch[0], *batch[1:])
    task(*batch).loss.backward()
    text = [name for name, parameter in model.named_parameters()
            if parameter.grad is not None and parameter.grad.norm() > 0]
    assert {name.split(".")[0] for name in text} >= {"transformer", "positional_embedding"}
    assert not any(name.startswith("visual") for name in text)
    assert ("logit_scale" in text) == ("train_temperature" in settings)
    directions = _random_directions(model, text)
    expected = _central_difference(lambda: task(*batch).loss, model, directions, step)
    assert _derivative(model, directions) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_objects_held_fixed(method: str, model, batch, monkeypatch) -> None:
    """With `stop_gradient` the gradient is that of the loss with A_obj as a number."""
    _hold_stand_in(monkeypatch, model)
    task = CompositionAttributionLoss(model, method, margin=ACTIVE, stop_gradient=True)
    output = task(*batch)
    output.loss.backward()
    directions = _random_directions(model, PARAMETERS)
    expected = _central_difference(
        lambda: output.objects - task(*batch).composition + ACTIVE, model, directions
    )
    assert _derivative(model, directions) == pytest.approx(expected, rel=1e-5)


def test_the_mean_embedding_is_a_constant(model, batch) -> None:
    """Backward ignores that the table decides the stand-in, a difference of losses does not."""
    task = CompositionAttributionLoss(model, "perturbation", margin=ACTIVE)
    task(*batch).loss.backward()
    others = _random_directions(model, PARAMETERS)
    expected = _central_difference(lambda: task(*batch).loss, model, others)
    assert _derivative(model, others) == pytest.approx(expected, rel=1e-5)
    unused = torch.ones(len(model.token_embedding.weight), 1, dtype=torch.float64)
    unused[batch[1].unique()] = 0
    shift = {TABLE: unused * torch.randn(96, generator=torch.Generator().manual_seed(3)).double()}
    assert _derivative(model, shift) == 0
    moved = _central_difference(lambda: task(*batch).loss, model, shift)
    assert abs(moved) > 1e-6  # words that are not in the batch do move the loss, through the mean
