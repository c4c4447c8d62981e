"""CLIP's text tower over open_clip's own parameters, without work that cannot reach its output: it
is causal and read at the end-of-text token (EOT), so nothing after it is computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn

from cae_lib.models.blocks import attend, attention_weights, finish_block, heads_of, run
from cae_lib.models.text_tower import (
    Record,
    TextEncoder,
    TextOutput,
    from_end,
    one_hot,
    read_at,
    text_tower,
)


@dataclass(frozen=True)
class Packing:
    """How R rows of at most T positions are stored as N packed states `(N, D)`: layers that treat
    each position alone run on the packed states, attention needs the rows.

    Attributes:
        active: row * T + position of each packed state `(N,)`.
        source: packed state at each position of each row `(R * T,)`, after its end that at its end.
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

    @property
    def until_end(self) -> Tensor:
        """Positions up to each row's end `(R, 1, 1, T)`."""
        positions = torch.arange(self.length, device=self.eot.device)
        return (positions <= self.eot[:, None])[:, None, None]

    def pack(self, padded: Tensor) -> Tensor:
        """`(R, T, ...)` -> `(N, ...)`."""
        return padded.flatten(0, 1).index_select(0, self.active)

    def spread(self, packed: Tensor) -> Tensor:
        """`(N, ...)` -> `(R, T, ...)`."""
        return packed.index_select(0, self.source).unflatten(0, (-1, self.length))


def pack_rows(eot: Tensor, owner: Tensor | None = None) -> Packing:
    """Plan the packing of texts with EOT at `eot (R,)`; T is `eot.max() + 1`. If texts begin alike,
    `owner (R, T)` is the row whose own state stands at each position."""
    rows = torch.arange(len(eot), device=eot.device)[:, None]
    length = int(eot.max()) + 1
    position = torch.arange(length, device=eot.device).expand(len(eot), length)
    owner = rows.expand_as(position) if owner is None else owner
    computed = (position <= eot[:, None]) & (owner == rows)
    number = (computed.flatten().cumsum(0) - 1).view_as(computed)
    clipped = torch.minimum(position, eot[:, None])
    source = number[owner.gather(1, clipped), clipped]
    active = computed.flatten().nonzero().squeeze(1)
    return Packing(active, source.flatten(), ends=source[:, -1], eot=eot, length=length)


def owners_of_prefixes(tokens: Tensor, eot: Tensor) -> Tensor:
    """Owners `(R, T)` of texts `(R, C)` that each share the beginning of the one before."""
    length = int(eot.max()) + 1
    tokens = tokens[:, :length]
    position = torch.arange(length, device=tokens.device)
    same = (tokens[1:] == tokens[:-1]) & (position < torch.minimum(eot[1:], eot[:-1])[:, None])
    shared = same.long().cumprod(dim=1).sum(dim=1)
    starts = torch.cat([shared.new_zeros(1), shared])
    own = torch.arange(len(eot), device=eot.device)[:, None] * (position >= starts[:, None])
    # Rows grow from text to text: the last one in a column is that of the shared beginning.
    return own.cummax(dim=0).values


class PackedEncoder(TextEncoder):
    """The packed implementation, for a model of which `why_not_packed` gives None; T is the length
    of the batch's longest caption."""

    path = "packed"

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.text = text_tower(model)
        self.embedding = self.text.token_embedding
        self.eot = read_at(self.text)

    @property
    def table(self) -> Tensor:
        return self.embedding.weight.detach()

    def outside_words(self, tokens: Tensor) -> Tensor:
        return from_end(self.eot, tokens)

    def columns(self, tokens: Tensor) -> int:
        return int(self.eot(tokens).max()) + 1

    def encode(
        self,
        tokens: Tensor,
        *,
        embeddings: Tensor | None = None,
        attention: Record | None = None,
        second_order: bool = False,
    ) -> TextOutput:
        """See `TextEncoder`. Rows of maps after a caption's EOT repeat that of EOT."""
        packing = pack_rows(self.eot(tokens))
        if embeddings is None:
            embeddings = self.embedding(tokens[:, : packing.length])
        features, maps = self._run(packing.pack(embeddings), packing, attention, second_order)
        readout = one_hot(packing.eot, packing.length, embeddings)
        return TextOutput(features, maps, embeddings, readout)

    def encode_variants(
        self, tokens: Tensor, caption: Tensor, masked: Tensor, stand_in: Tensor
    ) -> Tensor:
        """See `TextEncoder`; a variant shares the states before its first masked token."""
        own = torch.arange(len(tokens), device=tokens.device)
        parents = torch.cat([own, caption])
        eot = self.eot(tokens)[parents]
        length = int(eot.max()) + 1
        tokens = tokens[:, :length]
        masked = torch.cat([torch.zeros_like(tokens, dtype=torch.bool), masked[:, :length]])
        starts = masked.int().argmax(dim=1, keepdim=True)  # 0 in captions: they have none masked
        shared = torch.arange(length, device=tokens.device) < starts
        itself = torch.arange(len(parents), device=tokens.device)
        packing = pack_rows(eot, torch.where(shared, parents[:, None], itself[:, None]))
        rows, inside = parents[packing.rows], packing.pack(masked)
        ids = tokens[rows, packing.positions]
        if stand_in.ndim == 2:
            ids = torch.where(inside, stand_in[rows, packing.positions], ids)
        embeddings = self.embedding(ids)
        if stand_in.ndim == 1:
            embeddings = torch.where(inside.unsqueeze(1), stand_in.to(embeddings), embeddings)
        return self._run(embeddings, packing)[0]

    def encode_many(self, tokens: Tensor) -> Tensor:
        """See `TextEncoder`; what a text has in common with the one before is computed once."""
        eot = self.eot(tokens)
        packing = pack_rows(eot, owners_of_prefixes(tokens, eot))
        return self._run(self.embedding(packing.pack(tokens[:, : packing.length])), packing)[0]

    def _run(
        self,
        embeddings: Tensor,
        packing: Packing,
        attention: Record | None = None,
        second_order: bool = False,
    ) -> tuple[Tensor, list[Tensor]]:
        """Features `(R, E)` of packed token embeddings `(N, D)`, and the maps asked for."""
        text, transformer = self.text, self.text.transformer
        dtype = transformer.get_cast_dtype()
        x = embeddings.to(dtype) + text.positional_embedding[packing.positions].to(dtype)
        explicit = second_order or attention == "maps" or not _fused_is_faster(x.device)
        mask = x.new_ones(packing.length, packing.length, dtype=torch.bool).tril()
        options = (mask, explicit, attention == "row")
        *blocks, last = transformer.resblocks
        maps: list[Tensor] = []
        for block in blocks:
            x, weights = run(transformer, _block, block, x, packing, *options)
            maps.append(weights)
        x, weights = run(transformer, _last_block, last, x, packing)
        maps.append(weights)
        if attention == "row":
            maps = [weights.flatten(2) for weights in maps]
        x, projection = text.ln_final(x), text.text_projection
        if projection is not None:
            x = projection(x) if isinstance(projection, nn.Module) else x @ projection
        return x, maps if attention else []


def _fused_is_faster(device: torch.device) -> bool:
    """Whether to prefer the fused kernel; on a CPU it loses in training at a caption's length."""
    return device.type != "cpu" or not torch.is_grad_enabled()


def _block(
    block: ResidualAttentionBlock,
    x: Tensor,
    packing: Packing,
    mask: Tensor,
    explicit: bool,
    row: bool,
) -> tuple[Tensor, Tensor | None]:
    """One block at every position: states `(N, D)` and its map, or the EOT's row of it."""
    q, k, v = heads_of(block, block.ln_1(x), "qkv", packing.spread)
    mixed, weights = attend(q, k, v, mask, explicit=explicit)
    if row:
        rows = torch.arange(len(q), device=x.device)
        if weights is not None:
            weights = weights[rows, :, packing.eot]
        else:
            eot_query = q[rows, :, packing.eot].unsqueeze(2)
            weights = attention_weights(eot_query, k, packing.until_end)
    return finish_block(block, x, packing.pack(mixed)), weights


def _last_block(
    block: ResidualAttentionBlock, x: Tensor, packing: Packing
) -> tuple[Tensor, Tensor]:
    """The last block at EOT only: states `(R, D)` and the EOT's row `(R, H, 1, T)`."""
    normed = block.ln_1(x)
    (q,) = heads_of(block, normed.index_select(0, packing.ends).unsqueeze(1), "q")
    k, v = heads_of(block, normed, "kv", packing.spread)
    mixed, weights = attend(q, k, v, packing.until_end, explicit=True)
    return finish_block(block, x.index_select(0, packing.ends), mixed.squeeze(1)), weights
