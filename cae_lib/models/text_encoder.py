"""Captions to features and attention, by one interface with two implementations.

`packed` writes out the computation of an unaltered, causal open_clip tower that is read at its
end-of-text token, without the work that cannot reach its output. `reference` calls the model's own
modules, so hooks, adapters and wrappers act; it takes any tower. Features and gradients are equal
up to rounding.
"""

from __future__ import annotations

import logging
from typing import Any, Literal, Protocol
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from cae_lib.errors import ConfigError
from cae_lib.models.blocks import AttentionRecord
from cae_lib.models.packed import PackedEncoder
from cae_lib.models.reference import ReferenceEncoder, text_model
from cae_lib.models.text_output import TextOutput
from cae_lib.models.text_tower import why_not_packed

EncoderPath = Literal["auto", "packed", "reference"]
PATHS = ("auto", "packed", "reference")

_log = logging.getLogger("cae_lib")
_told: WeakKeyDictionary[nn.Module, str | None] = WeakKeyDictionary()


class TextEncoder(Protocol):
    """The text side of a model.

    Attributes:
        model: the model, for its temperature.
        path: "packed" or "reference".
    """

    model: nn.Module
    path: str

    @property
    def vocabulary_size(self) -> int:
        """V, the number of different tokens."""
        ...

    @property
    def table(self) -> Tensor:
        """Embeddings of the whole vocabulary `(V, D)`, detached."""
        ...

    def columns(self, tokens: Tensor) -> int:
        """S, how many columns of tokens `(B, C)` reach the features; at most C."""
        ...

    def embed(self, tokens: Tensor) -> Tensor:
        """Token embeddings `(B, S, D)` that `encode` takes back; see `columns`."""
        ...

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
        ...

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
        ...

    def encode_many(self, tokens: Tensor) -> Tensor:
        """Features `(B, E)` of texts `(B, C)`; cheapest where neighbours begin alike."""
        ...


def text_encoder(model: nn.Module | TextEncoder, path: EncoderPath = "auto") -> TextEncoder:
    """The encoder of a model's text.

    The model is looked at anew in each call, so a hook or an adapter that is added later acts. The
    logger "cae_lib" tells once for each model, and again when it changes, which path "auto" takes
    and why: as a warning where it is the slower one.

    Args:
        model: open_clip `CLIP`, `CustomTextCLIP`, `CoCa`; Hugging Face CLIP, SigLIP, SigLIP 2, or
            BLIP for retrieval; each may hold peft adapters. An encoder is returned as it is.
        path: "packed", "reference", or "auto": packed where that is exact.

    Raises:
        ConfigError: unknown path, "packed" where it is not exact, or an unknown model.
    """
    if path not in PATHS:
        raise ConfigError(f"unknown path {path!r}: expected one of {', '.join(PATHS)}.")
    if not isinstance(model, nn.Module):
        return model
    reason = why_not_packed(model) if path != "reference" else ""
    if reason is not None and path == "packed":
        raise ConfigError(f"the packed path is not exact here: {reason}. Use path='auto'.")
    encoder = PackedEncoder(model) if reason is None else ReferenceEncoder(text_model(model))
    if path == "auto" and _told.get(model, "") != reason:
        _told[model] = reason
        if reason is None:
            _log.info("The text is packed: the tower is open_clip's own, causal and unaltered.")
        else:
            _log.warning("The text is encoded by the model's own code, not packed: %s.", reason)
    return encoder


def encode_text(model: nn.Module | TextEncoder, tokens: Tensor, **options: Any) -> TextOutput:
    """Encode captions by the path that fits; see `TextEncoder.encode`."""
    return text_encoder(model).encode(tokens, **options)
