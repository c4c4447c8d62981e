"""Oracles of the attribution methods: what they should score, by other means than their own.

The oracles read open_clip's encoder over all 77 positions, captum, and the published formulas. They
share no code with `cae_lib.attribution` or `cae_lib.models`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import open_clip
import torch
import torch.nn.functional as F
from captum.attr import FeatureAblation, LayerGradientXActivation, Saliency
from torch import Tensor, nn


@dataclass
class Batch:
    """Captions with the features of their images, and the oracles' scores of them."""

    model: nn.Module
    tokens: Tensor
    eot: Tensor
    image_features: Tensor

    @property
    def text(self) -> nn.Module:
        """The module with the layers of the text tower."""
        return getattr(self.model, "text", self.model)

    def similarity(self, text_features: Tensor, temperature: bool = False) -> Tensor:
        """Return S of each pair, by torch's own cosine."""
        cosine = F.cosine_similarity(self.image_features, text_features, dim=-1)
        return cosine * self.model.logit_scale.exp() if temperature else cosine

    def first(self, n: int) -> Batch:
        """Return the first n captions."""
        return Batch(self.model, self.tokens[:n], self.eot[:n], self.image_features[:n])

    def single(self) -> Batch:
        """Convert the batch to float32; the model is changed in place."""
        return replace(self, model=self.model.float(), image_features=self.image_features.float())

    def row(self, maps: Tensor) -> Tensor:
        """Return EOT's rows of maps `(B, ..., 77, 77)`."""
        return torch.stack([m[..., e, :] for m, e in zip(maps, self.eot, strict=True)])

    def attention_rows(self) -> Tensor:
        """Return EOT's rows `(L, B, H, 77)` of an explicit softmax attention."""
        with explicit_attention(self.text) as maps:
            self.model.encode_text(self.tokens)
        return torch.stack([self.row(m) for m in maps])

    def relevance(
        self, start_layer: int = 0, temperature: bool = True, create_graph: bool = False
    ) -> Tensor:
        """Return EOT's row `(B, 77)` of R, from all rows of all layers (Chefer et al., 2021)."""
        with explicit_attention(self.text) as maps:
            features = self.model.encode_text(self.tokens)
        similarity = self.similarity(features, temperature).sum()
        gradients = torch.autograd.grad(similarity, maps, create_graph=create_graph)
        relevance = torch.eye(77, dtype=features.dtype).repeat(len(self.tokens), 1, 1)
        for attention, gradient in list(zip(maps, gradients, strict=True))[start_layer:]:
            cam = (gradient * attention).clamp(min=0).mean(dim=1)
            relevance = relevance + torch.bmm(cam, relevance)
        return self.row(relevance if create_graph else relevance.detach())

    def score(self, embeddings: Tensor, temperature: bool = False) -> Tensor:
        """Return S by open_clip's own encoder, from token embeddings `(B, 77, D)`."""
        hook = self.text.token_embedding.register_forward_hook(lambda m, i, o: embeddings)
        features = self.model.encode_text(self.tokens)
        hook.remove()
        return self.similarity(features, temperature)

    def saliency(self, temperature: bool = False) -> Tensor:
        """Return dS/dx `(B, 77, D)` by captum."""
        inputs = self.text.token_embedding(self.tokens).detach().requires_grad_()
        explained = Saliency(lambda embeddings: self.score(embeddings, temperature))
        return explained.attribute(inputs, abs=False)

    def gradient_times_embedding(self) -> Tensor:
        """Return dS/dx . x `(B, 77)` by captum, from the token ids on."""

        def explained(tokens: Tensor) -> Tensor:
            return self.similarity(self.model.encode_text(tokens))

        layer = LayerGradientXActivation(explained, self.text.token_embedding)
        return layer.attribute(self.tokens).sum(-1).detach()

    def ablation(self, groups: Tensor, baseline: Tensor) -> Tensor:
        """Ablate groups of tokens `(B, 77)` by captum; group 0 scores 0."""
        with torch.no_grad():
            embeddings = self.text.token_embedding(self.tokens)
            attribution = FeatureAblation(self.score).attribute(
                embeddings,
                baselines=baseline.expand_as(embeddings),
                feature_mask=groups.unsqueeze(-1).expand_as(embeddings),
            )
        return attribution[..., 0] * (groups > 0)


def assert_gradient(
    score: Callable[[], Tensor], weight: Tensor, step: float = 1e-4, row: int | None = None
) -> None:
    """Check the derivative of a score by finite differences of the weight that moves it most."""
    (gradient,) = torch.autograd.grad(score(), weight)
    rows = gradient if row is None else gradient * (torch.arange(len(weight)) == row)[:, None]
    index = divmod(rows.abs().argmax().item(), gradient.shape[1])
    values = []
    for move in (step, -2 * step):
        with torch.no_grad():
            weight[index] += move
            values.append(score().item())
    with torch.no_grad():
        weight[index] += step
    difference = torch.tensor((values[0] - values[1]) / (2 * step), dtype=gradient.dtype)
    torch.testing.assert_close(difference, gradient[index], rtol=1e-4, atol=0)


@contextlib.contextmanager
def explicit_attention(tower: nn.Module) -> Iterator[list[Tensor]]:
    """Swap open_clip's attention for a softmax whose maps are on the path to the output."""
    maps: list[Tensor] = []

    def attend(module: nn.MultiheadAttention, x: Tensor, mask: Tensor | None) -> Tensor:
        size = (*x.shape[:2], module.num_heads, -1)
        weight, bias = module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3)
        q, k, v = (F.linear(x, weight[i], bias[i]).view(size) for i in range(3))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
        maps.append((scores if mask is None else scores + mask.to(x)).softmax(-1))
        mixed = torch.einsum("bhqk,bkhd->bqhd", maps[-1], v)
        return module.out_proj(mixed.reshape(x.shape))

    blocks = tower.transformer.resblocks
    for block in blocks:
        block.attention = lambda q_x, k_x, v_x, attn_mask, b=block: attend(b.attn, q_x, attn_mask)
    try:
        yield maps
    finally:
        for block in blocks:
            del block.attention


def make_batch(model: nn.Module, captions: tuple[str, ...]) -> Batch:
    """Return captions with random image features, in float64; the model is changed in place."""
    tokens = open_clip.tokenize(list(captions))
    model = model.double()
    text = getattr(model, "text", model)
    with torch.no_grad():  # larger than at initialisation, so that every score is far from 0
        text.token_embedding.weight.mul_(20)
        width = model.encode_text(tokens[:1]).shape[-1]
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(len(tokens), width, generator=generator, dtype=torch.float64)
    return Batch(model, tokens, tokens.argmax(-1), F.normalize(images, dim=-1))
