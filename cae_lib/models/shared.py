"""Packed text encoder that encodes the captions of a batch once for several attribution methods."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from cae_lib.models.packed import PackedEncoder
from cae_lib.models.text_tower import AttentionKind, TextOutput


class SharedEncoder(PackedEncoder):
    """Packed encoder whose calls within `with encoder.sharing():` return parts of one encoding.

    The encoding has all that methods ask for: token embeddings that require a gradient, attention
    maps of all layers, and second derivatives. Outside of the block, without gradients, and for
    variants of captions, it is a `PackedEncoder`.
    """

    _tokens: Tensor | None = None
    _output: TextOutput | None = None
    _is_sharing = False

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """Encode the same captions once within a block, in which the weights must not change."""
        # Without gradients, methods keep no graph that others could use.
        self._is_sharing = torch.is_grad_enabled()
        try:
            yield
        finally:
            self._is_sharing, self._tokens, self._output = False, None, None

    def embed(self, tokens: Tensor) -> Tensor:
        """Return token embeddings `(B, S, D)`, those of the shared encoding where there is one."""
        shared = self._share(tokens)
        return super().embed(tokens) if shared is None else shared.embeddings

    def encode(
        self,
        tokens: Tensor,
        *,
        embeddings: Tensor | None = None,
        attention: AttentionKind | None = None,
        second_order: bool = False,
    ) -> TextOutput:
        """Encode captions up to EOT, or return the shared encoding of the same embeddings."""
        shared = self._share(tokens)
        if shared is None or not (embeddings is None or embeddings is shared.embeddings):
            return super().encode(
                tokens, embeddings=embeddings, attention=attention, second_order=second_order
            )
        if attention == "maps":
            return shared
        if attention is None:
            return replace(shared, attention=[])
        # (B, H, T) of each layer: the row of EOT, the only one (B, H, 1, T) of the last layer.
        rows, eot = torch.arange(len(tokens), device=tokens.device), shared.readout.argmax(dim=1)
        *maps, last = shared.attention
        return replace(shared, attention=[*(m[rows, :, eot] for m in maps), last.flatten(2)])

    def _share(self, tokens: Tensor) -> TextOutput | None:
        """Return the shared encoding of captions; None where `sharing` is not active."""
        if not self._is_sharing:
            return None
        if self._output is None or self._tokens is None or not torch.equal(tokens, self._tokens):
            embeddings = super().embed(tokens)
            # As in `Captions.embeddings`; once they are encoded, it would be too late.
            if not embeddings.requires_grad:
                embeddings.requires_grad_()
            self._tokens = tokens
            self._output = super().encode(tokens, embeddings=embeddings, attention="maps")
        return self._output
