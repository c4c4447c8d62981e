"""Loss of similarity when a word is replaced by another of its role, as attribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cae_lib.attribution.base import Attribution, AttributionMethod, Captions, matched_similarity
from cae_lib.attribution.perturbation import words_apart
from cae_lib.errors import ConfigError

NOTHING = -1
"""Stands after the tokens of a word that has fewer than the longest."""


@dataclass(frozen=True)
class CounterfactualAttribution(AttributionMethod):
    """Drop of the similarity when a word is replaced by another word of its role.

    `a_j = S(I, T) - S(I, T with word j replaced)`, on all tokens of the word. The other word is
    drawn, by torch's generator, from the batch's words of that role, each as often as it occurs;
    but not one that the caption holds, nor one too long for the columns of the tokens, whose
    padding has to be at their end. A word has the highest role of its tokens. Where the batch
    holds no such other word, and for words of no role, there is no score; see
    `Attribution.scored`. Not one of the paper's methods.

    Attributes:
        samples: score at most so many object words and as many attribute and relation words of each
            caption, drawn at random in each call; None scores all.
    """

    reads_words: ClassVar[bool] = True
    reads_roles: ClassVar[bool] = True
    differentiates: ClassVar[bool] = False

    samples: int | None = None

    def __post_init__(self) -> None:
        if self.samples is not None and self.samples < 1:
            raise ConfigError(f"samples is {self.samples}: expected 1 or more, or None for all.")

    def score(self, captions: Captions) -> Attribution:
        if captions.roles is None:
            raise ConfigError("counterfactual needs roles: 1 object, 2 attribute, 3 relation.")
        tokens = captions.tokens
        words = _words_of(tokens, captions.words(tokens.shape[1]).long(), captions.roles)
        chosen = words.role > 0
        if captions.wanted is not None:
            chosen &= (words.inside & captions.wanted[words.caption]).any(dim=1)
        if self.samples is not None:
            chosen &= _sampled(2 * words.caption + (words.role > 1), chosen, self.samples)
        chosen, other = _drawn(words, chosen.nonzero().squeeze(1), _room(tokens))
        caption, inside = words.caption[chosen], words.inside[chosen]
        variants = _replaced(tokens[caption], inside, words.texts[other])
        features = _encoded(captions, variants, caption, inside.int().argmax(dim=1))
        images = torch.cat([captions.image_features, captions.image_features[caption]])
        similarity = matched_similarity(captions.encoder.model, images, features)
        whole, without = similarity.tensor_split([len(tokens)])
        drop = (whole[caption] - without).unsqueeze(1) * inside
        scores = drop.new_zeros(tokens.shape).index_add(0, caption, drop)
        scored = torch.zeros_like(tokens).index_add(0, caption, inside.long()) > 0
        length = captions.encoder.columns(tokens)
        return Attribution(scores[:, :length], features[: len(tokens)], scored[:, :length])


@dataclass(frozen=True)
class _Words:
    """The N words of a batch, of which U have different texts of at most L tokens.

    Attributes:
        caption: `(N,)` row of its caption.
        inside: `(N, C)` its tokens, bool.
        role: `(N,)`.
        text: `(N,)` number of its text.
        texts: `(U, L)` tokens of the texts, then `NOTHING`.
    """

    caption: Tensor
    inside: Tensor
    role: Tensor
    text: Tensor
    texts: Tensor


def _words_of(tokens: Tensor, words: Tensor, roles: Tensor) -> _Words:
    caption, inside = words_apart(words)
    role = torch.where(inside, roles[caption].long(), 0).amax(dim=1)
    length = max(inside.sum(dim=1).tolist(), default=1)
    pieces = tokens.new_full((len(caption), length), NOTHING)
    word, column = inside.nonzero(as_tuple=True)
    pieces[word, inside.cumsum(dim=1)[word, column] - 1] = tokens[caption[word], column]
    texts, text = torch.unique(pieces, dim=0, return_inverse=True)
    return _Words(caption, inside, role, text, texts)


def _sampled(group: Tensor, chosen: Tensor, samples: int) -> Tensor:
    """At most so many of the chosen words `(N,)` of each group `(N,)`, at random."""
    group = torch.where(chosen, group, -1)
    order = torch.rand(len(group)).to(group.device).argsort()
    order = order[group[order].argsort(stable=True)]
    place = torch.arange(len(group), device=group.device)
    place = place - torch.searchsorted(group[order], group[order])  # in its group
    return torch.zeros_like(chosen).index_put((order,), place < samples)


def _room(tokens: Tensor) -> Tensor:
    """By how many tokens each caption `(B,)` may grow; one of its last equal ones may end it."""
    same = tokens.flip(1) == tokens[:, -1:]
    return same.long().cumprod(dim=1).sum(dim=1) - 1


def _drawn(words: _Words, chosen: Tensor, room: Tensor) -> tuple[Tensor, Tensor]:
    """Those of the chosen words `(V,)` that another one can replace, and its text's number."""
    named = words.role > 0
    kinds, count = torch.unique(4 * words.text[named] + words.role[named], return_counts=True)
    text, size = kinds // 4, (words.texts != NOTHING).sum(dim=1)
    held = torch.zeros(len(room), len(size), dtype=torch.bool, device=room.device)
    held[words.caption, words.text] = True
    caption, most = words.caption[chosen], size[words.text[chosen]] + room[words.caption[chosen]]
    allowed = (kinds % 4 == words.role[chosen, None]) & (size[text] <= most[:, None])
    allowed &= ~held[caption][:, text]
    cumulative = (allowed * count).cumsum(dim=1)
    total = (allowed * count).sum(dim=1)
    draw = torch.rand(len(chosen), dtype=torch.float64).to(room.device) * total
    place = (cumulative <= draw.long().unsqueeze(1)).sum(dim=1)
    return chosen[total > 0], text[place[total > 0]]


def _replaced(tokens: Tensor, inside: Tensor, texts: Tensor) -> Tensor:
    """Tokens `(V, C)` with texts `(V, L)` in the place of those `inside` `(V, C)`."""
    columns, length = tokens.shape[1], texts.shape[1]
    beyond = columns + length - 1  # where what is left out goes
    first = inside.int().argmax(dim=1, keepdim=True)
    size = (texts != NOTHING).sum(dim=1, keepdim=True)
    position = torch.arange(columns, device=tokens.device)
    target = (~inside).cumsum(dim=1) - 1 + size * (position > first)
    rows = tokens[:, -1:].repeat(1, columns + length)
    rows.scatter_(1, torch.where(inside, beyond, target), tokens)
    target = first + torch.arange(length, device=tokens.device)
    rows.scatter_(1, torch.where(texts == NOTHING, beyond, target), texts)
    return rows[:, :columns]


def _encoded(captions: Captions, variants: Tensor, caption: Tensor, first: Tensor) -> Tensor:
    """Features `(B + V, E)` of captions and variants, which begin alike up to `first`."""
    tokens = captions.tokens
    own = torch.arange(len(tokens), device=tokens.device)
    # Each caption is followed by its variants, the latest change first: all begin as it does.
    after = torch.cat([torch.zeros_like(own), tokens.shape[1] - first])
    order = (torch.cat([own, caption]) * (tokens.shape[1] + 1) + after).argsort()
    features = captions.encoder.encode_many(torch.cat([tokens, variants])[order])
    return features[order.argsort()]
