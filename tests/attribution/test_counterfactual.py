"""The counterfactual method against open_clip's encoding of token rows built by hand."""

import dataclasses
from collections import Counter
from typing import NamedTuple

import pytest
import torch
from oracles import Batch, make_batch
from torch import Tensor

from cae_lib.errors import ConfigError
from cae_lib.models import text_encoder
from cae_lib.words.alignment import word_numbers

NAME = "counterfactual"
CAPTIONS = (
    "a red pterodactyl chasing a dog",
    "the blue umbrella under two giraffes",
    "a dog",
    "a red dog and a small dog on the left of a tree",
    "skateboarder " * 40,  # is cut off, so that only words of as many tokens or fewer fit
)
ROLES = {
    1: "pterodactyl dog umbrella giraffes tree skateboarder",
    2: "red blue two small",
    3: "chasing under on",
}
ROLE = {word: role for role, words in ROLES.items() for word in words.split()}


class Word(NamedTuple):
    """A word of a caption."""

    row: int
    places: list[int]
    tokens: tuple[int, ...]
    role: int


@pytest.fixture
def named(tiny_clip) -> Batch:
    return make_batch(tiny_clip.model, CAPTIONS)


@pytest.fixture
def words(named: Batch, tiny_clip) -> list[Word]:
    actual = []
    for row, numbers in enumerate(word_numbers(named.tokens, 49408)):
        for number in range(1, int(numbers.max()) + 1):
            places = (numbers == number).nonzero().flatten().tolist()
            tokens = tuple(named.tokens[row, places].tolist())
            role = ROLE.get(tiny_clip.tokenizer.decode(tokens).strip(), 0)
            actual.append(Word(row, places, tokens, role))
    return actual


@pytest.fixture
def call(named: Batch, words: list[Word]) -> dict[str, Tensor]:
    roles = torch.zeros_like(named.tokens, dtype=torch.int8)
    for word in words:
        roles[word.row, word.places] = word.role
    return {"roles": roles}


def candidates_of(words: list[Word], word: Word) -> Counter[tuple[int, ...]]:
    """Return the tokens that may replace a word, with how often they occur."""
    in_caption = {other.tokens for other in words if other.row == word.row}
    longest = len(word.tokens) if word.row == 4 else 77
    return Counter(
        other.tokens
        for other in words
        if other.role == word.role != 0
        and other.tokens not in in_caption
        and len(other.tokens) <= longest
    )


def drop(named: Batch, word: Word, other: tuple[int, ...]) -> float:
    """Compute S(I, T) - S(I, T with another word), from rows of tokens as lists."""
    tokens = named.tokens[word.row].tolist()
    changed = tokens[: word.places[0]] + list(other) + tokens[word.places[-1] + 1 :]
    rows = torch.tensor([(row + [0] * 77)[:77] for row in (tokens, changed)])
    images, texts = named.image_features[word.row], named.model.encode_text(rows)
    similarity, without = torch.cosine_similarity(images, texts).tolist()
    return similarity - without


@pytest.mark.parametrize("path", ["packed", "reference"])
@torch.no_grad()
def test_each_score_is_that_of_another_word_of_the_role(path, named, words, call, attribute):
    batch = dataclasses.replace(named, model=text_encoder(named.model, path))
    torch.manual_seed(0)
    actual = attribute(batch, NAME, call)
    features = named.model.encode_text(named.tokens)
    torch.testing.assert_close(actual.text_features, features, atol=1e-10, rtol=0)
    assert len({len(word.tokens) for word in words if word.role == 1}) > 1
    for word in words[:-30]:  # those of the last caption are alike
        scores, candidates = actual.scores[word.row, word.places], candidates_of(words, word)
        assert bool(actual.has_score[word.row, word.places].all()) == bool(candidates)
        drops = torch.tensor([drop(named, word, other) for other in candidates] or [0.0])
        assert (scores == scores[0]).all()
        assert (drops - scores[0]).abs().min() < 1e-10
    torch.manual_seed(0)
    assert torch.equal(attribute(batch, NAME, call).scores, actual.scores)
    assert not torch.equal(attribute(batch, NAME, call).scores, actual.scores)
    with pytest.raises(ConfigError, match="roles"):
        attribute(named, NAME)
    for few, roles in ((named, 0 * call["roles"]), (named.first(1), call["roles"][:1])):
        assert not attribute(few, NAME, {"roles": roles}).has_score.any()


@torch.no_grad()
def test_words_are_drawn_as_often_as_they_occur(named, words, call, attribute) -> None:
    (word,) = (word for word in words if word.row == 2 and word.role)  # the dog of "a dog"
    candidates = candidates_of(words, word)
    drops = torch.tensor([drop(named, word, other) for other in candidates])
    requested = torch.zeros_like(named.tokens, dtype=torch.bool)
    requested[word.row, word.places] = True
    torch.manual_seed(0)
    actual = [attribute(named, NAME, call | {"requested": requested}) for _ in range(100)]
    assert all(torch.equal(one.has_score, requested) for one in actual)
    drawn = [(drops - one.scores[word.row, word.places]).abs().argmin() for one in actual]
    share = torch.stack(drawn).bincount(minlength=len(drops)) / len(drawn)
    expected = torch.tensor(list(candidates.values())) / candidates.total()
    torch.testing.assert_close(share, expected, atol=0.1, rtol=0)


@pytest.mark.parametrize(
    ("free", "size", "fits"), [(0, 1, True), (0, 2, False), (2, 2, True), (2, 3, False)]
)
@torch.no_grad()
def test_a_word_fits_that_leaves_the_end_or_its_padding(free, size, fits, named, attribute) -> None:
    """Of eight columns the first caption leaves some free; the last column stays as it is."""
    first = [266, 267, 268, 269, 270, 271][: 6 - free]  # bytes that end a word
    other = [20, 21, 22, 276][-size:]  # a word of so many bytes
    rows = [[49406, *inner, 49407] + [0] * (6 - len(inner)) for inner in (first, other)]
    tokens, words = torch.tensor(rows), torch.zeros(2, 8, dtype=torch.long)
    words[0, 1 : len(first) + 1] = torch.arange(1, len(first) + 1)
    words[1, 1 : size + 1] = 1
    roles = (words == torch.tensor([[2], [1]])).long()
    two = dataclasses.replace(named.first(2), tokens=tokens)
    actual = attribute(two, NAME, {"words": words, "roles": roles})
    assert actual.has_score[0, 2] == fits
    assert actual.has_score[1, 1]
    if fits:
        drops = drop(two, Word(0, [2], (267,), 1), tuple(other))
        assert actual.scores[0, 2].item() == pytest.approx(drops, abs=1e-10)


@torch.no_grad()
def test_at_most_so_many_words_of_each_group_are_scored(named, call, attribute) -> None:
    numbers, roles = word_numbers(named.tokens, 49408), call["roles"]
    every, seen = attribute(named, NAME, call).has_score, torch.zeros_like(roles, dtype=torch.bool)
    assert (every[3] & (roles[3] > 1)).sum() == 3
    torch.manual_seed(0)
    for _ in range(30):
        has_score = attribute(named, NAME, call, samples=1).has_score
        for group in (roles == 1, roles > 1):
            sampled = (has_score & group) * numbers
            assert all(len(row[row > 0].unique()) <= 1 for row in sampled)
        seen |= has_score
    assert torch.equal(seen[:4], every[:4])
