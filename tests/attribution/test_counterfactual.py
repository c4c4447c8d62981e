"""The counterfactual method against open_clip's encoding of token rows built by hand."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
import torch
from oracles import Batch
from torch import Tensor

from cae_lib.attribution.grouping import word_index
from cae_lib.errors import ConfigError
from cae_lib.models import text_encoder
from cae_lib.training.task import CompositionAttributionLoss

NAME = "counterfactual"
CAPTIONS = (
    "a red pterodactyl chasing a dog",
    "the blue umbrella under two giraffes",
    "a dog",
    "a red dog and a small dog on the left of a tree",
    "skateboarder " * 40,  # is cut off, so that only words of as many tokens or fewer fit
)
ROLES = {1: "pterodactyl dog umbrella giraffes tree skateboarder", 2: "red blue two small",
         3: "chasing under on"}
ROLE = {word: role for role, words in ROLES.items() for word in words.split()}


@pytest.fixture
def named(batch: Batch, tiny_clip) -> Batch:
    """The captions in float64, beside random images."""
    tokens = tiny_clip.tokenizer(list(CAPTIONS))
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(len(tokens), 128, generator=generator, dtype=torch.float64)
    return Batch(batch.model, tokens, tokens.argmax(-1), images)


Word = tuple[int, list[int], tuple[int, ...], int]


@pytest.fixture
def words(named: Batch, tiny_clip) -> list[Word]:
    """Row, places, tokens and role of every word."""
    found = []
    for row, numbers in enumerate(word_index(named.tokens, 49408)):
        for number in range(1, int(numbers.max()) + 1):
            places = (numbers == number).nonzero().flatten().tolist()
            tokens = tuple(named.tokens[row, places].tolist())
            name = tiny_clip.tokenizer.decode(tokens).strip()
            found.append((row, places, tokens, ROLE.get(name, 0)))
    return found


@pytest.fixture
def call(named: Batch, words: list[Word]) -> dict[str, Tensor]:
    """The roles of the tokens, as an argument."""
    roles = torch.zeros_like(named.tokens, dtype=torch.int8)
    for row, places, _, role in words:
        roles[row, places] = role
    return {"roles": roles}


def others(words: list[Word], word: Word) -> Counter[tuple[int, ...]]:
    """What may stand in for a word, with how often it occurs."""
    row, _, tokens, role = word
    held = {other[2] for other in words if other[0] == row}
    longest = len(tokens) if row == 4 else 77
    return Counter(
        other[2] for other in words
        if role and other[3] == role and other[2] not in held and len(other[2]) <= longest
    )


def drop(named: Batch, word: Word, other: tuple[int, ...]) -> float:
    """S(I, T) - S(I, T with another word), from rows of tokens as lists."""
    row, places, *_ = word
    tokens = named.tokens[row].tolist()
    changed = tokens[: places[0]] + list(other) + tokens[places[-1] + 1 :]
    rows = torch.tensor([tokens, (changed + [0] * 77)[:77]])
    cosine = torch.cosine_similarity(named.image_features[row], named.model.encode_text(rows))
    return (cosine[0] - cosine[1]).item()


@pytest.mark.parametrize("path", ["packed", "reference"])
@torch.no_grad()
def test_each_score_is_that_of_another_word_of_the_role(
    path, named, words, call, attribute
) -> None:
    batch = dataclasses.replace(named, model=text_encoder(named.model, path))
    torch.manual_seed(0)
    found = attribute(batch, NAME, call)
    features = named.model.encode_text(named.tokens)
    torch.testing.assert_close(found.text_features, features, atol=1e-10, rtol=0)
    assert len({len(word[2]) for word in words if word[3] == 1}) > 1
    for word in words[:-30]:  # those of the last caption are alike
        scores, candidates = found.scores[word[0], word[1]], others(words, word)
        assert bool(found.scored[word[0], word[1]].all()) == bool(candidates)
        drops = torch.tensor([drop(named, word, other) for other in candidates] or [0.0])
        assert (scores == scores[0]).all() and (drops - scores[0]).abs().min() < 1e-10
    torch.manual_seed(0)
    assert torch.equal(attribute(batch, NAME, call).scores, found.scores)
    assert not torch.equal(attribute(batch, NAME, call).scores, found.scores)


@torch.no_grad()
def test_words_are_drawn_as_often_as_they_occur(named, words, call, attribute) -> None:
    (word,) = (word for word in words if word[0] == 2 and word[3] == 1)  # the dog of "a dog"
    row, places, *_ = word
    candidates = others(words, word)
    drops = torch.tensor([drop(named, word, other) for other in candidates])
    wanted = torch.zeros_like(named.tokens, dtype=torch.bool)
    wanted[row, places] = True
    torch.manual_seed(0)
    found = [attribute(named, NAME, call | {"wanted": wanted}) for _ in range(400)]
    assert all(torch.equal(one.scored, wanted) for one in found)
    drawn = [(drops - one.scores[row, places]).abs().argmin() for one in found]
    share = torch.stack(drawn).bincount(minlength=len(drops)) / len(drawn)
    expected = torch.tensor(list(candidates.values())) / candidates.total()
    torch.testing.assert_close(share, expected, atol=0.1, rtol=0)


@torch.no_grad()
def test_at_most_so_many_words_of_each_group_are_scored(named, call, attribute) -> None:
    numbers, roles = word_index(named.tokens, 49408), call["roles"]
    seen = torch.zeros_like(roles, dtype=torch.bool)
    torch.manual_seed(0)
    for _ in range(30):
        scored = attribute(named, NAME, call, samples=1).scored
        for group in (roles == 1, roles > 1):
            chosen = (scored & group) * numbers
            assert all(len(row[row > 0].unique()) <= 1 for row in chosen)
        seen |= scored
    every = attribute(named, NAME, call).scored
    assert torch.equal(seen[:4], every[:4]) and (every[3] & (roles[3] > 1)).sum() == 3


def test_gradient_is_that_of_finite_differences(named, call, attribute) -> None:
    weight = named.model.transformer.resblocks[1].mlp.c_fc.weight

    def score() -> Tensor:
        torch.manual_seed(1)
        scores = attribute(named, NAME, call | {"create_graph": True}).scores
        return (scores * torch.linspace(-1, 1, scores.shape[1])).sum()

    (gradient,) = torch.autograd.grad(score(), weight)
    place = divmod(gradient.abs().argmax().item(), gradient.shape[1])
    step, values = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            weight[place] += sign * step
            values.append(score().item())
            weight[place] -= sign * step
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(gradient[place].item(), rel=1e-5)


def test_words_without_a_score_leave_the_means_of_the_loss(named, call, attribute) -> None:
    roles = call["roles"]
    loss = CompositionAttributionLoss(named.model, NAME, margin=1.0, complete_captions=False)
    torch.manual_seed(0)
    output = loss(named.image_features, named.tokens, roles)
    torch.manual_seed(0)
    found = attribute(named, NAME, call)
    groups = roles == 1, roles > 1
    assert not found.scored[groups[0]].all()
    means = [found.scores[found.scored & group].mean() for group in groups]
    torch.testing.assert_close(torch.stack([output.objects, output.composition]),
                               torch.stack(means))
    assert output.n_objects == (found.scored & groups[0]).sum()


def test_without_roles_or_without_words(named, call, attribute) -> None:
    with pytest.raises(ConfigError, match="counterfactual needs roles"):
        attribute(named, NAME)
    found = attribute(named, NAME, {"roles": torch.zeros_like(call["roles"])})
    assert not found.scores.any() and not found.scored.any()
