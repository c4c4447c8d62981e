"""Recording attention: exact in every way of running a model, and without a trace afterwards."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from families import MODEL_FAMILIES, ROLES, WORDS, Case
from torch import Tensor, nn

from cae_lib.attribution import get_method
from cae_lib.models import text_encoder
from cae_lib.models.recording import record_attention
from cae_lib.training.losses import CAELoss

FUSED = F.scaled_dot_product_attention
TOWERS = ("bidirectional", "Hugging Face CLIP, eager", "bert")


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Check after every test that the patches of a recording are gone."""
    yield
    assert F.scaled_dot_product_attention is FUSED
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.fixture(params=TOWERS)
def case(request: pytest.FixtureRequest) -> Case:
    """Return a model that only the reference encoder encodes."""
    return MODEL_FAMILIES[request.param]()


def _scores(case: Case, method: str) -> Tensor:
    encoder = text_encoder(case.model, "reference")
    return get_method(method)(encoder, case.tokens, case.images, words=WORDS).scores


def _loss(case: Case, method: str) -> list[Tensor]:
    """Return the loss and the gradients of the text tower."""
    case.model.zero_grad()
    task = CAELoss(case.model, method, margin=9.0, implementation="reference")
    output = task(case.images, case.tokens.clone(), ROLES, WORDS)
    loss = output.loss + case.cosine(output.text_features).sum()
    if loss.requires_grad:
        loss.backward()
    return [loss.detach(), *(p.grad for p in case.model.parameters() if p.grad is not None)]


@contextlib.contextmanager
def _checkpointed(case: Case) -> Iterator[None]:
    if hasattr(case.model, "gradient_checkpointing_enable"):
        case.model.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        case.model.set_grad_checkpointing(True)
    yield


OPTIONS = [{}, {"is_causal": True}, {"scale": 0.3}, {"enable_gqa": True}]
OPTIONS += [{"attn_mask": torch.ones(5, 5, dtype=torch.bool).tril()}]
OPTIONS += [{"attn_mask": torch.randn(2, 1, 5, 5).double()}]


@pytest.mark.parametrize("options", OPTIONS)
def test_explicit_attention_is_that_of_torch(options: dict[str, Any]) -> None:
    q, k, v = torch.randn(3, 2, 4, 5, 8, dtype=torch.float64, requires_grad=True)
    if "enable_gqa" in options:
        k, v = k[:, :2], v[:, :2]
    expected = FUSED(q, k, v, **options)
    with record_attention(nn.Identity()) as maps:
        explicit = F.scaled_dot_product_attention(q, k, v, **options)
        dropped = F.scaled_dot_product_attention(q, k, v, dropout_p=0.5, **options)
    torch.testing.assert_close(explicit, expected, atol=1e-12, rtol=0)
    assert torch.equal(*maps) and not torch.allclose(dropped, explicit)
    torch.testing.assert_close(maps[0].sum(-1), torch.ones(2, 4, 5).double())
    assert torch.autograd.grad(explicit.sum(), maps[0])[0].abs().max() > 0


def _state(tower: nn.Module) -> list[tuple[Any, ...]]:
    """Return hooks, switches and the kind of attention of each module of a tower."""
    return [
        (
            len(m._forward_hooks),
            vars(m).get("grad_checkpointing"),
            vars(m).get("gradient_checkpointing"),
            getattr(getattr(m, "config", None), "_attn_implementation", None),
        )
        for m in tower.modules()
    ]


def test_nothing_is_left_behind_by_an_error(case: Case) -> None:
    encoder = text_encoder(case.model, "reference")
    tower = encoder.interface.tower
    with _checkpointed(case):
        before = _state(tower)
    with record_attention(tower):
        assert _state(tower) != before
    assert _state(tower) == before
    with pytest.raises(IndexError):
        encoder.encode(case.tokens + 99, attention="row")
    assert _state(tower) == before


@contextlib.contextmanager
def _compiled(case: Case) -> Iterator[None]:
    torch.compiler.reset()
    if hasattr(case.model, "text"):
        case.model.text = torch.compile(case.model.text, backend="eager")
    else:
        text_encoder(case.model, "reference").interface.tower.compile(backend="eager")
    features = case.features(case.tokens)  # compiled now, without hooks
    yield
    torch.testing.assert_close(case.features(case.tokens), features, atol=0, rtol=0)


WAYS: dict[str, Callable[[Case], Any]] = {
    "checkpointed": _checkpointed,
    "compiled": _compiled,
    "no_grad": lambda case: torch.no_grad(),
    "frozen": lambda case: contextlib.nullcontext(case.model.requires_grad_(False)),
}


@pytest.mark.parametrize(
    ("way", "method"), [*((way, "gradcam") for way in WAYS), ("checkpointed", "perturbation")]
)
def test_ways_of_running_change_nothing(case: Case, way: str, method: str) -> None:
    case.model.train()
    for module in case.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    expected, scores = _loss(case, method), _scores(case, method)
    with WAYS[way](case):
        actual, actual_scores = _loss(case, method), _scores(case, method)
    assert (len(actual) == 1) == (way in ("no_grad", "frozen"))  # no gradients
    torch.testing.assert_close(actual, expected[: len(actual)], atol=case.tolerance, rtol=1e-9)
    torch.testing.assert_close(actual_scores, scores, atol=case.tolerance, rtol=1e-9)


@pytest.mark.parametrize("method", ["gradcam", "perturbation"])
def test_autocast_leaves_maps_scores_and_loss_in_float32(case: Case, method: str) -> None:
    case.model.float()
    case.images = case.images.float()
    exact = _scores(case, method)
    with torch.autocast("cpu", torch.bfloat16):
        scores, (loss, *gradients) = _scores(case, method), _loss(case, method)
        output = text_encoder(case.model, "reference").encode(case.tokens, attention="maps")
        assert output.features.dtype == case.features(case.tokens).dtype
    assert {x.dtype for x in (scores, loss, *output.attention)} == {torch.float32}
    torch.testing.assert_close(scores, exact, atol=0.05 * float(exact.abs().max()), rtol=0.2)
    assert all(gradient.isfinite().all() for gradient in gradients)
