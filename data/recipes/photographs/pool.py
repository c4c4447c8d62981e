"""Pretrain the image tower of the base model of `paired` on what is where, before it sees captions.

The tower's network is locked. Its pool learns from heads that are thrown away afterwards, which
predict words of the captions of the photograph at each place. So what an image shows is in its
embedding before texts ask for it, as in `data.recipes.synthetic_scenes.tower`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.layers.attention_pool2d import AttentionPool2d
from torch import Tensor, nn

from cae_lib.config import Experiment
from cae_lib.data.rows import read_json
from cae_lib.models.clip import Clip
from cae_lib.runtime import Progress, atomic_file
from data.recipes.photographs.paired import HELD_OUT, SEEN
from data.recipes.photographs.trunk import grids
from data.recipes.synthetic_scenes.tower import Optimizers

BATCH, LR, WARMUP = 192, 1e-3, 30
# Share of the grid's channels that a step does without.
DROPPED = 0.3
# Positions start so many times larger than timm draws them, so that heads look at different places.
POSITIONS = 20
# Left and right, top and bottom.
PLACES = 4


class Images(NamedTuple):
    """N images of two photographs each."""

    grids: Tensor  # that the network makes of them `(N, C, 7, 7)`, in float16
    places: Tensor  # of their photographs `(N, 2)`
    words: Tensor  # of each photograph `(N, 2, W)`, 1 where its captions have the word
    nouns: Tensor  # numbers of the words `(N, 2)` that captions of the image name


def read_images(clip: Clip, root: Path, name: str, precision: str = "fp32") -> Images:
    """Read the images that a file in `root` lists, with the words that it gives for them."""
    content = read_json(root / name, dict)
    rows, vocabulary = content["pictures"], content["words"]
    files = [root / "pictures" / row["file_name"] for row in rows]
    device = next(clip.model.parameters()).device.type
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
        outputs = [grid.half().cpu() for grid in grids(clip, files, f"grids, {Path(name).stem}")]
    words = torch.zeros(len(rows), 2, len(vocabulary))
    for number, row in enumerate(rows):
        for side, numbers in enumerate(row["words"]):
            words[number, side, numbers] = 1
    return Images(
        torch.cat(outputs),
        torch.tensor([[2, 3] if row["upright"] else [0, 1] for row in rows]),
        words,
        torch.tensor([list(map(vocabulary.index, row["nouns"])) for row in rows]),
    )


def pretrain_pool(clip: Clip, root: Path, config: Experiment, state: Path) -> dict[str, float]:
    """Train the pool of `clip` in place, or load it from the file `state`, and return its measures.

    They are those of `measure_heads` on images of which the pool has seen no photograph.
    """
    pool = clip.model.visual.head.pool
    if not state.is_file():
        seen, others = (
            read_images(clip, root, name, config.precision) for name in (SEEN, HELD_OUT)
        )
        heads = learn(pool, seen, config.tower_steps, config.seed)
        with atomic_file(state) as temporary:
            torch.save([pool.state_dict(), measure_heads(pool, heads, others)], temporary)
    weights, shares = torch.load(state, weights_only=True)
    pool.load_state_dict(weights)
    print(", ".join(f"{name} {share:.3f}" for name, share in shares.items()), flush=True)
    return shares


def learn(pool: AttentionPool2d, seen: Images, steps: int, seed: int) -> nn.Linear:
    """Train a pool in place, and return its heads, all places of the first word first."""
    # The network is locked, so its grids are computed once and the pool trains on them.
    device = pool.pos_embed.device
    torch.manual_seed(seed)
    pool.pos_embed.data *= POSITIONS
    heads = nn.Linear(pool.out_features, seen.words.shape[-1] * PLACES).to(device)
    optimizers = Optimizers((pool, heads), steps, WARMUP, LR)
    with Progress(steps, "what is where") as progress:
        for _ in range(steps):
            rows = torch.randint(len(seen.grids), (BATCH,))
            # (B, C, 1, 1), so that no word hangs on a few channels
            channel_mask = F.dropout(
                torch.ones(len(rows), pool.in_features, 1, 1, device=device), DROPPED
            )
            logits = _logits(pool, heads, seen, rows, channel_mask)
            loss = (
                F.binary_cross_entropy_with_logits(
                    logits, seen.words[rows].to(device), reduction="none"
                )
                .sum(-1)
                .mean()
            )
            optimizers.step(loss)
            progress.update(loss=loss.item())
    return heads


def _logits(
    pool: AttentionPool2d,
    heads: nn.Linear,
    seen: Images,
    rows: Tensor,
    channel_mask: Tensor | float = 1.0,
) -> Tensor:
    """Return the logits of words at the two places of each image `(B, 2, W)`."""
    grids = seen.grids[rows].to(pool.pos_embed.device).float() * channel_mask
    # CLIP compares directions alone. The factor gives entries of a size of about 1.
    unit = F.normalize(pooled(pool, grids), dim=-1) * pool.out_features**0.5
    # (B, places, W)
    logits = heads(unit).unflatten(-1, (-1, PLACES)).transpose(1, 2)
    return logits[torch.arange(len(rows))[:, None], seen.places[rows]]


@torch.no_grad()
def measure_heads(pool: AttentionPool2d, heads: nn.Linear, seen: Images) -> dict[str, float]:
    """Measure in which share of images the heads tell which of its two nouns is at which place.

    `probe_order` takes both places together.
    """
    right = []
    for rows in torch.arange(len(seen.grids)).split(BATCH):
        logits = _logits(pool, heads, seen, rows).cpu()
        # (B, places, nouns) of the two places and the two nouns
        of_nouns = logits.gather(2, seen.nouns[rows][:, None].expand(-1, 2, -1))
        first = of_nouns[:, 0, 0] - of_nouns[:, 0, 1]
        second = of_nouns[:, 1, 1] - of_nouns[:, 1, 0]
        right.append(torch.stack([first, second, first + second]) > 0)
    shares = torch.cat(right, 1).float().mean(1).tolist()
    return dict(zip(("probe_first", "probe_second", "probe_order"), shares, strict=True))


def pooled(pool: AttentionPool2d, grids: Tensor) -> Tensor:
    """Return the pool's output for grids `(B, C, h, w)`, as its own forward computes it."""
    tokens = grids.flatten(2).transpose(1, 2)
    tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + pool.pos_embed
    # Only the mean token is read. Keys and values are linear in the tokens, so their projections
    # apply to its query and its output instead of to all tokens; a bias of keys changes no softmax.
    of_heads = (3, pool.num_heads, -1)
    query, key, value = pool.qkv.weight.unflatten(0, of_heads)  # each (heads, width, C)
    query_bias, _, value_bias = pool.qkv.bias.unflatten(0, of_heads)
    queries = torch.einsum("bc,hdc->bhd", tokens[:, 0], query) + query_bias
    queries = torch.einsum("bhd,hdc->bhc", queries, key) * pool.scale
    weights = (queries @ tokens.transpose(1, 2)).softmax(-1)
    values = torch.einsum("bhc,hdc->bhd", weights @ tokens, value) + value_bias
    return pool.proj(values.flatten(1))
