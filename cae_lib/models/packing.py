"""Texts of different lengths in one batch, without computing their padding or anything twice."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """How R rows of at most T positions are stored as N packed states `(N, D)`.

    Layers that treat each position alone run on the N packed states. Only attention needs the rows
    side by side; `source` lays them out.

    Attributes:
        active: row * T + position of each packed state `(N,)`.
        source: packed state that stands at each position of each row `(R * T,)`. Positions after a
            row's end repeat the state at its end; a causal tower never reads them.
        ends: packed state at the end-of-text token of each row `(R,)`.
        eot: position of the end-of-text token of each row `(R,)`.
        length: T.
    """

    active: Tensor
    source: Tensor
    ends: Tensor
    eot: Tensor
    length: int

    @property
    def positions(self) -> Tensor:
        """Position of each packed state in its row `(N,)`."""
        return self.active % self.length

    @property
    def rows(self) -> Tensor:
        """Row of each packed state `(N,)`."""
        return self.active // self.length

    def pack(self, padded: Tensor) -> Tensor:
        """`(R, T, ...)` -> `(N, ...)`."""
        return padded.flatten(0, 1).index_select(0, self.active)

    def spread(self, packed: Tensor) -> Tensor:
        """`(N, ...)` -> `(R, T, ...)`."""
        return packed.index_select(0, self.source).unflatten(0, (-1, self.length))


def pack_rows(eot: Tensor, owner: Tensor | None = None) -> Packing:
    """Plan the packing of texts, some of whose states may stand in for those of others.

    In a causal tower two texts have the same states up to where they differ.

    Args:
        eot: position of each row's end-of-text token `(R,)`.
        owner: row `(R, T)` whose state stands at each position, up to the row's end; T is
            `eot.max() + 1`. An owner owns its own state there. None: every row has its own.
    """
    rows = torch.arange(len(eot), device=eot.device)[:, None]
    length = int(eot.max()) + 1
    position = torch.arange(length, device=eot.device).expand(len(eot), length)
    owner = rows.expand_as(position) if owner is None else owner
    computed = (position <= eot[:, None]) & (owner == rows)
    number = (computed.flatten().cumsum(0) - 1).view_as(computed)
    clipped = torch.minimum(position, eot[:, None])
    source = number[owner.gather(1, clipped), clipped]
    return Packing(
        active=computed.flatten().nonzero().squeeze(1),
        source=source.flatten(),
        ends=source[:, -1],
        eot=eot,
        length=length,
    )


def owners_of_variants(parents: Tensor, starts: Tensor, length: int) -> Tensor:
    """Owners `(R, length)` of rows that share the states before their start with their parent.

    Args:
        parents: the parent of each row `(R,)`, itself for a row that shares nothing.
        starts: first position of each row that may differ from its parent `(R,)`.
        length: T.
    """
    position = torch.arange(length, device=starts.device)
    own = torch.arange(len(starts), device=starts.device)[:, None]
    return torch.where(position < starts[:, None], parents[:, None], own)


def owners_of_prefixes(tokens: Tensor, eot: Tensor) -> Tensor:
    """Owners `(R, T)` of texts that each share the beginning of the one before.

    Args:
        tokens: `(R, C)`, C at least T = `eot.max() + 1`.
        eot: position of each text's end-of-text token `(R,)`.
    """
    length = int(eot.max()) + 1
    tokens = tokens[:, :length]
    position = torch.arange(length, device=tokens.device)
    same = (tokens[1:] == tokens[:-1]) & (position < torch.minimum(eot[1:], eot[:-1])[:, None])
    shared = same.long().cumprod(dim=1).sum(dim=1)
    starts = torch.cat([shared.new_zeros(1), shared])
    own = torch.arange(len(eot), device=eot.device)[:, None] * (position >= starts[:, None])
    # Rows grow from text to text: the last one in a column is that of the shared beginning.
    return own.cummax(dim=0).values
