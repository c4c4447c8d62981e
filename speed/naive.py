"""Naive implementation of GradCAM and perturbation attribution, for comparison.

It computes what `cae_lib` computes, directly by the definitions: every caption is padded to the
model's 77 tokens, GradCAM keeps the attention maps of all heads whole and multiplies T x T
relevance matrices, and perturbation masks one word of each caption at a time, each time with a
forward pass of its own. It is not slow on purpose: captions are batched, a pass leaves out captions
without such a word, and where no maps are needed open_clip's own transformer runs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip import CLIP
from torch import Tensor

from cae_lib.training.losses import AttributionLossConfig, role_masks
from cae_lib.words.alignment import word_numbers


def read_features(model: CLIP, states: Tensor, tokens: Tensor) -> Tensor:
    """Features `(B, E)` from the states `(B, 77, D)` of the last block."""
    rows = torch.arange(len(tokens), device=tokens.device)
    return model.ln_final(states)[rows, tokens.argmax(dim=-1)] @ model.text_projection


def encode(model: CLIP, embeddings: Tensor, tokens: Tensor) -> Tensor:
    """Features `(B, E)` from token embeddings `(B, 77, D)`, by open_clip's own transformer."""
    states = embeddings + model.positional_embedding
    states = model.transformer(states, attn_mask=model.attn_mask)
    return read_features(model, states, tokens)


def encode_with_maps(model: CLIP, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Features `(B, E)` and the attention maps `(B, H, 77, 77)` they are computed from."""
    x = model.token_embedding(tokens) + model.positional_embedding
    if not x.requires_grad:
        x.requires_grad_()
    maps = []
    for block in model.transformer.resblocks:
        attention = block.attn
        projected = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
        heads = projected.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = heads
        weights = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        weights = (weights + model.attn_mask).softmax(dim=-1)
        maps.append(weights)
        x = x + attention.out_proj((weights @ v).transpose(1, 2).flatten(2))
        x = x + block.mlp(block.ln_2(x))
    return read_features(model, x, tokens), maps


def gradcam(
    model: CLIP, images: Tensor, tokens: Tensor, create_graph: bool
) -> tuple[Tensor, Tensor]:
    """Apply the rule of Chefer et al. (2021), `R <- R + C R`, with whole matrices.

    Args:
        model: open_clip model.
        images: normalised image features `(B, E)`.
        tokens: `(B, 77)`.
        create_graph: make the scores differentiable.

    Returns:
        Text features `(B, E)`, not normalised, and scores `(B, 77)`.
    """
    features, maps = encode_with_maps(model, tokens)
    cosine = (images * F.normalize(features, dim=-1)).sum(dim=-1)
    similarity = cosine * model.logit_scale.exp()
    gradients = torch.autograd.grad(similarity.sum(), maps, create_graph=create_graph)
    size = tokens.shape[1]
    relevance = torch.eye(size, device=tokens.device).expand(len(tokens), size, size)
    for weights, gradient in zip(maps, gradients, strict=True):
        contribution = (gradient * weights).clamp(min=0).mean(dim=1)
        relevance = relevance + contribution @ relevance
    rows = torch.arange(len(tokens), device=tokens.device)
    return features, relevance[rows, tokens.argmax(dim=-1)]


def perturbation(
    model: CLIP, images: Tensor, tokens: Tensor, words: Tensor
) -> tuple[Tensor, Tensor]:
    """Drop of the cosine when a word becomes the mean token embedding, word after word.

    Args:
        model: open_clip model.
        images: normalised image features `(B, E)`.
        tokens: `(B, 77)`.
        words: `(B, 77)` number of the word each token belongs to; 0 is not masked.

    Returns:
        Text features `(B, E)`, not normalised, and scores `(B, 77)`.
    """
    mask_embedding = model.token_embedding.weight.detach().mean(dim=0)
    embeddings = model.token_embedding(tokens)
    features = encode(model, embeddings, tokens)
    whole = (images * F.normalize(features, dim=-1)).sum(dim=-1)
    scores = torch.zeros(tokens.shape, device=tokens.device)
    for number in range(1, int(words.max()) + 1):
        masked = words == number
        rows = masked.any(dim=1).nonzero().squeeze(1)
        if len(rows) == 0:
            continue
        changed = torch.where(masked[rows].unsqueeze(-1), mask_embedding, embeddings[rows])
        found = F.normalize(encode(model, changed, tokens[rows]), dim=-1)
        drop = whole[rows] - (images[rows] * found).sum(dim=-1)
        scores = scores.index_add(0, rows, drop.unsqueeze(1) * masked[rows])
    return features, scores


def words_of_the_loss(tokens: Tensor, roles: Tensor) -> Tensor:
    """Return the number of each token's word `(B, 77)` where the loss averages it, else 0."""
    words = word_numbers(tokens, 49408)
    objects, composition = role_masks(roles, AttributionLossConfig())
    in_loss = objects | composition
    return torch.stack(
        [
            torch.where(torch.isin(word, word[used]), word, 0)
            for word, used in zip(words, in_loss, strict=True)
        ]
    )
