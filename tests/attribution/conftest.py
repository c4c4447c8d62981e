"""A double-precision clip-mini with a mixed batch, and its attention made explicit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.models import Clip

CAPTIONS = (
    "a dog",
    "the cat is touching the elephant",
    "an umbrella-shaped pterodactyl, striped and blue, holds two giraffes'  balloons",
    "a small red cup on the left of a tree " * 9,
)


@dataclass
class Batch:
    """Captions with their images' features."""

    model: nn.Module
    tokens: Tensor
    eot: Tensor
    image_features: Tensor

    def similarity(self, text_features: Tensor, temperature: bool = False) -> Tensor:
        """S of each pair, written with torch's own cosine."""
        cosine = F.cosine_similarity(self.image_features, text_features, dim=-1)
        return cosine * self.model.logit_scale.exp() if temperature else cosine

    def first(self, n: int) -> Batch:
        """The first n captions."""
        return Batch(self.model, self.tokens[:n], self.eot[:n], self.image_features[:n])

    def single(self) -> Batch:
        """The same batch in float32."""
        return Batch(self.model.float(), self.tokens, self.eot, self.image_features.float())


@pytest.fixture
def batch(tiny_clip: Clip) -> Batch:
    """Four captions from 4 to 77 tokens, one of them truncated, in float64."""
    tokens = tiny_clip.tokenizer(list(CAPTIONS))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(len(tokens), 128, generator=generator, dtype=torch.float64)
    with torch.no_grad():  # larger than at initialisation, so that every score is far from 0
        tiny_clip.model.token_embedding.weight.mul_(20)
    return Batch(
        tiny_clip.model.double(), tokens, tokens.argmax(-1), F.normalize(images, dim=-1)
    )


@pytest.fixture
def explicit_attention() -> Callable[[nn.Module], contextlib.AbstractContextManager[list[Tensor]]]:
    """Swap open_clip's attention for a softmax whose maps are on the path to the output."""

    @contextlib.contextmanager
    def swapped(model: nn.Module) -> Iterator[list[Tensor]]:
        maps: list[Tensor] = []

        def attend(module: nn.MultiheadAttention, x: Tensor, mask: Tensor) -> Tensor:
            size = (*x.shape[:2], module.num_heads, -1)
            weight, bias = module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3)
            q, k, v = (F.linear(x, weight[i], bias[i]).view(size) for i in range(3))
            scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
            maps.append((scores + mask.to(x)).softmax(-1))
            mixed = torch.einsum("bhqk,bkhd->bqhd", maps[-1], v)
            return module.out_proj(mixed.reshape(x.shape))

        blocks = model.transformer.resblocks
        for block in blocks:
            block.attention = lambda q_x, k_x, v_x, attn_mask, b=block: attend(
                b.attn, q_x, attn_mask
            )
        try:
            yield maps
        finally:
            for block in blocks:
                del block.attention

    return swapped
