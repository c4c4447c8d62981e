"""Model-parameter randomisation (Adebayo et al., 2018): do scores depend on what was learned?"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from cae_lib.models.text_tower import text_tower

MOST_STAGES = 4


def cascade(
    model: nn.Module, fresh: nn.Module, most_stages: int = MOST_STAGES
) -> Iterator[tuple[str, nn.Module]]:
    """Put random weights into the text tower from the top down, stage by stage.

    Weights that were replaced stay replaced: each stage adds to the ones before it.

    Args:
        model: The trained model; it is not changed.
        fresh: A model of the same architecture with random weights, the source of the new ones.
        most_stages: Into how many stages the blocks are divided at most.

    Yields:
        A stage's name and a copy of the model after it: "projection" (with the final layer norm),
        "blocks L-k" ... "blocks L-1", and "embeddings" of tokens and positions. The copy is the
        same object every time.
    """
    mixed = copy.deepcopy(model)
    target, source = text_tower(mixed), text_tower(fresh)
    _replace([target.ln_final, target.text_projection], [source.ln_final, source.text_projection])
    yield "projection", mixed
    blocks, new = target.transformer.resblocks, source.transformer.resblocks
    depth = len(blocks)
    size = -(-depth // most_stages)
    for top in range(depth, 0, -size):
        low = max(top - size, 0)
        _replace(list(blocks[low:top]), list(new[low:top]))
        yield f"blocks {depth}-{low + 1}" if low + 1 < depth else f"block {depth}", mixed
    _replace([target.token_embedding, target.positional_embedding],
             [source.token_embedding, source.positional_embedding])
    yield "embeddings", mixed


@torch.no_grad()
def _replace(
    targets: list[nn.Module | Tensor | None], sources: list[nn.Module | Tensor | None]
) -> None:
    """Copy the parameters of modules, or parameters themselves, in place."""
    for target, source in zip(targets, sources, strict=True):
        if target is None or source is None:
            continue
        pairs = (
            zip(target.parameters(), source.parameters(), strict=True)
            if isinstance(target, nn.Module)
            else [(target, source)]
        )
        for ours, theirs in pairs:
            ours.copy_(theirs)
