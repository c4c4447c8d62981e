"""Captions with their words and pictures, ready to be scored word by word."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cae_lib.attribution import get_method
from cae_lib.attribution.faithfulness import masked_similarity
from cae_lib.attribution.grouping import words_or_own
from cae_lib.attribution.word_scores import scores_by_word
from cae_lib.data.captions import Pairs
from cae_lib.evaluation.embed import Encoder, ImageRef
from cae_lib.models.text_encoder import text_encoder
from cae_lib.words.alignment import Alignment
from cae_lib.words.roles import ROLE_NAMES

SCORED_AT_ONCE = 20


@dataclass(frozen=True)
class WordSample:
    """Some captions of a set, each with its own picture; those without a word are left out.

    Attributes:
        captions: `(C,)` int32, their numbers in the set.
        pictures: `(C,)` int32, the numbers of their pictures.
        tokens: `(C, T)`, T the longest caption.
        words: `(C, T)` number of the word each token belongs to, 0 for none.
        roles: `(C, T)` role of each token.
        image_features: `(C, E)`, normalised.
    """

    captions: np.ndarray
    pictures: np.ndarray
    tokens: Tensor
    words: Tensor
    roles: Tensor
    image_features: Tensor

    @cached_property
    def n_words(self) -> np.ndarray:
        """Words of each caption `(C,)`."""
        return self.words.amax(dim=1).cpu().numpy()

    def rows(self, rows: np.ndarray) -> WordSample:
        """Some of these captions, by their places."""
        return WordSample(*(getattr(self, field.name)[rows] for field in fields(self)))

    def scores(
        self, model: nn.Module, method: str, merged_by: str = "mean", **parameters: Any
    ) -> np.ndarray:
        """Scores `(C, W)` of the words by a method: "mean" or "sum" over a word's tokens."""
        return scores_by_word(self.token_scores(model, method, **parameters), self.words, merged_by)

    def token_scores(
        self, model: nn.Module, method: str, batch_size: int = SCORED_AT_ONCE, **parameters: Any
    ) -> Tensor:
        """Scores `(C, T)` of the tokens by a method, 0 after a caption's end."""
        scorer, found = get_method(method, **parameters), torch.zeros(self.tokens.shape)
        for rows in torch.arange(len(self.tokens)).split(batch_size):
            inputs, words = (self.tokens[rows], self.image_features[rows]), self.words[rows]
            scores = scorer(model, *inputs, words=words).scores
            found[rows, : scores.shape[1]] = scores.detach().float().cpu()
        return found.to(self.tokens.device)

    def masked(
        self, model: nn.Module, captions: np.ndarray, masked: np.ndarray, mask: str = "mean"
    ) -> np.ndarray:
        """S `(V,)` of captions with some words masked; see `masked_similarity`."""
        parts = (self.tokens, self.image_features, self.words)
        return masked_similarity(model, *parts, captions, masked, mask)

    def word_roles(self, place: int) -> list[str]:
        """Name of the role of each word of a caption: that of its first token."""
        words, roles = self.words[place].tolist(), self.roles[place].tolist()
        return [ROLE_NAMES[roles[words.index(n)]] for n in range(1, max(words) + 1)]

    def word_texts(self, place: int, tokenizer: Any) -> list[str]:
        """The words of a caption as text."""
        pairs = list(zip(self.words[place].tolist(), self.tokens[place].tolist(), strict=True))
        return [
            tokenizer.decode([token for word, token in pairs if word == number]).strip()
            for number in range(1, int(self.n_words[place]) + 1)
        ]


def even_rows(total: int, limit: int | None) -> np.ndarray:
    """At most `limit` row numbers, spread evenly over all; None takes all."""
    return np.unique(np.linspace(0, total - 1, min(limit or total, total)).astype(int))


def word_sample(
    encoder: Encoder, pairs: Pairs, alignment: Alignment, limit: int | None
) -> WordSample:
    """About `limit` captions, taken evenly over the set, with the features of their pictures."""
    rows = even_rows(len(pairs.captions), limit)
    encoding = text_encoder(encoder.clip.model)
    tokens = alignment.tokens[rows]
    words = words_or_own(alignment.words, alignment.tokens, encoding)[rows]
    kept = words.amax(dim=1) > 0
    rows, tokens, words = rows[kept.numpy()], tokens[kept], words[kept]
    length = encoding.columns(tokens)
    pictures = np.asarray(pairs.image_index)[rows]
    images = encoder.images([ImageRef(pairs.image_paths[number]) for number in pictures])
    device = next(encoder.clip.model.parameters()).device
    return WordSample(
        captions=rows.astype(np.int32),
        pictures=pictures.astype(np.int32),
        tokens=tokens[:, :length].to(device),
        words=words[:, :length].to(device),
        roles=alignment.roles[rows, :length].to(device),
        image_features=torch.from_numpy(images).to(device),
    )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, and back afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
