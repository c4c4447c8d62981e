"""CLIP's text tower over open_clip's own parameters, without work that cannot reach its output.

The tower is causal and read at the end-of-text token (EOT). So nothing after a caption's EOT is
computed, and the last block computes the EOT position only. Features and gradients equal those of
open_clip's `encode_text` up to rounding.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cae_lib.models.blocks import (
    AttentionRecord,
    attention_weights,
    causal,
    finish_block,
    merge_heads,
    project_heads,
    split_heads,
    until,
)
from cae_lib.models.packing import Packing, owners_of_prefixes, owners_of_variants, pack_rows
from cae_lib.models.text_output import TextOutput, one_hot
from cae_lib.models.text_tower import text_tower


class PackedEncoder:
    """The packed implementation of `TextEncoder`; T is the length of the batch's longest caption.

    Args:
        model: a model for which `why_not_packed` gives None.
    """

    path: ClassVar[str] = "packed"

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.tower = text_tower(model)

    @property
    def vocabulary_size(self) -> int:
        """See `TextEncoder`."""
        return self.tower.token_embedding.num_embeddings

    @property
    def table(self) -> Tensor:
        """See `TextEncoder`."""
        return self.tower.token_embedding.weight.detach()

    def columns(self, tokens: Tensor) -> int:
        """See `TextEncoder`: up to the last EOT."""
        return int(self.tower.eot(tokens).max()) + 1

    def embed(self, tokens: Tensor) -> Tensor:
        """See `TextEncoder`."""
        return self.tower.token_embedding(tokens[:, : self.columns(tokens)])

    def encode(
        self,
        tokens: Tensor,
        *,
        embeddings: Tensor | None = None,
        attention: AttentionRecord | None = None,
        second_order: bool = False,
    ) -> TextOutput:
        """See `TextEncoder`. Rows of maps after a caption's EOT repeat that of EOT."""
        packing = pack_rows(self.tower.eot(tokens))
        if embeddings is None:
            embeddings = self.tower.token_embedding(tokens[:, : packing.length])
        features, maps = self._run(packing.pack(embeddings), packing, attention, second_order)
        readout = one_hot(packing.eot, packing.length, embeddings)
        return TextOutput(features, maps, embeddings, readout)

    def encode_variants(
        self, tokens: Tensor, caption: Tensor, masked: Tensor, stand_in: Tensor
    ) -> Tensor:
        """See `TextEncoder`; a variant shares the states before its first masked token."""
        own = torch.arange(len(tokens), device=tokens.device)
        parents = torch.cat([own, caption])
        eot = self.tower.eot(tokens)[parents]
        length = int(eot.max()) + 1
        tokens = tokens[:, :length]
        masked = torch.cat([torch.zeros_like(tokens, dtype=torch.bool), masked[:, :length]])
        starts = masked.int().argmax(dim=1)  # 0 in the captions, which have no masked token
        packing = pack_rows(eot, owners_of_variants(parents, starts, length))
        rows, inside = parents[packing.rows], packing.pack(masked)
        ids = tokens[rows, packing.positions]
        if stand_in.ndim == 2:
            ids = torch.where(inside, stand_in[rows, packing.positions], ids)
        embeddings = self.tower.token_embedding(ids)
        if stand_in.ndim == 1:
            embeddings = torch.where(inside.unsqueeze(1), stand_in.to(embeddings), embeddings)
        return self._run(embeddings, packing)[0]

    def encode_many(self, tokens: Tensor) -> Tensor:
        """See `TextEncoder`; what a text has in common with the one before is computed once."""
        eot = self.tower.eot(tokens)
        packing = pack_rows(eot, owners_of_prefixes(tokens, eot))
        ids = packing.pack(tokens[:, : packing.length])
        return self._run(self.tower.token_embedding(ids), packing)[0]

    def _run(
        self,
        embeddings: Tensor,
        packing: Packing,
        attention: AttentionRecord | None = None,
        second_order: bool = False,
    ) -> tuple[Tensor, list[Tensor]]:
        """Features `(R, E)` of packed token embeddings `(N, D)`, and the maps asked for."""
        tower = self.tower
        dtype = tower.transformer.get_cast_dtype()
        x = embeddings.to(dtype) + tower.positional_embedding[packing.positions].to(dtype)
        explicit = second_order or attention == "maps" or not _fused_is_faster(x.device)
        blocks = tower.transformer.resblocks
        maps: list[Tensor] = []
        for index, block in enumerate(blocks):
            if index == len(blocks) - 1:
                step, arguments = _last_block, (block, x, packing)
            else:
                step, arguments = _block, (block, x, packing, explicit, attention)
            if tower.transformer.grad_checkpointing and torch.is_grad_enabled():
                x, weights = checkpoint(step, *arguments, use_reentrant=False)
            else:
                x, weights = step(*arguments)
            maps.append(weights.flatten(2) if attention == "row" else weights)
        return tower.project(x), maps if attention else []


def _fused_is_faster(device: torch.device) -> bool:
    """Whether to prefer the fused kernel; on a CPU it loses in training at a caption's length."""
    return device.type != "cpu" or not torch.is_grad_enabled()


def _block(
    block: ResidualAttentionBlock,
    x: Tensor,
    packing: Packing,
    explicit: bool,
    attention: AttentionRecord | None,
) -> tuple[Tensor, Tensor | None]:
    """One block at every position: states `(N, D)` and the map asked for."""
    projected = packing.spread(project_heads(block, block.ln_1(x), "qkv"))
    q, k, v = split_heads(projected, 3, block.attn.num_heads)
    weights = None
    if explicit:
        weights = attention_weights(q, k, causal(packing.length, x.device))
        mixed = weights.to(v.dtype) @ v
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    if attention == "row":
        rows = torch.arange(len(q), device=x.device)
        if weights is not None:
            weights = weights[rows, :, packing.eot]
        else:
            eot_query = q[rows, :, packing.eot].unsqueeze(2)
            weights = attention_weights(eot_query, k, until(packing.eot, packing.length))
    return finish_block(block, x, packing.pack(merge_heads(mixed))), weights


def _last_block(
    block: ResidualAttentionBlock, x: Tensor, packing: Packing
) -> tuple[Tensor, Tensor]:
    """The last block at EOT only: states `(R, D)` and the EOT's row `(R, H, 1, T)`."""
    heads = block.attn.num_heads
    normed = block.ln_1(x)
    ends = normed.index_select(0, packing.ends).unsqueeze(1)
    (q,) = split_heads(project_heads(block, ends, "q"), 1, heads)
    k, v = split_heads(packing.spread(project_heads(block, normed, "kv")), 2, heads)
    weights = attention_weights(q, k, until(packing.eot, packing.length))
    mixed = merge_heads(weights.to(v.dtype) @ v).squeeze(1)
    return finish_block(block, x.index_select(0, packing.ends), mixed), weights
