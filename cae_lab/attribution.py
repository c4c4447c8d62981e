"""Attribution scores of words, with the roles of the words (Figures 1 and 7 of the paper)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from cae_bench.benchmarks.base import ImageRef
from cae_bench.datasets import retrieval_pairs
from cae_bench.encoder import Encoder, eval_mode
from cae_lab.runs import Profile
from cae_lab.samples import SAMPLE_SIZES, evenly_spaced_indices
from cae_lab.training_set import default_tagger
from cae_lib.attribution import get_method
from cae_lib.attribution.base import resolve_word_numbers
from cae_lib.attribution.word_scores import merge_token_scores
from cae_lib.config import paths
from cae_lib.data.captions import ImageCaptionPairs
from cae_lib.methods import PAPER_METHODS
from cae_lib.models.text_encoder import text_encoder
from cae_lib.words.alignment import Alignment, token_roles, unwrap_tokenizer
from cae_lib.words.roles import ROLE_NAMES


def coco_pairs_and_alignment(
    encoder: Encoder, profile: Profile
) -> tuple[ImageCaptionPairs, Alignment]:
    """Load COCO's test captions with their image paths, and align the captions with word roles."""
    # Word roles are cached on disk, and models with the same vocabulary share them.
    pairs, cache = retrieval_pairs(profile.datasets, "coco"), paths().cache / "roles"
    return pairs, token_roles(pairs.captions, encoder.clip.tokenizer, default_tagger(), cache)


def coco_attribution_table(
    encoder: Encoder, profile: Profile, methods: Iterable[str] = PAPER_METHODS
) -> pd.DataFrame:
    """Score the tokens of a sample of COCO's test captions."""
    return attribution_table(encoder, *coco_pairs_and_alignment(encoder, profile), methods)


def coco_binding_table(encoder: Encoder, profile: Profile) -> pd.DataFrame:
    """Score the tokens of a sample of COCO's test captions by the method "binding"."""
    return coco_attribution_table(encoder, profile, ["binding"])


def attribution_table(
    encoder: Encoder,
    pairs: ImageCaptionPairs,
    alignment: Alignment,
    methods: Iterable[str] = PAPER_METHODS,
    limit: int | None = SAMPLE_SIZES["attribution"],
    batch_size: int = 100,
    **parameters: Any,
) -> pd.DataFrame:
    """Return a row for each method and each token that belongs to a word and has a score.

    `caption` and `picture` are positions in `pairs.captions` and `pairs.image_paths`, and
    `position` is the index of the token in its row of `alignment.tokens`. Every method gets all
    `parameters`.
    """
    sample, model = sample_captions(encoder, pairs, alignment, limit), encoder.clip.model
    words = sample.words.cpu().numpy()  # (captions, tokens)
    # Two arrays with an entry for each token that belongs to a word. Start, end and padding tokens
    # have word number 0.
    row, position = np.nonzero(words)
    texts = [sample.word_texts(i, encoder.clip.tokenizer) for i in range(len(words))]
    tokens = {
        "caption": sample.caption_index[row],
        "picture": sample.image_index[row],
        "position": position.astype(np.int16),
        "word": [texts[i][n - 1] for i, n in zip(row, words[row, position], strict=True)],
        "role": np.array(ROLE_NAMES)[sample.roles.cpu().numpy()[row, position]],
    }
    tables = []
    with eval_mode(model):
        for method in methods:
            scores = sample.token_scores(model, method, batch_size, **parameters).cpu().numpy()
            table = pd.DataFrame({"method": method, **tokens, "score": scores[row, position]})
            tables.append(table)
    # A method such as "binding" scores only some words; the tokens of the others are NaN.
    return pd.concat(tables, ignore_index=True).dropna(subset=["score"], ignore_index=True)


@dataclass(frozen=True)
class CaptionSample:
    """C captions with at least one word each, on the device of the model; see `Alignment`.

    Attributes:
        caption_index: Positions in `ImageCaptionPairs.captions`, int32 `(C,)`.
        image_index: Positions in `ImageCaptionPairs.image_paths`, int32 `(C,)`.
        tokens: `(C, T)`, where T is at most the context length.
        words: Word number of each token `(C, T)`, from 1; 0 for no word.
        roles: `(C, T)`, indices into `ROLE_NAMES`.
        arguments: `(C, T, 2)`.
        image_features: Unit vectors of the captions' images `(C, E)`.
    """

    caption_index: np.ndarray
    image_index: np.ndarray
    tokens: Tensor
    words: Tensor
    roles: Tensor
    arguments: Tensor
    image_features: Tensor

    @cached_property
    def n_words(self) -> np.ndarray:
        """Number of words of each caption `(C,)`."""
        return self.words.amax(dim=1).cpu().numpy()

    def take(self, rows: np.ndarray) -> CaptionSample:
        """Return a sample with only the captions in these rows."""
        return CaptionSample(*(getattr(self, field.name)[rows] for field in fields(self)))

    def word_scores(
        self,
        model: nn.Module,
        method: str,
        reduction: Literal["mean", "sum"] = "mean",
        **parameters: Any,
    ) -> np.ndarray:
        """Return scores of words, float64 `(C, W)`, NaN after the last word or without a score.

        Use "mean" for a method that scores whole words: each token then has its word's score.
        """
        return merge_token_scores(
            self.token_scores(model, method, **parameters), self.words, reduction
        )

    def token_scores(
        self, model: nn.Module, method: str, batch_size: int = 20, **parameters: Any
    ) -> Tensor:
        """Return scores of tokens, float32 `(C, T)`, NaN for words that the method does not score.

        Scores of tokens that belong to no word have no meaning.
        """
        scorer, scores = get_method(method, **parameters), torch.zeros(self.tokens.shape)
        for rows in torch.arange(len(self.tokens)).split(batch_size):
            output = scorer(
                model,
                self.tokens[rows],
                self.image_features[rows],
                words=self.words[rows],
                roles=self.roles[rows],
                arguments=self.arguments[rows],
            )
            batch_scores = output.scores.float()
            # Without a score there would be a 0, which looks like a word without any effect.
            if output.has_score is not None:
                batch_scores = batch_scores.masked_fill(~output.has_score, torch.nan)
            # A batch of short captions is scored in fewer columns than the longest caption has.
            scores[rows, : output.sequence_length] = batch_scores.cpu()
        return scores.to(self.tokens.device)

    def word_roles(self, row: int) -> list[str]:
        """Return the role name of each word of caption `row`: the role of its first token."""
        words, roles = self.words[row].tolist(), self.roles[row].tolist()
        return [ROLE_NAMES[roles[words.index(n)]] for n in range(1, max(words) + 1)]

    def word_texts(self, row: int, tokenizer: Any) -> list[str]:
        """Return the text of each word of caption `row`, as the tokenizer decodes it."""
        words, tokens = self.words[row], self.tokens[row]
        tokenizer = unwrap_tokenizer(tokenizer)
        return [
            tokenizer.decode(tokens[words == number].tolist()).strip()
            for number in range(1, int(self.n_words[row]) + 1)
        ]


def sample_captions(
    encoder: Encoder, pairs: ImageCaptionPairs, alignment: Alignment, limit: int | None
) -> CaptionSample:
    """Encode the images of `limit` evenly spaced captions, less those without a word."""
    rows = evenly_spaced_indices(len(pairs.captions), limit)
    encoding = text_encoder(encoder.clip.model)
    words = resolve_word_numbers(alignment.words, alignment.tokens, encoding)
    rows = rows[(words[rows].amax(dim=1) > 0).numpy()]
    # Columns after the last end-of-text token affect no feature in a causal tower.
    length = encoding.n_used_columns(alignment.tokens[rows])
    image_index = np.asarray(pairs.image_index)[rows]
    features = encoder.encode_images(
        [ImageRef(pairs.image_paths[number]) for number in image_index]
    )
    assert alignment.arguments is not None, "only the roles of placebos have no arguments"
    by_token = (alignment.tokens, words, alignment.roles, alignment.arguments)
    tensors = (*(tensor[rows, :length] for tensor in by_token), torch.from_numpy(features))
    return CaptionSample(
        rows.astype(np.int32),
        image_index.astype(np.int32),
        *(tensor.to(encoder.device) for tensor in tensors),
    )
