"""Captions with their words and pictures, ready to be scored word by word."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from open_clip import SimpleTokenizer
from torch import Tensor, nn

from cae_lib.attribution import get_method
from cae_lib.attribution.faithfulness import masked_similarity
from cae_lib.attribution.grouping import word_index
from cae_lib.attribution.ranking import scores_by_word
from cae_lib.data.captions import Pairs
from cae_lib.evaluation.embed import Encoder, ImageRef
from cae_lib.models.text_encoder import text_encoder
from cae_lib.words.alignment import Alignment

SCORED_AT_ONCE = 20


@dataclass(frozen=True)
class WordSample:
    """Some captions of a set, each with its own picture.

    Attributes:
        tokens: `(C, T)`, T the longest caption.
        words: `(C, T)` number of the word each token belongs to, 0 for none.
        roles: `(C, T)` role of each token.
        image_features: `(C, E)`, normalised.
        n_expected: Captions asked for; those without a word are left out.
    """

    tokens: Tensor
    words: Tensor
    roles: Tensor
    image_features: Tensor
    n_expected: int

    @cached_property
    def n_words(self) -> np.ndarray:
        """Words of each caption `(C,)`."""
        return self.words.amax(dim=1).cpu().numpy()

    def first(self, n: int) -> WordSample:
        """About n of these captions, taken evenly."""
        return self.rows(even_rows(len(self.tokens), n))

    def rows(self, rows: np.ndarray) -> WordSample:
        """Some of these captions, by their numbers."""
        parts = (self.tokens, self.words, self.roles, self.image_features)
        return WordSample(*(part[torch.from_numpy(rows)] for part in parts), len(rows))

    def scores(
        self, model: nn.Module, method: str, merged_by: str = "mean", **parameters: object
    ) -> np.ndarray:
        """Scores `(C, W)` of the words by a method: "mean" or "sum" over a word's tokens."""
        tokens = self.token_scores(model, method, **parameters)
        return scores_by_word(tokens, self.words, merged_by)

    def token_scores(self, model: nn.Module, method: str, **parameters: object) -> Tensor:
        """Scores `(C, T)` of the tokens by a method, 0 after a caption's end."""
        scorer, found = get_method(method, **parameters), torch.zeros(self.tokens.shape)
        for rows in torch.arange(len(self.tokens)).split(SCORED_AT_ONCE):
            scores = scorer(model, self.tokens[rows], self.image_features[rows]).scores
            found[rows, : scores.shape[1]] = scores.detach().float().cpu()
        return found.to(self.tokens.device)

    def masked(
        self, model: nn.Module, captions: np.ndarray, masked: np.ndarray, mask: str = "mean"
    ) -> np.ndarray:
        """S `(V,)` of captions with some words masked; see `masked_similarity`."""
        parts = (self.tokens, self.image_features, self.words)
        return masked_similarity(model, *parts, captions, masked, mask)

    def word_roles(self, caption: int) -> list[int]:
        """Role of each word of a caption: that of its first token."""
        words, roles = self.words[caption].tolist(), self.roles[caption].tolist()
        return [roles[words.index(number)] for number in range(1, max(words) + 1)]

    def word_texts(self, caption: int, tokenizer: SimpleTokenizer) -> list[str]:
        """The words of a caption as text."""
        words = self.words[caption]
        return [
            tokenizer.decode(self.tokens[caption][words == number].tolist()).strip()
            for number in range(1, int(words.max()) + 1)
        ]


def even_rows(total: int, limit: int) -> np.ndarray:
    """At most `limit` row numbers, spread evenly over all."""
    return np.unique(np.linspace(0, total - 1, min(limit, total)).astype(int))


def word_sample(encoder: Encoder, pairs: Pairs, alignment: Alignment, limit: int) -> WordSample:
    """About `limit` captions, taken evenly over the set, with the features of their pictures."""
    rows = even_rows(len(pairs.captions), limit)
    encoding = text_encoder(encoder.clip.model)
    tokens = alignment.tokens[torch.from_numpy(rows)]
    words = word_index(tokens, encoding.vocabulary_size)
    kept = words.amax(dim=1) > 0
    rows, tokens, words = rows[kept.numpy()], tokens[kept], words[kept]
    length = encoding.columns(tokens)
    images = encoder.images([ImageRef(pairs.image_paths[pairs.image_index[i]]) for i in rows])
    device = next(encoder.clip.model.parameters()).device
    return WordSample(
        tokens=tokens[:, :length].to(device),
        words=words[:, :length].to(device),
        roles=alignment.roles[torch.from_numpy(rows), :length].to(device),
        image_features=torch.from_numpy(images).to(device),
        n_expected=len(kept),
    )
