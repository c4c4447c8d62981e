"""What a text encoder offers, and what it needs to know of an open_clip model's text tower."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from open_clip import CLIP
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from cae_lib.errors import ConfigError, DataError
from cae_lib.models.blocks import ENCODERS, alteration, encodes_by_own
from cae_lib.words.alignment import CLIP_VOCABULARY

Record = Literal["row", "maps"]
PARTS = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection")
"""What features of text are computed from, in a `CLIP` as in a `TextTransformer`."""


@dataclass(frozen=True)
class TextOutput:
    """What an encoder returns; T is the number of positions that it computes.

    Attributes:
        features: `(B, E)`, not normalised, equal to those of the model.
        attention: one map per layer, empty unless asked for; shapes under `TextEncoder.encode`.
        embeddings: token embeddings `(B, S, D)`, before the position is added; S <= T.
        readout: weight of each position's last state in the features `(B, T)`, one-hot or a mean.
    """

    features: Tensor
    attention: list[Tensor]
    embeddings: Tensor
    readout: Tensor


class TextEncoder(ABC):
    """The text side of a `model`; its `embedding` turns tokens into states."""

    path: ClassVar[Literal["packed", "reference"]]
    model: nn.Module
    embedding: nn.Module

    @property
    def vocabulary_size(self) -> int:
        """V, the number of different tokens."""
        return len(self.embedding.weight)

    @property
    @abstractmethod
    def table(self) -> Tensor:
        """Embeddings of the whole vocabulary `(V, D)`, detached."""

    def steady(self) -> AbstractContextManager[bool]:
        """A context without dropout; tells whether there is any outside, as far as is known."""
        return nullcontext(False)

    def outside_words(self, tokens: Tensor) -> Tensor:
        """Return which tokens `(B, C)` belong to no word, as far as the encoder knows: equal tokens
        at the end of a row, which are padding, and start and end where it knows them."""
        as_before = tokens[:, 1:] == tokens[:, :-1]
        at_end = as_before.flip(1).long().cumprod(dim=1).flip(1).bool()
        outside = torch.zeros_like(tokens, dtype=torch.bool)
        outside[:, 1:] |= at_end
        outside[:, :-1] |= at_end
        return outside

    @abstractmethod
    def columns(self, tokens: Tensor) -> int:
        """S, how many columns of tokens `(B, C)` reach the features; at most C."""

    def embed(self, tokens: Tensor) -> Tensor:
        """Token embeddings `(B, S, D)` that `encode` takes back; see `columns`."""
        return self.embedding(tokens[:, : self.columns(tokens)])

    @abstractmethod
    def encode(
        self,
        tokens: Tensor,
        *,
        embeddings: Tensor | None = None,
        attention: Record | None = None,
        second_order: bool = False,
    ) -> TextOutput:
        """Encode captions `(B, C)`.

        Args:
            embeddings: `(B, S, D)` to use in place of the token embeddings.
            attention: maps of every layer to return, float32 or wider and differentiable; else a
                ConfigError. "row": the row `(B, H, T)` that is read; "maps": those that features
                come from, `(B, H, T, T)`, or `(B, H, 1, T)` of that row alone.
            second_order: let the features be differentiated twice.
        """

    @abstractmethod
    def encode_variants(
        self, tokens: Tensor, caption: Tensor, masked: Tensor, stand_in: Tensor
    ) -> Tensor:
        """Features `(B + V, E)` of captions `(B, C)`, then of V variants with some tokens masked.

        Args:
            caption: row of each variant's caption `(V,)`.
            masked: tokens that each variant has masked `(V, S)` bool.
            stand_in: an embedding `(D,)` for all of these, or a token for each place `(B, S)`.
        """

    @abstractmethod
    def encode_many(self, tokens: Tensor) -> Tensor:
        """Features `(B, E)` of texts `(B, C)`; cheapest where neighbours begin alike."""


def one_hot(position: Tensor, length: int, like: Tensor) -> Tensor:
    """Readout `(B, length)` at one position of each row, in float32 or wider."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    return (torch.arange(length, device=position.device) == position[:, None]).to(dtype)


def place_of(
    pool: str | None, eos: int | None = None, vocabulary: int | None = None
) -> Callable[[Tensor], Tensor]:
    """From tokens to the position `(B,)` that is read; -1 for the last, whatever the length. Pool
    "eos" reads the token `eos`, "argmax" the highest; a DataError for a caption without."""
    if pool in ("first", "last"):
        return lambda tokens: tokens.new_full((len(tokens),), 0 if pool == "first" else -1)
    if pool not in ("argmax", "eos"):
        raise ConfigError(f"the text tower is pooled by {pool!r}: expected one position or a mean.")
    highest = vocabulary - 1 if vocabulary == CLIP_VOCABULARY else None
    return partial(_end, eos if pool == "eos" else highest)


def _end(eos: int | None, tokens: Tensor) -> Tensor:
    """Where the token `eos` is, None for the highest of the batch."""
    ends = tokens == (tokens.max() if eos is None else eos)
    there = ends.any(dim=1)
    if not bool(there.all()):
        raise no_end_error(int((~there).nonzero()[0]))
    return ends.int().argmax(dim=1)


def no_end_error(row: int) -> DataError:
    """Return the error of a caption without its end."""
    return DataError(
        f"caption {row} of the batch has no end-of-text token: it was cut off. Tokenize to fewer "
        "columns (context_length) instead of slicing tokens."
    )


def from_end(position: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
    """Return which tokens `(B, C)` are at the end of the text or after it, by its `position`."""
    places = torch.arange(tokens.shape[1], device=tokens.device)
    return places >= position(tokens)[:, None]


def pool_of(text: nn.Module) -> str | None:
    """How an open_clip text tower is pooled; see `place_of`."""
    if getattr(text, "cls_emb", None) is not None:
        return "last"
    return text.text_pool_type if isinstance(text, CLIP) else getattr(text, "pool_type", None)


def read_at(text: nn.Module) -> Callable[[Tensor], Tensor]:
    """`place_of` an open_clip text tower."""
    eos = text.text_eos_id if isinstance(text, CLIP) else getattr(text, "eos_id", None)
    return place_of(pool_of(text), eos, text.vocab_size)


def text_tower(model: nn.Module) -> nn.Module:
    """What holds `PARTS` of an open_clip model; ConfigError if its text tower is another's."""
    text = getattr(model, "text", model)
    if not isinstance(text, (CLIP, TextTransformer)):
        raise ConfigError(
            f"{type(model).__name__} has no text tower of open_clip's own: expected a CLIP or a "
            "CustomTextCLIP with a TextTransformer."
        )
    return text


def why_not_packed(model: nn.Module) -> str | None:
    """Why leaving out padding would not be exact for a model, in words; None where it is."""
    if type(model) not in ENCODERS:
        return f"the model is a {type(model).__name__}"
    if not encodes_by_own(model, "text"):
        return "its encode_text was replaced"
    text = getattr(model, "text", model)
    if type(text) not in (CLIP, TextTransformer):
        return f"its text tower is a {type(text).__name__}"
    mask = text.attn_mask
    if mask is None or not torch.equal(mask, torch.full_like(mask, -torch.inf).triu(1)):
        return "it is not causal"
    if pool_of(text) not in ("argmax", "eos"):
        return f"it is read at its {pool_of(text)} token"
    return alteration([text] if text is not model else [getattr(model, name) for name in PARTS])
