"""Captions of different lengths in one batch, without computing their padding."""

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


def pack_rows(eot: Tensor, starts: Tensor | None = None, parents: Tensor | None = None) -> Packing:
    """Plan the packing of captions, or of captions and their variants.

    A row that starts late shares the states before its start with its parent row: in a causal
    tower they are the same when the two rows differ from `start` on only.

    Args:
        eot: position of each row's end-of-text token `(R,)`.
        starts: first position of each row with states of its own `(R,)`; None for 0.
        parents: row whose states stand before the start `(R,)`; parents start at 0.
    """
    length = int(eot.max()) + 1
    position = torch.arange(length, device=eot.device).expand(len(eot), length)
    computed = position <= eot[:, None]
    if starts is not None:
        computed = computed & (position >= starts[:, None])
    number = (computed.flatten().cumsum(0) - 1).view_as(computed)
    clipped = torch.minimum(position, eot[:, None])
    source = number.gather(1, clipped)
    if starts is not None and parents is not None:
        source = torch.where(clipped < starts[:, None], number[parents].gather(1, clipped), source)
    return Packing(
        active=computed.flatten().nonzero().squeeze(1),
        source=source.flatten(),
        ends=number.gather(1, eot[:, None]).squeeze(1),
        eot=eot,
        length=length,
    )
