"""Attribute similarity to words by the drop in similarity when a word is replaced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cae_lib.attribution.base import Attribution, AttributionMethod, Captions, word_masks
from cae_lib.errors import ConfigError

NO_TOKEN = -1
"""Padding after the token ids of a word; a row of padding alone stands for no replacement. In
`_sample_per_group`, the group of the words that are not selected."""


@dataclass(frozen=True)
class CounterfactualAttribution(AttributionMethod):
    """Attribution by the drop in similarity when a word is replaced by another of its role.

    This method is not in the paper. Each token of word j has the score
    `a_j = S(I, T) - S(I, T with word j replaced)`, where S(I, T) is the cosine similarity of image
    I and caption T, computed with dropout disabled. The role of a word is the highest role of its
    tokens.

    The replacement is drawn with torch's global generator from the words in the batch that have the
    role of word j, with a probability proportional to their frequency. Words that the caption
    contains are excluded. So are words with more tokens than word j if the padding at the end of
    the caption does not make room for them, and words with fewer tokens if the caption has no
    padding there. Padding is the run of equal tokens at the end without the first of them, which
    may be the end-of-text token. A word without a role or without a possible replacement has no
    score; see `Attribution.has_score`.

    Attributes:
        samples: In each caption, at most this many object words are scored, and at most this many
            attribute and relation words together. They are drawn with torch's global generator.
            None scores all words.
    """

    scores_words: ClassVar[bool] = True
    differentiates: ClassVar[bool] = False
    positive_parameters: ClassVar[tuple[str, ...]] = ("samples",)
    samples: int | None = None

    def score(self, captions: Captions) -> Attribution:
        """Replace each word in turn and compute by how much the similarity drops.

        Raises:
            ConfigError: If roles are missing, or word numbers are missing and the vocabulary is not
                CLIP's.
        """
        if captions.roles is None:
            raise ConfigError("counterfactual needs roles: 1 object, 2 attribute, 3 relation.")
        tokens = captions.tokens
        caption, masks = word_masks(captions.word_numbers(tokens.shape[1]).long())
        role = torch.where(masks, captions.roles[caption], 0).amax(dim=1).long()
        replacements = _draw_replacements(tokens, caption, masks, role)
        selected = captions.is_requested(caption, masks) & (replacements[:, 0] != NO_TOKEN)
        if self.samples is not None:
            selected &= _sample_per_group(2 * caption + (role > 1), selected, self.samples)
        caption, masks = caption[selected], masks[selected]
        variants = _replace_words(tokens[caption], masks, replacements[selected])
        return captions.score_by_variants(variants, caption, masks)


def _draw_replacements(tokens: Tensor, caption: Tensor, masks: Tensor, role: Tensor) -> Tensor:
    """Draw another word for each of N words.

    Args:
        tokens: Ids of the captions `(B, C)`.
        caption: Row of each word's caption `(N,)`.
        masks: Tokens of each word `(N, C)` bool.
        role: Role of each word `(N,)`.

    Returns:
        The token ids of the replacements `(N, L)`, padded by `NO_TOKEN` to the L tokens of the
        longest word. A word without a possible replacement has a row of padding alone.
    """
    all_texts = _word_texts(tokens[caption], masks)
    texts, text = torch.unique(all_texts, dim=0, return_inverse=True)
    kinds, count = torch.unique(4 * text + role, return_counts=True)  # a text in a role
    candidate = kinds // 4
    contains = torch.zeros(len(tokens), len(texts), dtype=torch.bool, device=tokens.device)
    contains[caption, text] = True
    # Count the equal tokens at the end without the first, which may be the end-of-text token.
    is_padding = tokens.flip(1) == tokens[:, -1:]
    n_padding = (is_padding.long().cumprod(dim=1).sum(dim=1) - 1)[caption][:, None]
    size = (texts != NO_TOKEN).sum(dim=1)
    n_longer = size[candidate] - size[text][:, None]
    allowed = (kinds % 4 == role[:, None]) & (role > 0)[:, None] & ~contains[caption][:, candidate]
    allowed &= n_longer <= n_padding
    allowed &= (n_longer >= 0) | (n_padding > 0)  # there is padding to copy
    cumulative = (allowed * count).cumsum(dim=1)
    draw = torch.rand(len(text), dtype=torch.float64).to(tokens.device) * (allowed * count).sum(1)
    index = (cumulative <= draw.long().unsqueeze(1)).sum(dim=1)  # beyond the last: none
    return F.pad(texts[candidate], (0, 0, 0, 1), value=NO_TOKEN)[index]


def _word_texts(tokens: Tensor, masks: Tensor) -> Tensor:
    """Return the tokens that `masks` marks in each row of `(N, C)`, moved to the left.

    The result `(N, L)` is padded by `NO_TOKEN` to the largest number L of marked tokens.
    """
    length = max(masks.sum(dim=1).tolist(), default=1)
    texts = tokens.new_full((len(tokens), length + 1), NO_TOKEN)
    target_column = torch.where(masks, masks.cumsum(dim=1) - 1, length)
    return texts.scatter_(1, target_column, torch.where(masks, tokens, NO_TOKEN))[:, :length]


def _sample_per_group(group: Tensor, selected: Tensor, samples: int) -> Tensor:
    """Return which of the selected words `(N,)` are sampled: at most `samples` of each group.

    The result has no meaning for words that are not selected.
    """
    group = torch.where(selected, group, NO_TOKEN)
    order = torch.rand(len(group)).to(group.device).argsort()
    order = order[group[order].argsort(stable=True)]
    number = torch.arange(len(group), device=group.device)
    number_in_group = number - torch.searchsorted(group[order], group[order])
    return torch.zeros_like(selected).index_put((order,), number_in_group < samples)


def _replace_words(tokens: Tensor, masks: Tensor, texts: Tensor) -> Tensor:
    """Replace the masked tokens of captions `(V, C)` by words.

    A row of `texts` `(V, L)` holds the up to L tokens of the word, padded by `NO_TOKEN`. The tokens
    after the word move with its end. The result still has C columns: surplus padding is cut off,
    and free columns are filled with the last token of the caption.
    """
    columns, length = tokens.shape[1], texts.shape[1]
    discard = columns + length - 1  # the column that takes tokens that are left out
    first = masks.int().argmax(dim=1, keepdim=True)
    size = (texts != NO_TOKEN).sum(dim=1, keepdim=True)
    after = torch.arange(columns, device=tokens.device) > first
    target_column = torch.where(masks, discard, (~masks).cumsum(dim=1) - 1 + size * after)
    rows = tokens[:, -1:].repeat(1, columns + length).scatter_(1, target_column, tokens)
    target_column = first + torch.arange(length, device=tokens.device)
    target_column = torch.where(texts == NO_TOKEN, discard, target_column)
    return rows.scatter_(1, target_column, texts)[:, :columns]
