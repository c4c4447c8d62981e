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
    """Return features `(B, E)` from the states `(B, 77, D)` of the last block."""
    # The end-of-text token has the largest id.
    rows = torch.arange(len(tokens), device=tokens.device)
    return model.ln_final(states)[rows, tokens.argmax(dim=-1)] @ model.text_projection


def encode(model: CLIP, embeddings: Tensor, tokens: Tensor) -> Tensor:
    """Return features `(B, E)` from token embeddings `(B, 77, D)`, by open_clip's transformer."""
    states = embeddings + model.positional_embedding
    states = model.transformer(states, attn_mask=model.attn_mask)
    return read_features(model, states, tokens)


def encode_with_maps(model: CLIP, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return features `(B, E)` and the attention maps `(B, H, 77, 77)` they are computed from."""
    x = model.token_embedding(tokens) + model.positional_embedding
    # With a frozen model the maps would have no gradient.
    if not x.requires_grad:
        x.requires_grad_()
    maps = []
    # open_clip's own attention returns weights that are not on the path to its output.
    for block in model.transformer.resblocks:
        attention = block.attn
        projected = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
        # (3, B, H, T, D / H)
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
    """Return features `(B, E)`, not normalised, and scores `(B, 77)` by Chefer et al. (2021).

    `images` are normalised features; `create_graph` makes the scores differentiable.
    """
    features, maps = encode_with_maps(model, tokens)
    cosine = (images * F.normalize(features, dim=-1)).sum(dim=-1)
    similarity = cosine * model.logit_scale.exp()
    # Each caption has a similarity of its own, so the gradient of the sum is that of each.
    gradients = torch.autograd.grad(similarity.sum(), maps, create_graph=create_graph)
    size = tokens.shape[1]
    relevance = torch.eye(size, device=tokens.device).expand(len(tokens), size, size)
    for weights, gradient in zip(maps, gradients, strict=True):
        # (B, 77, 77), the mean over heads
        contribution = (gradient * weights).clamp(min=0).mean(dim=1)
        relevance = relevance + contribution @ relevance
    rows = torch.arange(len(tokens), device=tokens.device)
    return features, relevance[rows, tokens.argmax(dim=-1)]


def perturbation(
    model: CLIP, images: Tensor, tokens: Tensor, words: Tensor
) -> tuple[Tensor, Tensor]:
    """Return features `(B, E)`, not normalised, and drops of the cosine without a word `(B, 77)`.

    `images` are normalised features; `words` `(B, 77)` has the number of each token's word, and 0
    for words that are not masked.
    """
    mask_embedding = model.token_embedding.weight.detach().mean(dim=0)
    embeddings = model.token_embedding(tokens)
    features = encode(model, embeddings, tokens)
    whole = (images * F.normalize(features, dim=-1)).sum(dim=-1)
    scores = torch.zeros(tokens.shape, device=tokens.device)
    for number in range(1, int(words.max()) + 1):
        masked = words == number
        # Captions without such a word need no pass.
        rows = masked.any(dim=1).nonzero().squeeze(1)
        if len(rows) == 0:
            continue
        changed = torch.where(masked[rows].unsqueeze(-1), mask_embedding, embeddings[rows])
        found = F.normalize(encode(model, changed, tokens[rows]), dim=-1)
        drop = whole[rows] - (images[rows] * found).sum(dim=-1)
        # Out of place, for autograd.
        scores = scores.index_add(0, rows, drop.unsqueeze(1) * masked[rows])
    return features, scores


def words_of_the_loss(tokens: Tensor, roles: Tensor) -> Tensor:
    """Return the number of each token's word `(B, 77)` where the loss averages it, else 0."""
    # 49408 is the size of CLIP's vocabulary.
    words = word_numbers(tokens, 49408)
    objects, composition = role_masks(roles, AttributionLossConfig())
    in_loss = objects | composition
    # A word counts whole, if the loss averages one of its tokens.
    return torch.stack(
        [
            torch.where(torch.isin(word, word[used]), word, 0)
            for word, used in zip(words, in_loss, strict=True)
        ]
    )
