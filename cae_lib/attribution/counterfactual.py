"""Attribute similarity to words by the drop in similarity when a word is replaced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from cae_lib.attribution.base import Attribution, AttributionMethod, Captions, word_masks
from cae_lib.errors import ConfigError
from cae_lib.words.roles import OBJECT

NO_TOKEN = -1
"""Padding after the tokens of a word; a row of padding alone stands for no replacement."""


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
        """Replace each word in turn and compute by how much the similarity drops."""
        if captions.roles is None:
            raise ConfigError("counterfactual needs roles: 1 object, 2 attribute, 3 relation.")
        tokens = captions.tokens
        # (N,) and (N, C) for N words
        caption_rows, masks = word_masks(captions.word_numbers(tokens.shape[1]).long())
        # A tagger may mark only a part of a word, so the highest role of its tokens counts.
        role = torch.where(masks, captions.roles[caption_rows], 0).amax(dim=1).long()
        # For all words, because words that are not requested may replace those that are.
        replacements = _draw_replacements(tokens, caption_rows, masks, role)
        selected = captions.is_requested(caption_rows, masks) & (replacements[:, 0] != NO_TOKEN)
        if self.samples is not None:
            # One group for the objects of a caption, one for its attributes and relations.
            selected &= _sample_per_group(
                2 * caption_rows + (role > OBJECT), selected, self.samples
            )
        caption_rows, masks = caption_rows[selected], masks[selected]
        variants = _replace_words(tokens[caption_rows], masks, replacements[selected])
        return captions.score_by_variants(caption_rows, masks, variants)


def _draw_replacements(tokens: Tensor, caption_rows: Tensor, masks: Tensor, role: Tensor) -> Tensor:
    """Draw another word of its role for each of N words.

    Returns token ids `(N, L)`, padded by `NO_TOKEN` to the longest word; only padding for a word
    that none can replace.
    """
    all_texts = _word_texts(tokens[caption_rows], masks)
    # The M different words of the batch (M, L), and which of them each word is (N,).
    texts, word_index = torch.unique(all_texts, dim=0, return_inverse=True)
    # K candidates, a different word in a role, with their frequency. Roles are below 4, so that one
    # number holds both.
    word_and_role, count = torch.unique(4 * word_index + role, return_counts=True)
    candidate, candidate_role = word_and_role // 4, word_and_role % 4
    # (B, M): a word of the caption is no replacement.
    contains = torch.zeros(len(tokens), len(texts), dtype=torch.bool, device=tokens.device)
    contains[caption_rows, word_index] = True
    # Count the equal tokens at the end without the first, which may be the end-of-text token.
    is_padding = tokens.flip(1) == tokens[:, -1:]
    n_padding = (is_padding.long().cumprod(dim=1).sum(dim=1) - 1)[caption_rows][:, None]
    n_tokens = (texts != NO_TOKEN).sum(dim=1)
    # (N, K): number of tokens by which the caption would grow.
    n_longer = n_tokens[candidate] - n_tokens[word_index][:, None]
    allowed = (candidate_role == role[:, None]) & (role > 0)[:, None]
    allowed &= ~contains[caption_rows][:, candidate]
    # Only padding may be pushed out of the C columns.
    allowed &= n_longer <= n_padding
    # A shorter word leaves free columns, which need padding to copy.
    allowed &= (n_longer >= 0) | (n_padding > 0)
    cumulative = (allowed * count).cumsum(dim=1)
    # On the CPU, so that one seed draws the same words on every device.
    draw = torch.rand(len(role), dtype=torch.float64).to(tokens.device) * (allowed * count).sum(1)
    # The number of candidates whose cumulative frequency does not exceed the draw. Without any
    # allowed one this is K, the row of padding that is appended below.
    index = (cumulative <= draw.long().unsqueeze(1)).sum(dim=1)
    return F.pad(texts[candidate], (0, 0, 0, 1), value=NO_TOKEN)[index]


def _word_texts(tokens: Tensor, masks: Tensor) -> Tensor:
    """Return the masked tokens of each row `(N, C)` moved to the left `(N, L)`, then `NO_TOKEN`."""
    length = max(masks.sum(dim=1).tolist(), default=1)
    texts = tokens.new_full((len(tokens), length + 1), NO_TOKEN)
    # All other tokens go to one column beyond the last, which is cut off.
    target_column = torch.where(masks, masks.cumsum(dim=1) - 1, length)
    return texts.scatter_(1, target_column, torch.where(masks, tokens, NO_TOKEN))[:, :length]


def _sample_per_group(group: Tensor, selected: Tensor, samples: int) -> Tensor:
    """Return which selected words `(N,)` are sampled: at most `samples` of each group.

    The result has no meaning for words that are not selected.
    """
    # Words that are not selected form a group of their own.
    group = torch.where(selected, group, NO_TOKEN)
    order = torch.rand(len(group)).to(group.device).argsort()
    # A stable sort by group keeps the random order within each group.
    order = order[group[order].argsort(stable=True)]
    number = torch.arange(len(group), device=group.device)
    # `searchsorted` finds where each group begins.
    number_in_group = number - torch.searchsorted(group[order], group[order])
    return torch.zeros_like(selected).index_put((order,), number_in_group < samples)


def _replace_words(tokens: Tensor, masks: Tensor, texts: Tensor) -> Tensor:
    """Replace the masked tokens of captions `(V, C)` by words `texts` `(V, L)`.

    The tokens after a word move with its end. The result still has C columns: surplus padding is
    cut off, and free columns are filled with the last token of the caption.
    """
    columns, length = tokens.shape[1], texts.shape[1]
    # The last column takes all tokens that are left out.
    discard = columns + length - 1
    first = masks.int().argmax(dim=1, keepdim=True)
    size = (texts != NO_TOKEN).sum(dim=1, keepdim=True)
    after = torch.arange(columns, device=tokens.device) > first
    # Tokens before the word keep their column; those after it follow its new end.
    target_column = torch.where(masks, discard, (~masks).cumsum(dim=1) - 1 + size * after)
    # Every column starts as the caption's last token, its padding.
    rows = tokens[:, -1:].repeat(1, columns + length).scatter_(1, target_column, tokens)
    target_column = first + torch.arange(length, device=tokens.device)
    target_column = torch.where(texts == NO_TOKEN, discard, target_column)
    return rows.scatter_(1, target_column, texts)[:, :columns]
