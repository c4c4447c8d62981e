"""What a text encoder offers, and where an open_clip model keeps the parts of its text tower."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from open_clip import CLIP, CustomTextCLIP
from open_clip.transformer import ResidualAttentionBlock, TextTransformer
from torch import Tensor, nn

from cae_lib.errors import ConfigError
from cae_lib.models.blocks import alteration

AttentionRecord = Literal["row", "maps"]
READ = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection")
"""The parts of a text tower that it is computed from."""


@dataclass(frozen=True)
class TextOutput:
    """What an encoder returns; T is the number of positions that it computes.

    Attributes:
        features: `(B, E)`, not normalised, equal to those of the model.
        attention: one map per layer, empty unless asked for; shapes under `TextEncoder.encode`.
        embeddings: token embeddings `(B, S, D)`, before the position is added; S <= T.
        readout: weight of each position's last state in the features `(B, T)`: 1 at the token
            that is read, or equal weights where a tower takes the mean.
    """

    features: Tensor
    attention: list[Tensor]
    embeddings: Tensor
    readout: Tensor


class TextEncoder(ABC):
    """The text side of a model.

    Attributes:
        path: "packed" or "reference".
        model: the model, for its temperature.
        embedding: the layer that turns tokens into embeddings.
    """

    path: ClassVar[str]
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
        attention: AttentionRecord | None = None,
        second_order: bool = False,
    ) -> TextOutput:
        """Encode captions.

        Args:
            tokens: `(B, C)` token ids.
            embeddings: `(B, S, D)` to use in place of the token embeddings.
            attention: maps to return, float32 or wider and differentiable. "row": the row
                `(B, H, T)` that is read, of every layer. "maps": the maps the features are computed
                from, `(B, H, T, T)`, or `(B, H, 1, T)` where only the row that is read is used.
            second_order: let the features be differentiated twice.

        Raises:
            ConfigError: for attention of a tower whose maps cannot be read.
        """

    @abstractmethod
    def encode_variants(
        self, tokens: Tensor, caption: Tensor, masked: Tensor, stand_in: Tensor
    ) -> Tensor:
        """Features `(B + V, E)` of B captions, then of V variants with some tokens masked.

        Args:
            tokens: `(B, C)` token ids.
            caption: row of each variant's caption `(V,)`.
            masked: tokens that each variant has masked `(V, S)` bool.
            stand_in: in place of a masked token: an embedding `(D,)`, or for each token of each
                caption another token `(B, S)`.
        """

    @abstractmethod
    def encode_many(self, tokens: Tensor) -> Tensor:
        """Features `(B, E)` of texts `(B, C)`; cheapest where neighbours begin alike."""


def one_hot(position: Tensor, length: int, like: Tensor) -> Tensor:
    """Readout `(B, length)` at one position of each row, in float32 or wider."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    return (torch.arange(length, device=position.device) == position[:, None]).to(dtype)


@dataclass(frozen=True)
class TextTower:
    """The parts of a text tower, wherever the model keeps them."""

    token_embedding: nn.Embedding
    positional_embedding: Tensor
    transformer: nn.Module
    ln_final: nn.Module
    text_projection: nn.Module | Tensor | None
    pool_type: str
    eos_id: int

    def eot(self, tokens: Tensor) -> Tensor:
        """Position `(B,)` of the end-of-text token in tokens `(B, T)`."""
        if self.pool_type == "argmax":
            return tokens.argmax(dim=-1)
        return (tokens == self.eos_id).int().argmax(dim=-1)

    def project(self, pooled: Tensor) -> Tensor:
        """Map the state at EOT `(B, D)` to features `(B, E)`."""
        pooled = self.ln_final(pooled)
        if self.text_projection is None:
            return pooled
        if isinstance(self.text_projection, nn.Module):
            return self.text_projection(pooled)
        return pooled @ self.text_projection


def text_tower(model: nn.Module) -> TextTower:
    """The parts of the text tower of an open_clip model.

    Raises:
        ConfigError: when the text tower is not open_clip's own.
    """
    text = getattr(model, "text", model)
    if not isinstance(model, CLIP) and not isinstance(text, TextTransformer):
        raise ConfigError(
            f"{type(model).__name__} has no text tower of open_clip's own: expected a CLIP or a "
            "CustomTextCLIP with a TextTransformer."
        )
    prefix = "text_" if isinstance(model, CLIP) else ""
    names = (*READ, f"{prefix}pool_type", f"{prefix}eos_id")
    return TextTower(*(getattr(text, name) for name in names))


def why_not_packed(model: nn.Module) -> str | None:
    """Why leaving out padding would not be exact for a model, in words; None where it is."""
    if type(model) not in (CLIP, CustomTextCLIP):
        return f"the model is a {type(model).__name__}"
    if "encode_text" in vars(model):
        return "its encode_text was replaced"
    text = getattr(model, "text", model)
    if type(model) is CustomTextCLIP and type(text) is not TextTransformer:
        return f"its text tower is a {type(text).__name__}"
    if getattr(text, "cls_emb", None) is not None:
        return "it reads an appended class token"
    mask = text.attn_mask
    if mask is None or not torch.equal(mask, torch.full_like(mask, -torch.inf).triu(1)):
        return "it is not causal"
    tower = text_tower(model)
    if tower.pool_type not in ("argmax", "eos"):
        return f"it is read at its {tower.pool_type} token"
    if not all(type(block) is ResidualAttentionBlock for block in tower.transformer.resblocks):
        return "its blocks are not the plain ones"
    return alteration([text] if text is not model else [getattr(model, name) for name in READ])
