"""Packed text encoder: computes only what the features of open_clip's causal text tower depend on.

Features are taken at the end-of-text token (EOT), so positions after it are not computed, and the
last layer computes EOT alone. Prefixes that texts share are computed once. Nothing is approximated:
the features equal those of the model's own code up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from open_clip import CLIP
from open_clip.transformer import ResidualAttentionBlock, TextTransformer
from torch import Tensor, nn

from cae_lib.models.blocks import (
    OPEN_CLIP_MODELS,
    attend,
    attention_weights,
    find_modification,
    finish_block,
    project_heads,
    run_layer,
)
from cae_lib.models.text_tower import (
    AttentionKind,
    TextEncoder,
    TextOutput,
    end_and_padding_mask,
    one_hot,
    open_clip_pooling_position_fn,
    pool_type,
    text_tower,
)

TEXT_TOWER_LAYERS = ("token_embedding", "transformer", "ln_final", "text_projection")
"""Attributes of a `CLIP` that hold its text tower's layers. The projection may be a module, a
parameter or None."""


def find_packing_obstacle(model: nn.Module) -> str | None:
    """Describe why the packed encoder would be wrong for a model; None if it is exact."""
    if type(model) not in OPEN_CLIP_MODELS:
        return f"the model is a {type(model).__name__}"
    text: Any = getattr(model, "text", model)
    if type(text) not in (CLIP, TextTransformer):
        return f"its text tower is a {type(text).__name__}"
    mask = text.attn_mask
    if mask is None or not torch.equal(mask, torch.full_like(mask, -torch.inf).triu(1)):
        return "it is not causal"
    if pool_type(text) not in ("argmax", "eos"):
        return f"it is read at its {pool_type(text)} token"
    if text is not model:
        return find_modification([text])
    layers = (getattr(model, name) for name in TEXT_TOWER_LAYERS)
    return find_modification(layer for layer in layers if isinstance(layer, nn.Module))


@dataclass(frozen=True)
class Packing:
    """How the states of R texts, rows of at most T positions, are stored as N packed states.

    States `(N, D)` are stored once if rows share them, and without positions after a row's end.
    Layers that treat each position alone run on the packed states; attention needs the rows.

    Attributes:
        active: row * T + position of each packed state `(N,)`.
        source: Index of the packed state for each position of each row `(R * T,)`. Positions after
            a row's end have the index of its end.
        ends: Index of the packed state at the end-of-text token of each row `(R,)`.
        eot: Position of the end-of-text token of each row `(R,)`.
        length: T, the number of positions of the longest row.
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
    def row_indices(self) -> Tensor:
        """Row of each packed state `(N,)`."""
        return self.active // self.length

    @property
    def eot_key_mask(self) -> Tensor:
        """Mask of the keys that a row's EOT may read `(R, 1, 1, T)`, True up to its position."""
        positions = torch.arange(self.length, device=self.eot.device)
        return (positions <= self.eot[:, None])[:, None, None]

    def pack(self, padded: Tensor) -> Tensor:
        """Select the packed states `(N, ...)` from rows `(R, T, ...)`."""
        return padded.flatten(0, 1).index_select(0, self.active)

    def pad(self, packed: Tensor) -> Tensor:
        """Return packed states `(N, ...)` as rows `(R, T, ...)`, padded with the state at EOT."""
        return packed.index_select(0, self.source).unflatten(0, (-1, self.length))


def plan_packing(eot_positions: Tensor, source_rows: Tensor | None = None) -> Packing:
    """Plan the packing of R texts; T is `eot.max() + 1`.

    Args:
        eot_positions: Position of the end-of-text token of each text `(R,)`.
        source_rows: For each position, the row whose state is used there `(R, T)`. This is another
            row in a prefix that texts share. None if no text shares a prefix.
    """
    rows = torch.arange(len(eot_positions), device=eot_positions.device)[:, None]
    length = int(eot_positions.max()) + 1
    position = torch.arange(length, device=eot_positions.device).expand(len(eot_positions), length)
    source_rows = rows.expand_as(position) if source_rows is None else source_rows
    computed = (position <= eot_positions[:, None]) & (source_rows == rows)
    number = (computed.flatten().cumsum(0) - 1).view_as(computed)
    clipped = torch.minimum(position, eot_positions[:, None])
    source = number[source_rows.gather(1, clipped), clipped]
    active = computed.flatten().nonzero().squeeze(1)
    return Packing(active, source.flatten(), ends=source[:, -1], eot=eot_positions, length=length)


def prefix_source_rows(tokens: Tensor, eot_positions: Tensor) -> Tensor:
    """Return the row whose state is used at each position `(R, T)`; T is `eot.max() + 1`.

    In the prefix that a text shares with the previous text this is the row of that text, or of an
    earlier text that shares the prefix too. After the prefix it is the text's own row.

    Args:
        tokens: Ids of the texts `(R, C)`.
        eot_positions: Position of the end-of-text token of each text `(R,)`.
    """
    length = int(eot_positions.max()) + 1
    tokens = tokens[:, :length]
    position = torch.arange(length, device=tokens.device)
    same = (tokens[1:] == tokens[:-1]) & (position < eot_positions[1:, None])
    shared = same.long().cumprod(dim=1).sum(dim=1)
    starts = torch.cat([shared.new_zeros(1), shared])
    unshared = position >= starts[:, None]
    owner = torch.arange(len(eot_positions), device=eot_positions.device)[:, None] * unshared
    # Rows grow from text to text: the last one in a column is the owner of the shared prefix.
    return owner.cummax(dim=0).values


class PackedEncoder(TextEncoder):
    """Packed implementation, exact for models in which `find_packing_obstacle` finds nothing.

    T is the length of the batch's longest caption. See `TextEncoder` for the methods.
    """

    implementation = "packed"

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.text: Any = text_tower(model)
        self.embedding = self.text.token_embedding
        self.eot = open_clip_pooling_position_fn(self.text)

    @property
    def embedding_table(self) -> Tensor:
        """Embeddings of the whole vocabulary `(V, D)`, detached."""
        return self.text.token_embedding.weight.detach()

    def non_word_mask(self, tokens: Tensor) -> Tensor:
        """Return a mask `(B, C)` of the end-of-text tokens and the padding after them."""
        return end_and_padding_mask(self.eot, tokens)

    def n_used_columns(self, tokens: Tensor) -> int:
        """Return the number of tokens of the longest caption, EOT included."""
        return int(self.eot(tokens).max()) + 1

    def encode(
        self,
        tokens: Tensor,
        *,
        embeddings: Tensor | None = None,
        attention: AttentionKind | None = None,
        second_order: bool = False,
    ) -> TextOutput:
        """Encode captions up to the end-of-text token of each.

        Later rows of the attention maps have no meaning, and features do not depend on them.
        """
        packing = plan_packing(self.eot(tokens))
        states = self.embedding(tokens[:, : packing.length]) if embeddings is None else embeddings
        features, maps = self._run(packing.pack(states), packing, attention, second_order)
        readout = one_hot(packing.eot, packing.length, states)
        return TextOutput(features, maps, states, readout)

    def encode_variants(
        self, tokens: Tensor, caption_index: Tensor, masked: Tensor, replacement: Tensor
    ) -> Tensor:
        """Encode captions and variants, which share the states before their first masked token."""
        parents = torch.cat([torch.arange(len(tokens), device=tokens.device), caption_index])
        eot = self.eot(tokens)[parents]
        length = int(eot.max()) + 1
        tokens = tokens[:, :length]
        masked = torch.cat([torch.zeros_like(tokens, dtype=torch.bool), masked[:, :length]])
        starts = masked.int().argmax(dim=1, keepdim=True)  # 0 in captions: they have none masked
        shared = torch.arange(length, device=tokens.device) < starts
        rows = torch.arange(len(parents), device=tokens.device)
        packing = plan_packing(eot, torch.where(shared, parents[:, None], rows[:, None]))
        caption_rows, is_masked = parents[packing.row_indices], packing.pack(masked)
        ids = tokens[caption_rows, packing.positions]
        if replacement.ndim == 2:
            ids = torch.where(is_masked, replacement[caption_rows, packing.positions], ids)
        embeddings = self.embedding(ids)
        if replacement.ndim == 1:
            embeddings = torch.where(is_masked.unsqueeze(1), replacement.to(embeddings), embeddings)
        return self._run(embeddings, packing)[0]

    def encode_features(self, tokens: Tensor) -> Tensor:
        """Encode texts; a prefix that a text shares with the previous text is computed once."""
        eot = self.eot(tokens)
        packing = plan_packing(eot, prefix_source_rows(tokens, eot))
        return self._run(self.embedding(packing.pack(tokens[:, : packing.length])), packing)[0]

    def _run(
        self,
        embeddings: Tensor,
        packing: Packing,
        attention: AttentionKind | None = None,
        second_order: bool = False,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return features `(R, E)` of packed token embeddings `(N, D)`, and the requested maps."""
        text, transformer = self.text, self.text.transformer
        dtype = transformer.get_cast_dtype()
        x = embeddings.to(dtype) + text.positional_embedding[packing.positions].to(dtype)
        explicit = second_order or attention == "maps" or not _fused_is_faster(x.device)
        mask = x.new_ones(packing.length, packing.length, dtype=torch.bool).tril()
        options = (mask, explicit, attention == "row")
        *blocks, last = transformer.resblocks
        maps: list[Any] = []
        for block in blocks:
            x, weights = run_layer(transformer, _run_block, block, x, packing, *options)
            maps.append(weights)
        x, weights = run_layer(transformer, _run_last_block, last, x, packing)
        maps.append(weights)
        if attention == "row":
            maps = [weights.flatten(2) for weights in maps]
        x, projection = text.ln_final(x), text.text_projection
        if projection is not None:
            x = projection(x) if isinstance(projection, nn.Module) else x @ projection
        return x, maps if attention else []


def _fused_is_faster(device: torch.device) -> bool:
    """Return whether the fused kernel is faster for captions; on a CPU only without gradients."""
    return device.type != "cpu" or not torch.is_grad_enabled()


def _run_block(
    block: ResidualAttentionBlock,
    x: Tensor,
    packing: Packing,
    mask: Tensor,
    explicit: bool,
    row: bool,
) -> tuple[Tensor, Tensor | None]:
    """Run a block at every position; returns states `(N, D)` and its map, or the EOT's row."""
    q, k, v = project_heads(block, block.ln_1(x), "qkv", packing.pad)
    mixed, weights = attend(q, k, v, mask, explicit=explicit)
    if row:
        rows = torch.arange(len(q), device=x.device)
        if weights is not None:
            weights = weights[rows, :, packing.eot]
        else:
            eot_query = q[rows, :, packing.eot].unsqueeze(2)
            weights = attention_weights(eot_query, k, packing.eot_key_mask)
    return finish_block(block, x, packing.pack(mixed)), weights


def _run_last_block(
    block: ResidualAttentionBlock, x: Tensor, packing: Packing
) -> tuple[Tensor, Tensor | None]:
    """Run the last block at EOT only; returns states `(R, D)` and EOT's row `(R, H, 1, T)`."""
    normed = block.ln_1(x)
    (q,) = project_heads(block, normed.index_select(0, packing.ends).unsqueeze(1), "q")
    k, v = project_heads(block, normed, "kv", packing.pad)
    mixed, weights = attend(q, k, v, packing.eot_key_mask, explicit=True)
    return finish_block(block, x.index_select(0, packing.ends), mixed.squeeze(1)), weights
