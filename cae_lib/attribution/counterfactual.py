"""Loss of similarity when a word is replaced by another of its role, as attribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cae_lib.attribution.base import Attribution, AttributionMethod, Captions, words_apart
from cae_lib.errors import ConfigError

# Stands after the tokens of a word that has fewer than the longest, and for no word.
NOTHING = -1


@dataclass(frozen=True)
class CounterfactualAttribution(AttributionMethod):
    """Drop of the similarity when a word is replaced by another word of its role; not the paper's.

    `a_j = S(I, T) - S(I, T with word j replaced)`, on all tokens of the word; its role is the
    highest of theirs. The other word is drawn, by torch's generator, from the batch's words of that
    role, each as often as it occurs; but none that the caption holds, nor one too long for the
    columns of the tokens, whose padding has to be at their end, nor, without padding, a shorter
    one. Where there is none, and for words of no role, there is no score; see `Attribution.scored`.
    Both similarities are without dropout.

    Attributes:
        samples: at most so many of a caption's objects, and of its others, at random; None: all.
    """

    reads_words: ClassVar[bool] = True
    reads_roles: ClassVar[bool] = True
    scores_words: ClassVar[bool] = True
    differentiates: ClassVar[bool] = False
    counts: ClassVar[tuple[str, ...]] = ("samples",)
    samples: int | None = None

    def score(self, captions: Captions) -> Attribution:
        if captions.roles is None:
            raise ConfigError("counterfactual needs roles: 1 object, 2 attribute, 3 relation.")
        tokens = captions.tokens
        caption, inside = words_apart(captions.words(tokens.shape[1]).long())
        role = torch.where(inside, captions.roles[caption], 0).amax(dim=1).long()
        other = _drawn(tokens, caption, inside, role)
        chosen = captions.wants(caption, inside) & (other[:, 0] != NOTHING)
        if self.samples is not None:
            chosen &= _sampled(2 * caption + (role > 1), chosen, self.samples)
        caption, inside = caption[chosen], inside[chosen]
        variants = _replaced(tokens[caption], inside, other[chosen])
        return captions.score_variants(variants, caption, inside)


def _drawn(tokens: Tensor, caption: Tensor, inside: Tensor, role: Tensor) -> Tensor:
    """Another word's tokens `(N, L)` for each of N, `inside (N, C)` its row, or `NOTHING`."""
    texts, text = torch.unique(_texts(tokens[caption], inside), dim=0, return_inverse=True)
    kinds, count = torch.unique(4 * text + role, return_counts=True)  # a text in a role
    other = kinds // 4
    held = torch.zeros(len(tokens), len(texts), dtype=torch.bool, device=tokens.device)
    held[caption, text] = True
    same = tokens.flip(1) == tokens[:, -1:]  # the last equal tokens; the first may be the end
    room = same.long().cumprod(dim=1).sum(dim=1) - 1
    size = (texts != NOTHING).sum(dim=1)
    allowed = (kinds % 4 == role[:, None]) & (role > 0)[:, None] & ~held[caption][:, other]
    longer, room = size[other] - size[text][:, None], room[caption][:, None]
    allowed &= (longer <= room) & ((longer >= 0) | (room > 0))  # there is padding to copy
    cumulative = (allowed * count).cumsum(dim=1)
    draw = torch.rand(len(text), dtype=torch.float64).to(tokens.device) * (allowed * count).sum(1)
    place = (cumulative <= draw.long().unsqueeze(1)).sum(dim=1)  # beyond the last: none
    return F.pad(texts[other], (0, 0, 0, 1), value=NOTHING)[place]


def _texts(tokens: Tensor, inside: Tensor) -> Tensor:
    """The tokens `(N, C)` that are `inside`, moved to the left `(N, L)`; then `NOTHING`."""
    length = max(inside.sum(dim=1).tolist(), default=1)
    texts = tokens.new_full((len(tokens), length + 1), NOTHING)
    place = torch.where(inside, inside.cumsum(dim=1) - 1, length)
    return texts.scatter_(1, place, torch.where(inside, tokens, NOTHING))[:, :length]


def _sampled(group: Tensor, chosen: Tensor, samples: int) -> Tensor:
    """At most so many of the chosen words `(N,)` of each group, at random."""
    group = torch.where(chosen, group, NOTHING)
    order = torch.rand(len(group)).to(group.device).argsort()
    order = order[group[order].argsort(stable=True)]
    place = torch.arange(len(group), device=group.device)
    place = place - torch.searchsorted(group[order], group[order])  # in its group
    return torch.zeros_like(chosen).index_put((order,), place < samples)


def _replaced(tokens: Tensor, inside: Tensor, texts: Tensor) -> Tensor:
    """Tokens `(V, C)` with texts `(V, L)` in the place of those `inside` `(V, C)`."""
    columns, length = tokens.shape[1], texts.shape[1]
    beyond = columns + length - 1  # where what is left out goes
    first = inside.int().argmax(dim=1, keepdim=True)
    size = (texts != NOTHING).sum(dim=1, keepdim=True)
    after = torch.arange(columns, device=tokens.device) > first
    place = torch.where(inside, beyond, (~inside).cumsum(dim=1) - 1 + size * after)
    rows = tokens[:, -1:].repeat(1, columns + length).scatter_(1, place, tokens)
    place = first + torch.arange(length, device=tokens.device)
    return rows.scatter_(1, torch.where(texts == NOTHING, beyond, place), texts)[:, :columns]
