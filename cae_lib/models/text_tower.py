"""Interface of the text encoders, and the positions that open_clip takes text features at."""

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
    """Output of a text encoder; T is the number of positions that it computes.

    Attributes:
        features: `(B, E)`, not normalised, equal to those of the model.
        attention: One map for each layer if requested, else empty; for shapes see
            `TextEncoder.encode`.
        embeddings: Token embeddings `(B, S, D)`, before the position is added; S <= T.
        readout: Weight of each position's last state in the features `(B, T)`, one-hot or a mean.
    """

    features: Tensor
    attention: list[Tensor]
    embeddings: Tensor
    readout: Tensor


class TextEncoder(ABC):
    """Text side of a model, with access to its embeddings and its attention.

    Attributes:
        implementation: Name of this implementation.
        model: The model whose text is encoded.
        embedding: The layer that turns tokens into embeddings.
    """

    implementation: ClassVar[Literal["packed", "reference"]]
    model: nn.Module
    embedding: nn.Module

    @property
    def vocabulary_size(self) -> int:
        """V, the number of different tokens."""
        return len(self.embedding.weight)  # pyright: ignore[reportArgumentType]

    @property
    @abstractmethod
    def embedding_table(self) -> Tensor:
        """Embeddings of the whole vocabulary `(V, D)`, detached."""

    def dropout_disabled(self) -> AbstractContextManager[bool]:
        """Return a context that disables dropout and yields whether the model has any."""
        return nullcontext(False)

    def non_word_tokens(self, tokens: Tensor) -> Tensor:
        """Return which tokens `(B, C)` certainly belong to no word.

        These are the equal tokens at the end of a row, which are padding, and the start and end
        tokens if the encoder knows them.
        """
        equals_previous = tokens[:, 1:] == tokens[:, :-1]
        at_end = equals_previous.flip(1).long().cumprod(dim=1).flip(1).bool()
        outside = torch.zeros_like(tokens, dtype=torch.bool)
        outside[:, 1:] |= at_end
        outside[:, :-1] |= at_end
        return outside

    @abstractmethod
    def used_columns(self, tokens: Tensor) -> int:
        """Return S, the number of columns of tokens `(B, C)` that affect the features (S <= C)."""

    def embed(self, tokens: Tensor) -> Tensor:
        """Return token embeddings `(B, S, D)` that `encode` accepts; see `used_columns`."""
        return self.embedding(tokens[:, : self.used_columns(tokens)])

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
            embeddings: `(B, S, D)` to use in place of the token embeddings.
            attention: Maps of every layer to return, float32 or wider and differentiable. "row":
                the row `(B, H, T)` of the position that is read; "maps": those that the features
                are computed from, `(B, H, T, T)`, or `(B, H, 1, T)` for that row alone.
            second_order: Let the features be differentiated twice.

        Raises:
            ConfigError: The attention of the model cannot be read.
        """

    @abstractmethod
    def encode_variants(
        self, tokens: Tensor, caption: Tensor, masked: Tensor, replacement: Tensor
    ) -> Tensor:
        """Encode captions together with variants of them in which some tokens are replaced.

        A variant shares the tokens before its first replaced one with its caption, so encoders
        that can do so compute the states of these tokens once.

        Args:
            tokens: Ids of the B captions `(B, C)`.
            caption: For each of the V variants, the row of its caption `(V,)`.
            masked: Bool `(V, S)`, the tokens that each variant replaces; S as in `used_columns`.
            replacement: What takes their place: one embedding `(D,)` for all of them, or ids
                `(B, S)` that give each position of a caption its own token.

        Returns:
            Features `(B + V, E)`, not normalised: first the captions, then the variants.
        """

    @abstractmethod
    def encode_many(self, tokens: Tensor) -> Tensor:
        """Return features `(B, E)` of texts `(B, C)`; fastest if neighbours share a prefix."""


def one_hot(position: Tensor, length: int, like: Tensor) -> Tensor:
    """Return rows `(B, length)` that are 1 at `position` `(B,)`, counted from 0, and 0 elsewhere.

    The dtype is that of `like`, but float32 at least.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    return (torch.arange(length, device=position.device) == position[:, None]).to(dtype)


def position_reader(
    pool: str | None, eos: int | None = None, vocabulary_size: int | None = None
) -> Callable[[Tensor], Tensor]:
    """Return a function from tokens `(B, C)` to the position that the tower is read at `(B,)`.

    The position is -1 for the last one, whatever the length. The function raises DataError for a
    caption without its end token.

    Args:
        pool: "first" or "last"; "eos" for the token `eos`, "argmax" for the highest token.
        eos: The end token of pool "eos".
        vocabulary_size: Size of the vocabulary; in CLIP's, the highest token is known.
    """
    if pool in ("first", "last"):
        return lambda tokens: tokens.new_full((len(tokens),), 0 if pool == "first" else -1)
    if pool not in ("argmax", "eos"):
        raise ConfigError(f"the text tower is pooled by {pool!r}: expected one position or a mean.")
    highest = vocabulary_size - 1 if vocabulary_size == CLIP_VOCABULARY_SIZE else None
    return partial(_find_end, eos if pool == "eos" else highest)


def _find_end(eos: int | None, tokens: Tensor) -> Tensor:
    """Return the position `(B,)` of the token `eos`; None stands for the batch's highest."""
    ends = tokens == (tokens.max() if eos is None else eos)
    has_end = ends.any(dim=1)
    if not bool(has_end.all()):
        raise missing_end_error(int((~has_end).nonzero()[0]))
    return ends.int().argmax(dim=1)


def missing_end_error(row: int) -> DataError:
    """Return the error of a caption without its end token."""
    return DataError(
        f"caption {row} of the batch has no end-of-text token: it was cut off. Tokenize to fewer "
        "columns (context_length) instead of slicing tokens."
    )


def end_and_padding(position: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
    """Return which tokens `(B, C)` are at the end of the text, by `position`, or after it."""
    columns = torch.arange(tokens.shape[1], device=tokens.device)
    return columns >= position(tokens)[:, None]


def pool_type(text: Any) -> str | None:
    """Return how an open_clip text tower is pooled; see `position_reader`."""
    if getattr(text, "cls_emb", None) is not None:
        return "last"
    return getattr(text, "text_pool_type" if isinstance(text, CLIP) else "pool_type", None)


def open_clip_position_reader(text: Any) -> Callable[[Tensor], Tensor]:
    """Return the `position_reader` of an open_clip text tower."""
    eos = getattr(text, "text_eos_id" if isinstance(text, CLIP) else "eos_id", None)
    return position_reader(pool_type(text), eos, text.vocab_size)


def text_tower(model: nn.Module) -> CLIP | TextTransformer:
    """Return the module of an open_clip model whose attributes are the text tower's layers.

    That is the `TextTransformer` of a `CustomTextCLIP`. A `CLIP` has these layers itself, in
    addition to its image tower, and is returned as it is.

    Raises:
        ConfigError: If the text tower belongs to another library.
    """
    text = getattr(model, "text", model)
    if not isinstance(text, (CLIP, TextTransformer)):
        raise ConfigError(
            f"{type(model).__name__} has no text tower of open_clip's own: expected a CLIP or a "
            "CustomTextCLIP with a TextTransformer."
        )
    return text
