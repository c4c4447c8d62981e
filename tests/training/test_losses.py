"""The losses on numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cae_lib.errors import ConfigError
from cae_lib.training.losses import attribution_loss, contrastive_loss

# Two captions of four tokens. Roles: 0 other, 1 object, 2 attribute, 3 relation.
ROLES = torch.tensor([[0, 1, 1, 2], [3, 1, 0, 0]], dtype=torch.int8)
SCORES = torch.tensor([[0.5, 0.4, 0.2, 0.1], [0.3, 0.6, 0.9, 0.9]])


def _scores() -> Tensor:
    return SCORES.double().requires_grad_()


def test_contrastive_loss_of_two_pairs() -> None:
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    # logits at scale 2: [[2, 1.2], [0, 1.6]]
    rows = (math.log(1 + math.exp(-0.8)) + math.log(1 + math.exp(-1.6))) / 2
    columns = (math.log(1 + math.exp(-2.0)) + math.log(1 + math.exp(-0.4))) / 2
    loss = contrastive_loss(images, texts, torch.tensor(2.0))
    assert loss.item() == pytest.approx((rows + columns) / 2, rel=1e-6)


def test_batch_scope_averages_over_all_tokens_of_the_batch() -> None:
    parts = attribution_loss(_scores(), ROLES)
    assert parts.objects.item() == pytest.approx((0.4 + 0.2 + 0.6) / 3)
    assert parts.composition.item() == pytest.approx((0.1 + 0.3) / 2)
    assert parts.loss.item() == pytest.approx(0.4 - 0.2)
    assert (parts.n_objects.item(), parts.n_composition.item()) == (3, 2)


def test_gradient_lowers_objects_and_raises_composition() -> None:
    scores = _scores()
    attribution_loss(scores, ROLES).loss.backward()
    third, half = 1 / 3, 1 / 2
    expected = torch.tensor([[0, third, third, -half], [-half, third, 0, 0]], dtype=torch.double)
    torch.testing.assert_close(scores.grad, expected)


def test_stop_gradient_leaves_objects_alone() -> None:
    scores = _scores()
    parts = attribution_loss(scores, ROLES, stop_gradient=True)
    assert parts.loss.item() == pytest.approx(0.2)
    parts.loss.backward()
    expected = torch.tensor([[0, 0, 0, -0.5], [-0.5, 0, 0, 0]], dtype=torch.double)
    torch.testing.assert_close(scores.grad, expected)


@pytest.mark.parametrize(
    ("margin", "loss"),
    [(0.0, 0.0), (0.1, 0.0), (0.3, 0.1), (-0.5, 0.0)],
)
def test_hinge_when_composition_leads(margin: float, loss: float) -> None:
    scores = torch.tensor([[0.2, 0.4]], dtype=torch.double, requires_grad=True)
    parts = attribution_loss(scores, torch.tensor([[1, 3]]), margin)
    assert parts.loss.item() == pytest.approx(loss)
    parts.loss.backward()
    assert scores.grad.abs().max().item() == (1.0 if loss else 0.0)


def test_positive_margin_adds_to_the_lead() -> None:
    assert attribution_loss(_scores(), ROLES, margin=0.05).loss.item() == pytest.approx(0.25)


def test_caption_scope_takes_the_hinge_within_each_caption() -> None:
    roles = torch.tensor([[0, 1, 1, 2], [3, 1, 0, 0], [1, 2, 0, 0]])
    scores = torch.cat([SCORES, torch.tensor([[0.1, 0.8, 0.0, 0.0]])])
    parts = attribution_loss(scores, roles, scope="caption")
    # leads: 0.3 - 0.1, 0.6 - 0.3, 0.1 - 0.8 (no loss)
    assert parts.loss.item() == pytest.approx((0.2 + 0.3 + 0.0) / 3)
    assert parts.objects.item() == pytest.approx((0.3 + 0.6 + 0.1) / 3)
    assert parts.composition.item() == pytest.approx((0.1 + 0.3 + 0.8) / 3)


def test_word_scope_counts_a_word_of_many_tokens_once() -> None:
    words = torch.tensor([[1, 2, 2, 3], [1, 2, 3, 3]])
    parts = attribution_loss(_scores(), ROLES, scope="word", words=words)
    assert parts.objects.item() == pytest.approx((0.3 + 0.6) / 2)
    assert parts.composition.item() == pytest.approx(0.2)
    assert (parts.n_objects.item(), parts.n_composition.item()) == (2, 2)


def test_word_scope_shares_a_words_gradient_among_its_tokens() -> None:
    scores, words = _scores(), torch.tensor([[1, 2, 2, 3], [1, 2, 3, 3]])
    attribution_loss(scores, ROLES, margin=1.0, scope="word", words=words).loss.backward()
    quarter, half = 1 / 4, 1 / 2
    expected = torch.tensor([[0, quarter, quarter, -half], [-half, half, 0, 0]])
    torch.testing.assert_close(scores.grad, expected.double())


@pytest.mark.parametrize("stop_gradient", [False, True])
def test_caption_scope_moves_only_captions_whose_objects_lead(stop_gradient: bool) -> None:
    roles = torch.tensor([[0, 1, 1, 2], [3, 1, 0, 0], [1, 2, 0, 0], [1, 1, 0, 0]])
    rest = torch.tensor([[0.1, 0.8, 0.0, 0.0], [0.9, 0.9, 0.0, 0.0]])
    scores = torch.cat([SCORES, rest]).double().requires_grad_()
    attribution_loss(scores, roles, scope="caption", stop_gradient=stop_gradient).loss.backward()
    # three captions have both groups; the hinge of the third is inactive
    third, sixth = 1 / 3, 1 / 6
    expected = torch.tensor([
        [0, sixth, sixth, -third], [-third, third, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0],
    ], dtype=torch.double)
    if stop_gradient:
        expected = expected.clamp(max=0)
    torch.testing.assert_close(scores.grad, expected)


def test_groups_level_with_each_other_are_left_alone() -> None:
    scores = torch.tensor([[0.5, 0.25, 0.75]], requires_grad=True)
    parts = attribution_loss(scores, torch.tensor([[1, 2, 3]]))
    parts.loss.backward()
    assert parts.loss.item() == 0 and scores.grad.abs().max() == 0


def test_one_empty_group_gives_zero_also_without_complete_captions() -> None:
    scores = torch.full((2, 2), 0.5, requires_grad=True)
    roles = torch.tensor([[1, 0], [1, 1]])
    parts = attribution_loss(scores, roles, margin=1.0, complete_captions=False)
    parts.loss.backward()
    assert parts.loss.item() == 0 and scores.grad.abs().max() == 0
    assert (parts.n_objects.item(), parts.n_composition.item()) == (3, 0)


@pytest.mark.parametrize("scope", ["batch", "caption", "word"])
def test_scores_without_a_role_may_be_anything(scope: str) -> None:
    """A nan at a start token or at padding reaches neither loss nor gradient."""
    scores, words = SCORES.masked_fill(ROLES == 0, torch.nan).requires_grad_(), ROLES
    parts = attribution_loss(scores, ROLES, 0.5, scope, words=words)
    parts.loss.backward()
    assert parts.loss.isfinite() and scores.grad.isfinite().all()


def test_word_scope_needs_words() -> None:
    with pytest.raises(ConfigError, match="scope 'word' needs words"):
        attribution_loss(SCORES, ROLES, scope="word")


def test_unknown_scope() -> None:
    with pytest.raises(ConfigError, match="batch, caption, word"):
        attribution_loss(SCORES, ROLES, scope="token")


@pytest.mark.parametrize("scope", ["batch", "caption", "word"])
@pytest.mark.parametrize("roles", [[[0, 0], [0, 0]], [[1, 1], [0, 1]], [[2, 3], [0, 2]]])
def test_empty_group_gives_zero_and_a_gradient_of_zero(scope: str, roles: list) -> None:
    scores = torch.full((2, 2), 0.5, requires_grad=True)
    words = torch.tensor([[1, 2], [0, 1]])
    parts = attribution_loss(scores, torch.tensor(roles), 1.0, scope, words=words)
    assert parts.loss.item() == 0
    parts.loss.backward()
    assert scores.grad.abs().max() == 0
    assert not torch.stack([parts.objects, parts.composition]).isnan().any()


@pytest.mark.parametrize("scope", ["batch", "caption"])
def test_incomplete_caption_adds_nothing(scope: str) -> None:
    roles = torch.cat([ROLES, torch.tensor([[1, 1, 0, 0], [2, 3, 0, 0]], dtype=torch.int8)])
    scores = torch.cat([SCORES, torch.full((2, 4), 9.0)])
    whole = attribution_loss(SCORES, ROLES, scope=scope)
    more = attribution_loss(scores, roles, scope=scope)
    assert more.loss == whole.loss
    assert (more.n_objects, more.n_composition) == (whole.n_objects, whole.n_composition)


def test_caption_scope_counts_complete_captions_only() -> None:
    parts = attribution_loss(
        SCORES, torch.tensor([[0, 1, 1, 2], [0, 1, 0, 0]]), scope="caption", complete_captions=False
    )
    assert parts.objects.item() == pytest.approx(0.3) and parts.n_objects.item() == 2


def test_incomplete_captions_can_be_counted() -> None:
    roles = torch.tensor([[1, 2], [1, 0]])
    scores = torch.tensor([[0.5, 0.1], [0.9, 0.0]])
    assert attribution_loss(scores, roles).loss.item() == pytest.approx(0.4)
    counted = attribution_loss(scores, roles, complete_captions=False)
    assert counted.loss.item() == pytest.approx(0.7 - 0.1)
    assert counted.n_objects.item() == 2
