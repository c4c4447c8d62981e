"""The losses on numbers worked out by hand."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cae_lib.errors import ConfigError
from cae_lib.training.losses import (
    HINGES,
    SCOPES,
    AttributionLoss,
    Hinge,
    attribution_loss,
    caption_sums,
    contrastive_loss,
    hinge_of_sums,
)

# Two captions of four tokens. Roles: 0 other, 1 object, 2 attribute, 3 relation.
ROLES = torch.tensor([[0, 1, 1, 2], [3, 1, 0, 0]], dtype=torch.int8)
SCORES = torch.tensor([[0.5, 0.4, 0.2, 0.1], [0.3, 0.6, 0.9, 0.9]], dtype=torch.double)
WORDS = torch.tensor([[1, 2, 2, 3], [1, 2, 3, 3]])
OFFERED = [
    Hinge(kind, 2.0, scope, stop, complete)
    for kind, scope, stop, complete in itertools.product(HINGES, SCOPES, *[(False, True)] * 2)
    if kind != "margin" or (scope != "caption" and not stop)
]


def loss_of(scores: Tensor, hinge: Hinge, roles: Tensor = ROLES) -> AttributionLoss:
    return attribution_loss(scores, roles, hinge, WORDS)


@pytest.mark.parametrize("negative", [False, True])
def test_contrastive_loss_of_two_pairs(negative: bool) -> None:
    """A false caption is an extra column of the images only."""
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    false = torch.tensor([[0.8, 0.6]]) if negative else None
    # logits at scale 2: [[2, 1.2 | 1.6], [0, 1.6 | 1.2]]
    other = math.exp(-0.4) if negative else 0
    rows = (math.log(1 + math.exp(-0.8) + other) + math.log(1 + math.exp(-1.6) + other)) / 2
    columns = (math.log(1 + math.exp(-2.0)) + math.log(1 + math.exp(-0.4))) / 2
    loss = contrastive_loss(images, texts, torch.tensor(2.0), false)
    assert loss.item() == pytest.approx((rows + columns) / 2, rel=1e-6)
    none = contrastive_loss(images, texts, torch.tensor(2.0), texts[:0])
    assert none == contrastive_loss(images, texts, torch.tensor(2.0))


@pytest.mark.parametrize(("hinge", "objects", "loss", "gradient"), [
    (Hinge(), 0.4, 0.2, [[0, 1 / 3, 1 / 3, -1 / 2], [-1 / 2, 1 / 3, 0, 0]]),
    (Hinge(margin=0.05), 0.4, 0.25, [[0, 1 / 3, 1 / 3, -1 / 2], [-1 / 2, 1 / 3, 0, 0]]),
    (Hinge(margin=-0.3), 0.4, 0, [[0] * 4] * 2),
    (Hinge(stop_gradient=True), 0.4, 0.2, [[0, 0, 0, -1 / 2], [-1 / 2, 0, 0, 0]]),
    (Hinge(scope="caption"), 0.45, 0.25, [[0, 1 / 4, 1 / 4, -1 / 2], [-1 / 2, 1 / 2, 0, 0]]),
    (Hinge(scope="caption", margin=-0.25), 0.45, 0.025, [[0] * 4, [-1 / 2, 1 / 2, 0, 0]]),
    (Hinge(scope="word"), 0.45, 0.25, [[0, 1 / 4, 1 / 4, -1 / 2], [-1 / 2, 1 / 2, 0, 0]]),
    (Hinge("log"), 0.4, math.log(2), [[0, 1 / 1.2, 1 / 1.2, -1 / 0.4], [-1 / 0.4, 1 / 1.2, 0, 0]]),
    (Hinge("log", stop_gradient=True), 0.4, math.log(2), [[0, 0, 0, -2.5], [-2.5, 0, 0, 0]]),
    (Hinge("log", 0.1, "caption"), 0.45, math.log(6) / 2 + 0.1,
     [[0, 1 / 1.2, 1 / 1.2, -1 / 0.2], [-1 / 0.6, 1 / 1.2, 0, 0]]),
    (Hinge("log", scope="word"), 0.45, math.log(2.25),
     [[0, 1 / 1.8, 1 / 1.8, -1 / 0.4], [-1 / 0.4, 1 / 0.9, 0, 0]]),
    (Hinge("margin", 0.5), 0.4, (0.4 + 0.2) / 2, [[0, 0, 0, -1 / 2], [-1 / 2, 0, 0, 0]]),
    (Hinge("margin", 0.25), 0.4, 0.15 / 2, [[0, 0, 0, -1 / 2], [0] * 4]),
    (Hinge("margin", 0.5, "word"), 0.45, 0.3, [[0, 0, 0, -1 / 2], [-1 / 2, 0, 0, 0]]),
], ids=str)
def test_loss_and_gradient(hinge: Hinge, objects: float, loss: float, gradient: list) -> None:
    scores = SCORES.clone().requires_grad_()
    found = loss_of(scores, hinge)
    assert found.loss.item() == pytest.approx(loss)
    assert found.objects.item() == pytest.approx(objects)
    assert found.composition.item() == pytest.approx(0.2)
    count = 2 if hinge.scope == "word" else 3
    assert (found.n_objects.item(), found.n_composition.item()) == (count, 2)
    found.loss.backward()
    torch.testing.assert_close(scores.grad, torch.tensor(gradient, dtype=torch.double))


def test_margin_averages_by_role_and_a_word_of_many_tokens_counts_once_if_asked() -> None:
    roles, words = torch.tensor([[1, 2, 2, 3, 3, 3]]), torch.tensor([[1, 2, 2, 3, 4, 5]])
    scores = torch.tensor([[0.9, 0.1, 0.5, 0.2, 0.4, 0.0]], dtype=torch.double)
    for scope, attribute in (("batch", (0.3 + 0) / 2), ("word", 0.4 - 0.3)):
        found = attribution_loss(scores, roles, Hinge("margin", 0.4, scope), words)
        assert found.loss.item() == pytest.approx((attribute + (0.2 + 0 + 0.4) / 3) / 2)
    half = torch.tensor([[0.9, 0.1, 0.5]]), torch.tensor([[1, 2, 0]])  # a word with a role in part
    for kind, loss in (("margin", 0.4 - 0.1), ("difference", 0.9 - 0.1 + 0.4)):
        found = attribution_loss(*half, Hinge(kind, 0.4, "word"), torch.tensor([[1, 2, 2]]))
        assert found.loss.item() == pytest.approx(loss)
    only = attribution_loss(scores, roles.where(roles != 2, 0), Hinge("margin", 0.4))
    assert only.loss.item() == pytest.approx(0.2)  # relations are the one role that occurs
    roles, words = torch.tensor([[2, 0, 2, 0, 1]]), torch.tensor([[1, 1, 2, 2, 3]])
    scores = torch.tensor([[0.1, 0.9, 0.3, 0.9, 0.5]])
    found = attribution_loss(scores, roles, Hinge("margin", 0.4, "word"), words)
    assert found.loss.item() == pytest.approx((0.3 + 0.1) / 2)  # of the tokens that have a role


def test_log_knows_no_scale_and_has_a_floor() -> None:
    hinge = Hinge("log", 0.1)
    assert loss_of(1000 * SCORES, hinge).loss.item() == pytest.approx(math.log(2) + 0.1)
    negative = torch.where(ROLES >= 2, -SCORES, SCORES).requires_grad_()
    found = loss_of(negative, hinge)
    assert found.loss.item() == pytest.approx(math.log(0.4 / 1e-6) + 0.1)
    found.loss.backward()
    assert (negative.grad[ROLES >= 2] == 0).all() and (negative.grad[ROLES == 1] > 0).all()


@pytest.mark.parametrize("hinge", OFFERED, ids=str)
def test_finite_differences_and_sums_of_parts(hinge: Hinge) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(6, 4, generator=generator, dtype=torch.double).requires_grad_()
    roles = torch.randint(4, (6, 4), generator=generator)
    words = torch.randint(1, 4, (6, 4), generator=generator)
    if not hinge.stop_gradient:
        assert torch.autograd.gradcheck(
            lambda values: attribution_loss(values, roles, hinge, words).loss, scores
        )
    whole = attribution_loss(scores, roles, hinge, words)
    assert whole.loss > 0
    parts = [caption_sums(scores[part], roles[part], hinge, words[part])
             for part in (slice(2), slice(2, 6))]
    found = hinge_of_sums(torch.cat(parts), hinge)
    torch.testing.assert_close(vars(found), vars(whole))


@pytest.mark.parametrize("hinge", OFFERED, ids=str)
def test_scores_without_a_role_may_be_anything(hinge: Hinge) -> None:
    """A nan at a start token or at padding reaches neither loss nor gradient."""
    scores = SCORES.masked_fill(ROLES == 0, torch.nan).requires_grad_()
    parts = loss_of(scores, hinge)
    parts.loss.backward()
    assert parts.loss.isfinite() and scores.grad.isfinite().all()


@pytest.mark.parametrize("hinge", OFFERED, ids=str)
@pytest.mark.parametrize("roles", [[[0] * 4] * 2, [[1, 1, 0, 0], [0, 1, 0, 0]],
                                   [[2, 3, 0, 0], [0, 2, 0, 0]]])
def test_empty_group_gives_zero_and_a_gradient_of_zero(hinge: Hinge, roles: list) -> None:
    """Of kind "margin" only where composition words are missing."""
    scores, roles = SCORES.clone().requires_grad_(), torch.tensor(roles)
    parts = loss_of(scores, hinge, roles)
    parts.loss.backward()
    counted = hinge.kind == "margin" and (roles >= 2).any()
    assert (parts.loss > 0) == counted and (scores.grad.abs().max() > 0) == counted
    assert not torch.stack([parts.objects, parts.composition]).isnan().any()


@pytest.mark.parametrize("hinge", OFFERED, ids=str)
def test_incomplete_captions_add_nothing_unless_counted(hinge: Hinge) -> None:
    roles = torch.cat([ROLES, torch.tensor([[1, 1, 0, 0], [2, 3, 0, 0]], dtype=torch.int8)])
    scores = F.pad(SCORES, (0, 0, 0, 2), value=0.9)
    words = torch.cat([WORDS, torch.arange(1, 5).expand(2, -1)])
    whole, more = loss_of(SCORES, hinge), attribution_loss(scores, roles, hinge, words)
    left_out = hinge.kind != "margin" and (hinge.complete_captions or hinge.scope == "caption")
    assert (more.n_objects == whole.n_objects) == left_out
    assert (more.loss == whole.loss) == left_out


@pytest.mark.parametrize(("settings", "message"), [
    ({"scope": "token"}, "unknown scope 'token': expected one of batch, caption, word"),
    ({"kind": "ratio"}, "unknown hinge 'ratio': expected one of difference, log, margin"),
    ({"kind": "margin", "margin": 0.1, "scope": "caption"}, "scope 'batch' or 'word'"),
    ({"kind": "margin", "margin": 0.1, "stop_gradient": True}, "no stop_gradient"),
    ({"scope": "word"}, "scope 'word' needs words"),
])
def test_what_is_not_offered_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        attribution_loss(SCORES, ROLES, Hinge(**settings))
