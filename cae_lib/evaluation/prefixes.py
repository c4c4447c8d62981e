"""Features of many texts at once: what they begin with in common is computed once.

In a causal tower the states of a text's first tokens do not depend on what follows. The texts of a
benchmark of composition differ in a few words, so many of their states are the same.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from cae_lib.models.packing import Packing
from cae_lib.models.towers import encode_packed, text_tower

LENGTHS_TOGETHER = 2
"""Lengths that may share a batch: longer texts make the attention of shorter ones dearer."""


def encode_texts(model: nn.Module, tokens: Tensor) -> Tensor:
    """Features `(B, E)`, not normalised, equal to `encode_text(model, tokens).features`.

    Args:
        model: open_clip model with a causal text tower read at its end-of-text token.
        tokens: `(B, context_length)`, in an order of `neighbours`; any other is right but slower.
    """
    tower = text_tower(model)
    packing = pack_prefixes(tokens, tower.eot(tokens))
    ids = packing.pack(tokens[:, : packing.length])
    return encode_packed(tower, tower.token_embedding(ids), packing)[0]


def neighbours(tokens: Tensor, eot: Tensor) -> Tensor:
    """Order `(B,)` in which texts of about the same length that begin alike stand side by side."""
    used = tokens[:, : int(eot.max()) + 1].cpu().numpy().astype(">u4")
    by_content = np.array([row.tobytes() for row in used]).argsort(kind="stable")
    length = (eot.cpu().numpy() // LENGTHS_TOGETHER)[by_content]
    return torch.from_numpy(by_content[length.argsort(kind="stable")])


def pack_prefixes(tokens: Tensor, eot: Tensor) -> Packing:
    """Plan the packing of texts `(B, T)` so that each shares the beginning of the one before it.

    Args:
        tokens: `(B, context_length)`.
        eot: Position of each text's end-of-text token `(B,)`.
    """
    length = int(eot.max()) + 1
    tokens = tokens[:, :length]
    position = torch.arange(length, device=tokens.device)
    same = (tokens[1:] == tokens[:-1]) & (position < torch.minimum(eot[1:], eot[:-1])[:, None])
    shared = same.long().cumprod(dim=1).sum(dim=1)
    starts = torch.cat([shared.new_zeros(1), shared])
    computed = (position <= eot[:, None]) & (position >= starts[:, None])
    number = (computed.flatten().cumsum(0) - 1).view_as(computed)
    # Numbers grow from text to text: the last one in a column is that of the shared beginning.
    source = number.where(computed, number.new_zeros(())).cummax(dim=0).values
    ends = number.gather(1, eot[:, None])
    return Packing(
        active=computed.flatten().nonzero().squeeze(1),
        source=source.where(position <= eot[:, None], ends).flatten(),
        ends=ends.squeeze(1),
        eot=eot,
        length=length,
    )
