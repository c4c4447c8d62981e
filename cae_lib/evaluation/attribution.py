"""How much attribution the words of each role get: Figures 1 and 7 of the paper."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from cae_lib.attribution import get_method
from cae_lib.attribution.base import resolve_words
from cae_lib.attribution.measures import masked_similarity
from cae_lib.attribution.word_scores import scores_by_word
from cae_lib.config import paths
from cae_lib.data.benchmarks.base import ImageRef
from cae_lib.data.captions import Pairs
from cae_lib.data.training_set import default_tagger
from cae_lib.evaluation.datasets import SAMPLES, even_rows, retrieval_pairs
from cae_lib.evaluation.encoder import Encoder, evaluating
from cae_lib.methods import METHODS
from cae_lib.models.text_encoder import text_encoder
from cae_lib.words.alignment import Alignment, token_roles
from cae_lib.words.roles import ROLE_NAMES

INTEGRATED = "integrated_gradients"
TOLERANCE = 0.01
"""Largest error of integrated gradients that is accepted, in units of the cosine."""


def annotated_captions(encoder: Encoder, profile: str) -> tuple[Pairs, Alignment]:
    """COCO's test captions with their tokens and roles."""
    pairs, cache = retrieval_pairs(profile, "coco"), paths().cache / "roles"
    return pairs, token_roles(pairs.captions, encoder.clip.tokenizer, default_tagger(), cache)


def captions_of(encoder: Encoder, profile: str, limit: int) -> WordSample:
    """`word_sample` of COCO's test captions."""
    return word_sample(encoder, *annotated_captions(encoder, profile), limit)


def attribution_suite(
    encoder: Encoder, profile: str, methods: Iterable[str] = METHODS
) -> pd.DataFrame:
    """`attribution_table` of COCO's test captions."""
    return attribution_table(encoder, *annotated_captions(encoder, profile), methods)


def binding_suite(encoder: Encoder, profile: str) -> pd.DataFrame:
    """That of CAE on bindings."""
    return attribution_suite(encoder, profile, ["binding"])


def attribution_table(
    encoder: Encoder,
    pairs: Pairs,
    alignment: Alignment,
    methods: Iterable[str] = METHODS,
    limit: int | None = SAMPLES["attribution"],
    batch_size: int = 100,
    **parameters: Any,
) -> pd.DataFrame:
    """Score the words of matched captions by attribution methods, which take `parameters`.

    `limit` captions are taken evenly over the set, None takes all; `batch_size` go through the
    model at once. A row for each method and each token of a word that it scores: method, caption
    and picture (numbers in `pairs`), position of the token, word and role (texts), score.
    """
    sample, model = word_sample(encoder, pairs, alignment, limit), encoder.clip.model
    words = sample.words.cpu().numpy()
    place, position = np.nonzero(words)
    texts = [sample.word_texts(i, encoder.clip.tokenizer) for i in range(len(words))]
    tokens = {
        "caption": sample.captions[place],
        "picture": sample.pictures[place],
        "position": position.astype(np.int16),
        "word": [texts[i][n - 1] for i, n in zip(place, words[place, position], strict=True)],
        "role": np.array(ROLE_NAMES)[sample.roles.cpu().numpy()[place, position]],
    }
    tables = []
    with evaluating(model):
        for method in methods:
            scores = sample.token_scores(model, method, batch_size, **parameters).cpu().numpy()
            tables.append(
                pd.DataFrame({"method": method, **tokens, "score": scores[place, position]})
            )
    return pd.concat(tables, ignore_index=True).dropna(subset=["score"], ignore_index=True)


@dataclass(frozen=True)
class WordSample:
    """Some captions of a set, each with its own picture; those without a word are left out."""

    captions: np.ndarray  # (C,) int32, their numbers in the set
    pictures: np.ndarray  # (C,) int32, the numbers of their pictures
    tokens: Tensor  # (C, T), T the longest caption
    words: Tensor  # (C, T), number of the word each token belongs to, 0 for none
    roles: Tensor  # (C, T), role of each token
    arguments: Tensor  # (C, T, 2), words that its word is said of, see `Alignment`
    image_features: Tensor  # (C, E), normalised

    @cached_property
    def n_words(self) -> np.ndarray:
        """Words of each caption `(C,)`."""
        return self.words.amax(dim=1).cpu().numpy()

    def rows(self, rows: np.ndarray) -> WordSample:
        """Some of these captions, by their places."""
        return WordSample(*(getattr(self, field.name)[rows] for field in fields(self)))

    def with_images_of(self, encoder: Encoder, pairs: Pairs) -> WordSample:
        """These captions with another model's features of their images, by the images' numbers."""
        features = encoder.images([ImageRef(pairs.image_paths[n]) for n in self.pictures])
        return replace(self, image_features=torch.from_numpy(features).to(encoder.device))

    def scores(
        self, model: nn.Module, method: str, merged_by: str = "mean", **parameters: Any
    ) -> np.ndarray:
        """Scores `(C, W)` of the words by a method: "mean" or "sum" over a word's tokens."""
        return scores_by_word(self.token_scores(model, method, **parameters), self.words, merged_by)

    def token_scores(
        self, model: nn.Module, method: str, batch_size: int = 20, **parameters: Any
    ) -> Tensor:
        """Scores `(C, T)` of the tokens by a method, 0 after a caption's end, NaN where none is."""
        scorer, scores = get_method(method, **parameters), torch.zeros(self.tokens.shape)
        for rows in torch.arange(len(self.tokens)).split(batch_size):
            own = {name: getattr(self, name)[rows] for name in ("words", "roles", "arguments")}
            found = scorer(model, self.tokens[rows], self.image_features[rows], **own)
            own_scores = found.scores.float()
            if found.has_score is not None:
                own_scores = own_scores.masked_fill(~found.has_score, torch.nan)
            scores[rows, : found.length] = own_scores.cpu()
        return scores.to(self.tokens.device)

    def masked(
        self, model: nn.Module, captions: np.ndarray, masked: np.ndarray, mask: str = "mean"
    ) -> np.ndarray:
        """S `(V,)` of captions with some words masked; see `masked_similarity`."""
        return masked_similarity(
            model, self.tokens, self.image_features, self.words, captions, masked, mask
        )

    def integrated_gradients(
        self, model: nn.Module, points: int = 8, most_points: int = 256
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Integrated gradients `(C, W)` of the words, errors and points `(C,)`. The scores of a
        caption add up to S(I, T) - S(I, T with every word masked); captions that miss this by more
        than `TOLERANCE` are scored again with twice the points."""
        rows = np.arange(len(self.tokens))
        inside = np.arange(self.n_words.max()) < self.n_words[:, None]
        drop = self.masked(model, rows, np.zeros_like(inside)) - self.masked(model, rows, inside)
        scores = np.full(inside.shape, np.nan)
        error, used = np.full(len(rows), np.inf), np.zeros(len(rows), dtype=int)
        while len(rows) and points <= most_points:
            found = self.rows(rows).scores(model, INTEGRATED, "sum", points=points)
            scores[rows, : found.shape[1]] = found
            error[rows], used[rows] = np.abs(np.nansum(found, axis=1) - drop[rows]), points
            rows, points = np.flatnonzero(error > TOLERANCE), 2 * points
        return scores, error, used

    def word_roles(self, place: int) -> list[str]:
        """Name of the role of each word of a caption: that of its first token."""
        words, roles = self.words[place].tolist(), self.roles[place].tolist()
        return [ROLE_NAMES[roles[words.index(n)]] for n in range(1, max(words) + 1)]

    def word_texts(self, place: int, tokenizer: Any) -> list[str]:
        """The words of a caption as text."""
        words, tokens = self.words[place], self.tokens[place]
        return [
            tokenizer.decode(tokens[words == number].tolist()).strip()
            for number in range(1, int(self.n_words[place]) + 1)
        ]


def word_sample(
    encoder: Encoder, pairs: Pairs, alignment: Alignment, limit: int | None
) -> WordSample:
    """About `limit` captions, taken evenly over the set, with the features of their pictures."""
    rows = even_rows(len(pairs.captions), limit)
    encoding = text_encoder(encoder.clip.model)
    words = resolve_words(alignment.words, alignment.tokens, encoding)
    rows = rows[(words[rows].amax(dim=1) > 0).numpy()]
    length = encoding.used_columns(alignment.tokens[rows])
    pictures = np.asarray(pairs.image_index)[rows]
    features = encoder.images([ImageRef(pairs.image_paths[number]) for number in pictures])
    tensors = (
        *(
            tensor[rows, :length]
            for tensor in (alignment.tokens, words, alignment.roles, alignment.arguments)
        ),
        torch.from_numpy(features),
    )
    return WordSample(
        rows.astype(np.int32),
        pictures.astype(np.int32),
        *(tensor.to(encoder.device) for tensor in tensors),
    )
