"""Interface of the text encoders, and the positions at which text features are read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from open_clip import CLIP
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from cae_lib.errors import ConfigError, DataError
from cae_lib.words.alignment import CLIP_VOCABULARY_SIZE

AttentionKind = Literal["row", "maps"]


@dataclass(frozen=True)
class TextOutput:
    """Output of a text encoder.

    Shapes: B captions, S columns of tokens that affect the features, T >= S positions that the
    encoder computes, D the width of the embeddings, E the size of the features.

    Attributes:
        features: `(B, E)`, not normalised, equal to those of the model up to rounding.
        attention: One tensor for each layer; see the option `attention` of `TextEncoder.encode`.
        embeddings: Token embeddings `(B, S, D)`, before position embeddings are added.
        readout: Weights `(B, T)` by which the states of the last layer are pooled: one-hot, or, if
            features are a mean over tokens, equal weights of these tokens that sum to 1.
    """

    features: Tensor
    attention: list[Tensor]
    embeddings: Tensor
    readout: Tensor


class TextEncoder(ABC):
    """Text side of a model, with access to its embeddings and its attention.

    Shapes: B captions, C columns of tokens, S columns that affect the features, T positions that
    are computed, D the width of the embeddings, H heads, E the size of the features.
    """

    implementation: ClassVar[Literal["packed", "reference"]]
    model: nn.Module
    embedding: nn.Module

    @property
    def vocabulary_size(self) -> int:
        """Size V of the vocabulary."""
        return len(self.embedding.weight)  # pyright: ignore[reportArgumentType]

    @property
    @abstractmethod
    def embedding_table(self) -> Tensor:
        """Embeddings of the whole vocabulary `(V, D)`, detached."""

    def dropout_disabled(self) -> AbstractContextManager[bool]:
        """Return a context that disables dropout and yields whether any was active before."""
        # The packed encoder takes no model with dropout.
        return nullcontext(False)

    def non_word_mask(self, tokens: Tensor) -> Tensor:
        """Return a mask `(B, C)` of the tokens that certainly belong to no word.

        An encoder that knows special tokens of its model marks them, too.
        """
        # Two or more equal tokens at the end of a row are padding, in any vocabulary.
        equals_previous = tokens[:, 1:] == tokens[:, :-1]
        # (B, C - 1): True from the second padding token on; the first is added below.
        at_end = equals_previous.flip(1).long().cumprod(dim=1).flip(1).bool()
        outside = torch.zeros_like(tokens, dtype=torch.bool)
        outside[:, 1:] |= at_end
        outside[:, :-1] |= at_end
        return outside

    @abstractmethod
    def n_used_columns(self, tokens: Tensor) -> int:
        """Return S: only the first S columns of the tokens `(B, C)` affect the features."""

    def embed(self, tokens: Tensor) -> Tensor:
        """Return token embeddings `(B, S, D)` that `encode` accepts; see `n_used_columns`."""
        return self.embedding(tokens[:, : self.n_used_columns(tokens)])

    @abstractmethod
    def encode(
        self,
        tokens: Tensor,
        *,
        embeddings: Tensor | None = None,
        attention: AttentionKind | None = None,
        second_order: bool = False,
    ) -> TextOutput:
        """Encode captions.

        Args:
            tokens: Ids `(B, C)`.
            embeddings: `(B, S, D)` to use in place of the token embeddings; see `embed`.
            attention: What to return of the attention of every layer, by H heads over T positions,
                float32 or wider and differentiable. "row": the attention `(B, H, T)` of the
                position at which features are read; if features are a mean over positions, the mean
                attention of these positions. "maps": the maps `(B, H, T, T)`, or `(B, H, 1, T)` of
                a layer that computes only the position at which features are read. None: nothing.
            second_order: Let the features be differentiated twice.

        Raises:
            ConfigError: `attention` is not None, and the attention of the model cannot be read.
            DataError: A caption has no end-of-text token, and the model reads features there.
        """

    @abstractmethod
    def encode_variants(
        self, tokens: Tensor, caption_index: Tensor, masked: Tensor, replacement: Tensor
    ) -> Tensor:
        """Encode captions together with variants of them in which some tokens are replaced.

        Args:
            tokens: Ids of the B captions `(B, C)`.
            caption_index: For each of the V variants, the row of its caption `(V,)`.
            masked: Bool `(V, S)`, the tokens that each variant replaces.
            replacement: What replaces masked tokens: one embedding `(D,)` for all of them, or ids
                `(B, C)` with a replacement for each token of each caption.

        Returns:
            Features `(B + V, E)`, not normalised: first the captions, then the variants.
        """

    @abstractmethod
    def encode_features(self, tokens: Tensor) -> Tensor:
        """Encode texts `(B, C)` to features `(B, E)`, not normalised, without their attention."""


def one_hot(position: Tensor, length: int, like: Tensor) -> Tensor:
    """Return rows `(B, length)` that are 1 at `position` `(B,)` and else 0, float32 at least."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    return (torch.arange(length, device=position.device) == position[:, None]).to(dtype)


def pooling_position_fn(
    pool: str | None, eos_token_id: int | None = None, vocabulary_size: int | None = None
) -> Callable[[Tensor], Tensor]:
    """Return a function from tokens `(B, C)` to the position where features are read `(B,)`.

    `pool` is "first", "last" (position -1), or for the end-of-text token "eos", which has the id
    `eos_token_id`, or "argmax", which has the highest id.
    """
    if pool in ("first", "last"):
        return lambda tokens: tokens.new_full((len(tokens),), 0 if pool == "first" else -1)
    if pool not in ("argmax", "eos"):
        raise ConfigError(f"the text tower is pooled by {pool!r}: expected one position or a mean.")
    # The last id of CLIP's vocabulary ends a text; else the highest id in the batch has to do.
    highest = vocabulary_size - 1 if vocabulary_size == CLIP_VOCABULARY_SIZE else None
    return partial(_find_end, eos_token_id if pool == "eos" else highest)


def _find_end(eos: int | None, tokens: Tensor) -> Tensor:
    """Return the position `(B,)` of the first token `eos`; None is the highest id in the batch."""
    ends = tokens == (tokens.max() if eos is None else eos)
    has_end = ends.any(dim=1)
    # open_clip would read a caption that was cut off at some other token, without an error.
    if not bool(has_end.all()):
        raise missing_eot_error(int((~has_end).nonzero()[0]))
    return ends.int().argmax(dim=1)


def missing_eot_error(row: int) -> DataError:
    """Return the error for a caption without an end-of-text token; `row` counts from 0."""
    return DataError(
        f"caption {row} of the batch has no end-of-text token: it was cut off. Tokenize to fewer "
        "columns (context_length) instead of slicing tokens."
    )


def end_and_padding_mask(position_fn: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
    """Return a mask `(B, C)` of each text's end-of-text token and the tokens after it."""
    columns = torch.arange(tokens.shape[1], device=tokens.device)
    return columns >= position_fn(tokens)[:, None]


def pool_type(tower: Any) -> str | None:
    """Return how an open_clip text tower pools its states, such as "argmax" or "eos"."""
    # CoCa appends a class token to the text, and reads it.
    if getattr(tower, "cls_emb", None) is not None:
        return "last"
    # A `CLIP` holds the layers of its text tower itself, and names their settings differently.
    return getattr(tower, "text_pool_type" if isinstance(tower, CLIP) else "pool_type", None)


def open_clip_pooling_position_fn(tower: Any) -> Callable[[Tensor], Tensor]:
    """Return the function of `pooling_position_fn` for an open_clip text tower."""
    eos = getattr(tower, "text_eos_id" if isinstance(tower, CLIP) else "eos_id", None)
    return pooling_position_fn(pool_type(tower), eos, tower.vocab_size)


def text_tower(model: nn.Module) -> CLIP | TextTransformer:
    """Return the module with the text tower's layers: a `CLIP` itself, or its `TextTransformer`."""
    text = getattr(model, "text", model)
    if not isinstance(text, (CLIP, TextTransformer)):
        raise ConfigError(
            f"{type(model).__name__} has no text tower of open_clip's own: expected a CLIP or a "
            "CustomTextCLIP with a TextTransformer."
        )
    return text
