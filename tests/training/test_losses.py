"""The losses on numbers worked out by hand."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cae_lib.config import HINGES, SCOPES, AttributionLossConfig
from cae_lib.errors import ConfigError, DataError
from cae_lib.training.losses import (
    AttributionLossOutput,
    attribution_loss,
    contrastive_loss,
    per_caption_stats,
    reduce_attribution_loss,
)

# Two captions of four tokens. Roles: 0 other, 1 object, 2 attribute, 3 relation.
ROLES = torch.tensor([[0, 1, 1, 2], [3, 1, 0, 0]], dtype=torch.int8)
SCORES = torch.tensor([[0.5, 0.4, 0.2, 0.1], [0.3, 0.6, 0.9, 0.9]], dtype=torch.double)
WORDS = torch.tensor([[1, 2, 2, 3], [1, 2, 3, 3]])
EVERY = pytest.mark.parametrize(
    "hinge",
    [
        AttributionLossConfig(
            hinge=kind, margin=2.0, scope=scope, stop_gradient=stop, complete_captions=complete
        )
        for kind, scope, stop, complete in itertools.product(HINGES, SCOPES, *[(False, True)] * 2)
        if kind != "margin" or (scope != "caption" and not stop)
    ],
    ids=str,
)


def loss_of(
    scores: Tensor, hinge: AttributionLossConfig, roles: Tensor = ROLES
) -> AttributionLossOutput:
    return attribution_loss(scores, roles, hinge, WORDS)


@pytest.mark.parametrize("negative", [False, True])
def test_contrastive_loss_of_two_pairs(negative: bool) -> None:
    """A negative caption is an extra column of the images only."""
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


SHAPES = [((3, 2), (5, 2)), ((0, 2), (0, 2)), ((3, 2), (3, 4)), ((2,), (2,))]


@pytest.mark.parametrize("shapes", [*SHAPES, ((3, 2), (3, 2), (4, 3))], ids=str)
def test_images_and_captions_that_are_no_pairs_are_refused(shapes) -> None:
    """Further texts would be taken for negatives, and the mean over none is not a number."""
    images, texts, *negatives = map(torch.ones, shapes)
    with pytest.raises(DataError):
        contrastive_loss(images, texts, torch.tensor(2.0), *negatives)


@pytest.mark.parametrize("scope", ["batch", "word"])
@pytest.mark.parametrize(
    "roles",
    [ROLES[:1], ROLES[:, :1], ROLES[0], ROLES[:, :3], ROLES.bool(), ROLES.float()],
    ids=["one caption", "one token", "no batch", "fewer tokens", "truth values", "floats"],
)
def test_roles_and_words_of_another_shape_or_kind_are_refused(roles: Tensor, scope) -> None:
    """Roles of one caption would count for both, and truth values have no role 2 or 3."""
    config = AttributionLossConfig(scope=scope)
    with pytest.raises(DataError, match="roles "):
        attribution_loss(SCORES, roles, config, WORDS)
    with pytest.raises(DataError):
        per_caption_stats(SCORES, roles, config, WORDS)
    if roles.shape != ROLES.shape:
        with pytest.raises(DataError, match=r"words .*\(2, 4\)"):
            attribution_loss(SCORES, ROLES, config, roles.long())


@pytest.mark.parametrize(
    ("settings", "objects", "loss"),
    [
        ({}, 0.4, 0.2),
        ({"margin": 0.05}, 0.4, 0.25),
        ({"margin": -0.3}, 0.4, 0),
        ({"stop_gradient": True}, 0.4, 0.2),
        ({"scope": "caption"}, 0.45, 0.25),
        ({"scope": "caption", "margin": -0.25}, 0.45, 0.025),
        ({"scope": "word"}, 0.45, 0.25),
        ({"hinge": "log"}, 0.4, math.log(2)),
        ({"hinge": "log", "margin": 0.1, "scope": "caption"}, 0.45, math.log(6) / 2 + 0.1),
        ({"hinge": "margin", "margin": 0.5}, 0.4, (0.4 + 0.2) / 2),
        ({"hinge": "margin", "margin": 0.25}, 0.4, 0.15 / 2),
        ({"hinge": "margin", "margin": 0.5, "scope": "word"}, 0.45, 0.3),
    ],
    ids=str,
)
def test_losses_by_hand(settings: dict, objects: float, loss: float) -> None:
    scores, hinge = SCORES.clone().requires_grad_(), AttributionLossConfig(**settings)
    output = loss_of(scores, hinge)
    assert output.loss.item() == pytest.approx(loss)
    assert output.objects.item() == pytest.approx(objects)
    assert output.composition.item() == pytest.approx(0.2)
    count = 2 if hinge.scope == "word" else 3
    assert (output.n_objects.item(), output.n_composition.item()) == (count, 2)
    output.loss.backward()
    if settings in ({}, {"stop_gradient": True}):  # of the others by finite differences
        of_objects = 0 if hinge.stop_gradient else 1 / 3
        gradient = [[0, of_objects, of_objects, -1 / 2], [-1 / 2, of_objects, 0, 0]]
        torch.testing.assert_close(scores.grad, torch.tensor(gradient, dtype=torch.double))


def margin_loss(scores: list, roles: list, words: list, scope: str, hinge: str = "margin") -> float:
    rows = (torch.tensor([row]) for row in (scores, roles))
    settings = AttributionLossConfig(hinge=hinge, margin=0.4, scope=scope)
    return attribution_loss(*rows, settings, torch.tensor([words])).loss.item()


def test_margin_hinge_averages_by_role_and_by_word_if_asked() -> None:
    scores, words = [0.9, 0.1, 0.5, 0.2, 0.4, 0.0], [1, 2, 2, 3, 4, 5]
    relations = (0.2 + 0 + 0.4) / 3
    for scope, attributes in (("batch", (0.3 + 0) / 2), ("word", 0.4 - 0.3)):
        actual = margin_loss(scores, [1, 2, 2, 3, 3, 3], words, scope)
        assert actual == pytest.approx((attributes + relations) / 2)
    alone = margin_loss(scores, [1, 0, 0, 3, 3, 3], words, "batch")
    assert alone == pytest.approx(relations)  # the one role that occurs
    for hinge, loss in (("margin", 0.4 - 0.1), ("difference", 0.9 - 0.1 + 0.4)):
        actual = margin_loss([0.9, 0.1, 0.5], [1, 2, 0], [1, 2, 2], "word", hinge)
        assert actual == pytest.approx(loss)  # a word is worth what its tokens with a role are
    actual = margin_loss([0.1, 0.9, 0.3, 0.9, 0.5], [2, 0, 2, 0, 1], [1, 1, 2, 2, 3], "word")
    assert actual == pytest.approx((0.3 + 0.1) / 2)


def test_log_hinge_ignores_the_scale_and_has_a_floor() -> None:
    hinge = AttributionLossConfig(hinge="log", margin=0.1)
    assert loss_of(1000 * SCORES, hinge).loss.item() == pytest.approx(math.log(2) + 0.1)
    negative = torch.where(ROLES >= 2, -SCORES, SCORES).requires_grad_()
    actual = loss_of(negative, hinge)
    assert actual.loss.item() == pytest.approx(math.log(0.4 / 1e-6) + 0.1)
    actual.loss.backward()
    assert (negative.grad[ROLES >= 2] == 0).all()
    assert (negative.grad[ROLES == 1] > 0).all()


@EVERY
def test_finite_differences_and_sums_of_parts(hinge: AttributionLossConfig) -> None:
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
    parts = [
        per_caption_stats(scores[part], roles[part], hinge, words[part])
        for part in (slice(2), slice(2, 6))
    ]
    actual = reduce_attribution_loss(torch.cat(parts), hinge)
    torch.testing.assert_close(vars(actual), vars(whole))


@EVERY
@pytest.mark.parametrize(
    "roles", [ROLES.tolist(), [[1, 1, 0, 0], [0, 1, 0, 0]], [[2, 3, 0, 0]] * 2]
)
def test_an_empty_group_gives_zero_and_scores_without_a_role_reach_nothing(hinge, roles) -> None:
    """A score may be nan at a start token or at padding; hinge "margin" needs no object words."""
    roles = torch.tensor(roles)
    scores = SCORES.masked_fill(roles == 0, torch.nan).requires_grad_()
    actual = loss_of(scores, hinge, roles)
    actual.loss.backward()
    counted = (roles >= 2).any() and (hinge.hinge == "margin" or (roles == 1).any())
    assert (actual.loss > 0) == counted
    assert (scores.grad.abs().max() > 0) == counted
    assert torch.stack([actual.loss, actual.objects, actual.composition]).isfinite().all()


@EVERY
def test_incomplete_captions_add_nothing_unless_counted(hinge: AttributionLossConfig) -> None:
    roles = torch.cat([ROLES, torch.tensor([[1, 1, 0, 0], [2, 3, 0, 0]], dtype=torch.int8)])
    scores = F.pad(SCORES, (0, 0, 0, 2), value=0.9)
    words = torch.cat([WORDS, torch.arange(1, 5).expand(2, -1)])
    whole, more = loss_of(SCORES, hinge), attribution_loss(scores, roles, hinge, words)
    left_out = hinge.hinge != "margin" and (hinge.complete_captions or hinge.scope == "caption")
    assert (more.n_objects == whole.n_objects) == left_out
    assert (more.loss == whole.loss) == left_out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hinge": "ratio"}, "unknown hinge 'ratio': expected one of difference, log, margin"),
        ({"hinge": "margin"}, "margin above 0"),
        ({"hinge": "margin", "margin": 0.1, "scope": "caption"}, "scope 'batch' or 'word'"),
        ({"hinge": "margin", "margin": 0.1, "stop_gradient": True}, "no stop_gradient"),
        ({"scope": "word"}, "scope 'word' needs words"),
    ],
)
def test_settings_that_are_not_offered_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        attribution_loss(SCORES, ROLES, AttributionLossConfig(**settings))


def test_word_of_which_a_part_has_a_role_counts_once() -> None:
    """Its other tokens count in neither sum: (.1 + .3) / 2, not (.1 / 2 + .3) / 1.5."""
    scores, roles = torch.tensor([[0.9, 0.1, 0.5, 0.3]]), torch.tensor([[1, 2, 0, 3]])
    config = AttributionLossConfig(scope="word")
    output = attribution_loss(scores, roles, config, torch.tensor([[1, 2, 2, 3]]))
    assert output.composition.item() == pytest.approx(0.2)
    assert output.loss.item() == pytest.approx(0.7) and output.n_composition == 2
