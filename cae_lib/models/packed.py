"""Packed text encoder: computes only what the features of open_clip's causal text tower depend on.

Features are read at the end-of-text token (EOT), so positions after it are not computed, and the
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
"""Attributes of a `CLIP` that hold its text tower's layers; the projection may be a parameter."""

# On a CPU, oneDNN compiles a kernel for every new shape of a product in bfloat16, which would take
# half of a training step. With rounded sizes, most shapes occur again.
STATES_MULTIPLE, ROWS_MULTIPLE = 64, 32


def find_packing_obstacle(model: nn.Module) -> str | None:
    """Describe why the packed encoder would be wrong for a model; None if it is exact."""
    if type(model) not in OPEN_CLIP_MODELS:
        return f"the model is a {type(model).__name__}"
    text: Any = getattr(model, "text", model)
    if type(text) not in (CLIP, TextTransformer):
        return f"its text tower is a {type(text).__name__}"
    # Only if no position reads a later one can positions after EOT be left out and prefixes shared.
    mask = text.attn_mask
    if mask is None or not torch.equal(mask, torch.full_like(mask, -torch.inf).triu(1)):
        return "it is not causal"
    if pool_type(text) not in ("argmax", "eos"):
        return f"it is read at its {pool_type(text)} token"
    if text is not model:
        return find_modification([text])
    # A `CLIP` has its image tower among its modules, which may be modified.
    layers = (getattr(model, name) for name in TEXT_TOWER_LAYERS)
    return find_modification(layer for layer in layers if isinstance(layer, nn.Module))


@dataclass(frozen=True)
class Packing:
    """How the states of R texts are stored as N packed states `(N, D)`.

    Each text is a row of T positions. Positions after its EOT are left out, and a state that rows
    share is stored once. Layers that treat each position alone run on the packed states; attention
    needs the rows. N is rounded up with copies of the first state, which no row reads.

    Attributes:
        padded_indices: row * T + position of each packed state `(N,)`.
        packed_indices: Index of the packed state for each position of each row `(R * T,)`; after
            the EOT of a row, that of the EOT.
        packed_eot_indices: Index of the packed state at the EOT of each row `(R,)`.
        eot_positions: Position of the EOT of each row `(R,)`.
        length: T, the number of positions up to EOT in the longest text.
    """

    padded_indices: Tensor
    packed_indices: Tensor
    packed_eot_indices: Tensor
    eot_positions: Tensor
    length: int

    @property
    def positions(self) -> Tensor:
        """Position of each packed state in its row `(N,)`."""
        return self.padded_indices % self.length

    @property
    def row_indices(self) -> Tensor:
        """Row of each packed state `(N,)`."""
        return self.padded_indices // self.length

    @property
    def eot_key_mask(self) -> Tensor:
        """Mask of the keys that the EOT of each row may read `(R, 1, 1, T)`: True up to the EOT."""
        positions = torch.arange(self.length, device=self.eot_positions.device)
        return (positions <= self.eot_positions[:, None])[:, None, None]

    def pack(self, padded: Tensor) -> Tensor:
        """Select the packed states `(N, ...)` from rows `(R, T, ...)`."""
        return padded.flatten(0, 1).index_select(0, self.padded_indices)

    def pad(self, packed: Tensor) -> Tensor:
        """Return packed states `(N, ...)` as rows `(R, T, ...)`, padded with the state at EOT."""
        return packed.index_select(0, self.packed_indices).unflatten(0, (-1, self.length))


def plan_packing(eot_positions: Tensor, source_rows: Tensor | None = None) -> Packing:
    """Plan the packing of texts with EOT at these positions `(R,)` as rows of T positions.

    `source_rows` `(R, T)` names the row whose state is used at each position: the text's own row
    or, in a prefix that both share, another row, which uses its own state there. None shares none.
    With `source_rows`, copies of the first row follow, so that R is a multiple of `ROWS_MULTIPLE`.
    """
    rows = torch.arange(len(eot_positions), device=eot_positions.device)[:, None]
    length = int(eot_positions.max()) + 1
    position = torch.arange(length, device=eot_positions.device).expand(len(eot_positions), length)
    n_copies = 0 if source_rows is None else -len(eot_positions) % ROWS_MULTIPLE
    source_rows = rows.expand_as(position) if source_rows is None else source_rows
    computed = (position <= eot_positions[:, None]) & (source_rows == rows)
    # (R, T): the index that each computed state has among the packed ones
    number = (computed.flatten().cumsum(0) - 1).view_as(computed)
    # After EOT a row repeats EOT's state: rows need an entry there, and no feature reads it.
    clipped = torch.minimum(position, eot_positions[:, None])
    source = number[source_rows.gather(1, clipped), clipped]
    active = computed.flatten().nonzero().squeeze(1)
    source = torch.cat([source, source[:1].expand(n_copies, -1)])
    return Packing(
        torch.cat([active, active[:1].expand(-len(active) % STATES_MULTIPLE)]),
        source.flatten(),
        packed_eot_indices=source[:, -1],
        eot_positions=torch.cat([eot_positions, eot_positions[:1].expand(n_copies)]),
        length=length,
    )


def prefix_source_rows(tokens: Tensor, eot_positions: Tensor) -> Tensor:
    """Return `source_rows` of `plan_packing` that share what a text has in common with the last."""
    length = int(eot_positions.max()) + 1
    tokens = tokens[:, :length]
    position = torch.arange(length, device=tokens.device)
    # Sharing ends before EOT, so that every text has a state of its own there.
    same = (tokens[1:] == tokens[:-1]) & (position < eot_positions[1:, None])
    # The product is 1 up to the first difference: the sum is the length of the shared prefix.
    shared = same.long().cumprod(dim=1).sum(dim=1)
    starts = torch.cat([shared.new_zeros(1), shared])
    unshared = position >= starts[:, None]
    owner = torch.arange(len(eot_positions), device=eot_positions.device)[:, None] * unshared
    # Rows grow from text to text: the last one in a column is the owner of the shared prefix.
    return owner.cummax(dim=0).values


class PackedEncoder(TextEncoder):
    """Packed implementation, exact for models in which `find_packing_obstacle` finds nothing.

    S and T of `TextEncoder` are both the number of tokens of the longest caption, EOT included.
    Methods that take tokens raise DataError if a text has no EOT.
    """

    implementation = "packed"

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.text_tower: Any = text_tower(model)
        self.embedding = self.text_tower.token_embedding
        self.eot_position_fn = open_clip_pooling_position_fn(self.text_tower)

    @property
    def embedding_table(self) -> Tensor:
        """Embeddings of the whole vocabulary `(V, D)`, detached."""
        return self.text_tower.token_embedding.weight.detach()

    def non_word_mask(self, tokens: Tensor) -> Tensor:
        """Return a mask `(B, C)` of the end-of-text tokens and the padding after them."""
        return end_and_padding_mask(self.eot_position_fn, tokens)

    def n_used_columns(self, tokens: Tensor) -> int:
        """Return the number of tokens of the longest caption, EOT included."""
        return int(self.eot_position_fn(tokens).max()) + 1

    def encode(
        self,
        tokens: Tensor,
        *,
        embeddings: Tensor | None = None,
        attention: AttentionKind | None = None,
        second_order: bool = False,
    ) -> TextOutput:
        """Encode captions up to EOT; rows of the attention maps after it have no meaning."""
        packing = plan_packing(self.eot_position_fn(tokens))
        states = self.embedding(tokens[:, : packing.length]) if embeddings is None else embeddings
        features, maps = self._run(packing.pack(states), packing, attention, second_order)
        readout = one_hot(packing.eot_positions, packing.length, states)
        return TextOutput(features, maps, states, readout)

    def encode_variants(
        self, tokens: Tensor, caption_index: Tensor, masked: Tensor, replacement: Tensor
    ) -> Tensor:
        """Encode captions and variants; states before the first masked token are computed once."""
        # (B + V,): the row of the caption of each text
        parents = torch.cat([torch.arange(len(tokens), device=tokens.device), caption_index])
        eot = self.eot_position_fn(tokens)[parents]
        length = int(eot.max()) + 1
        tokens = tokens[:, :length]
        masked = torch.cat([torch.zeros_like(tokens, dtype=torch.bool), masked[:, :length]])
        # The first masked position; 0 in captions, which have none masked.
        starts = masked.int().argmax(dim=1, keepdim=True)
        shared = torch.arange(length, device=tokens.device) < starts
        rows = torch.arange(len(parents), device=tokens.device)
        # The tower is causal: before its first masked token a variant has its caption's states.
        packing = plan_packing(eot, torch.where(shared, parents[:, None], rows[:, None]))
        # From here on a tensor has an entry for each of the N packed states.
        caption_rows, is_masked = parents[packing.row_indices], packing.pack(masked)
        ids = tokens[caption_rows, packing.positions]
        # Ids are replaced before the embedding, and embeddings after it.
        if replacement.ndim == 2:
            ids = torch.where(is_masked, replacement[caption_rows, packing.positions], ids)
        embeddings = self.embedding(ids)
        if replacement.ndim == 1:
            embeddings = torch.where(is_masked.unsqueeze(1), replacement.to(embeddings), embeddings)
        return self._run(embeddings, packing)[0][: len(parents)]

    def encode_features(self, tokens: Tensor) -> Tensor:
        """Encode texts; a prefix that a text shares with the previous text is computed once."""
        eot = self.eot_position_fn(tokens)
        packing = plan_packing(eot, prefix_source_rows(tokens, eot))
        embeddings = self.embedding(packing.pack(tokens[:, : packing.length]))
        return self._run(embeddings, packing)[0][: len(tokens)]

    def _run(
        self,
        embeddings: Tensor,
        packing: Packing,
        attention: AttentionKind | None = None,
        second_order: bool = False,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return features `(R, E)` and attention of R texts, from packed embeddings `(N, D)`."""
        text, transformer = self.text_tower, self.text_tower.transformer
        # As in open_clip's own code: the dtype of the layers, which may be half precision.
        dtype = transformer.get_cast_dtype()
        x = embeddings.to(dtype) + text.positional_embedding[packing.positions].to(dtype)
        # The fused kernel returns no maps and has no second derivatives. A row alone is cheap to
        # compute beside it.
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
            # (R, H, T) of an explicit block and (R, H, 1, T) of the others become (R, H, T).
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
    """Run a block on packed states `(N, D)`, and return its attention weights.

    They are the maps `(R, H, T, T)`, or None if `explicit` is False. With `row`, they are those of
    EOT: `(R, H, T)` if `explicit` is True, else `(R, H, 1, T)`.
    """
    q, k, v = project_heads(block, block.ln_1(x), "qkv", packing.pad)
    mixed, weights = attend(q, k, v, mask, explicit=explicit)
    if row:
        rows = torch.arange(len(q), device=x.device)
        if weights is not None:
            weights = weights[rows, :, packing.eot_positions]
        else:
            # The fused kernel returned no weights: (R, H, 1, d), one query of each text.
            eot_query = q[rows, :, packing.eot_positions].unsqueeze(2)
            weights = attention_weights(eot_query, k, packing.eot_key_mask)
    return finish_block(block, x, packing.pack(mixed)), weights


def _run_last_block(
    block: ResidualAttentionBlock, x: Tensor, packing: Packing
) -> tuple[Tensor, Tensor | None]:
    """Run the last block at EOT alone: states `(R, D)` and attention `(R, H, 1, T)`."""
    normed = block.ln_1(x)
    # Each text is its own row with one position: (R, 1, D) to (R, H, 1, d).
    (q,) = project_heads(
        block, normed.index_select(0, packing.packed_eot_indices).unsqueeze(1), "q"
    )
    k, v = project_heads(block, normed, "kv", packing.pad)
    # The fused kernel would take the mask for a causal one, where a single query reads one key.
    mixed, weights = attend(q, k, v, packing.eot_key_mask, explicit=True)
    return finish_block(
        block, x.index_select(0, packing.packed_eot_indices), mixed.squeeze(1)
    ), weights
