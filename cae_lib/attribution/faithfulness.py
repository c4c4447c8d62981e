"""Deletion and insertion curves of word scores: does S fall where the scores say it should?

Deletion masks the words of a caption one after the other, the highest score first, and follows S.
Insertion starts from a caption of masked words and brings them back in that order. The two orders
belong together: bringing words back, highest first, passes the same captions as masking them,
lowest first, the other way round. So one function, `removal_curves`, serves both, and the reverse
order needs no run of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from cae_lib.attribution.masking import mask_vector
from cae_lib.attribution.similarity import matched_similarity
from cae_lib.models.text_encoder import TextEncoder, text_encoder

ROWS_AT_ONCE = 128

MaskedSimilarity = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From captions `(V,)` and which of their words are masked `(V, W)` to S `(V,)`."""


@dataclass(frozen=True)
class Curves:
    """S while words are taken away.

    Attributes:
        deletion: `(C, W + 1)`, S with the k words of the highest scores masked; NaN beyond a
            caption's words.
        insertion: `(C, W + 1)`, S with all but those k words masked.
    """

    deletion: np.ndarray
    insertion: np.ndarray


def ranks(scores: np.ndarray) -> np.ndarray:
    """Place `(C, W)` of each word by falling score, from 0; missing words (NaN) come last.

    Of equal scores the earlier word comes first.
    """
    falling = np.where(np.isnan(scores), np.inf, -scores)
    return falling.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")


def random_ranks(n_words: np.ndarray, width: int, seed: int = 0) -> np.ndarray:
    """Places `(C, W)` of the words in random order."""
    draws = np.random.default_rng(seed).random((len(n_words), width))
    return ranks(np.where(np.arange(width) < n_words[:, None], draws, np.nan))


def reversed_ranks(places: np.ndarray, n_words: np.ndarray) -> np.ndarray:
    """The opposite order; words that a caption does not have stay last."""
    count = n_words[:, None]
    return np.where(places < count, count - 1 - places, places)


def removal_curves(
    orders: np.ndarray, n_words: np.ndarray, similarity: MaskedSimilarity
) -> np.ndarray:
    """S while words are masked one after the other.

    Args:
        orders: `(O, C, W)` place of each word in each of O orders.
        n_words: `(C,)`.
        similarity: Gives S of masked captions. Each distinct one is asked for once, in one call.

    Returns:
        `(O, C, W + 1)`: S with the first k words of the order masked; NaN for k > n_words.
    """
    width = orders.shape[2]
    steps = np.arange(width + 1)
    masked = orders[:, :, None, :] < steps[:, None]  # (O, C, W + 1, W)
    wanted = np.broadcast_to(steps <= n_words[:, None], masked.shape[:3])
    captions = np.broadcast_to(np.arange(len(n_words))[:, None], masked.shape[:3])[wanted]
    keys = np.column_stack([captions, masked[wanted]]).astype(np.int32)
    distinct, inverse = np.unique(keys, axis=0, return_inverse=True)
    values = similarity(distinct[:, 0], distinct[:, 1:].astype(bool))
    curves = np.full(masked.shape[:3], np.nan)
    curves[wanted] = values[inverse.reshape(-1)]
    return curves


def paired_curves(
    places: np.ndarray, n_words: np.ndarray, similarity: MaskedSimilarity
) -> list[Curves]:
    """Deletion and insertion by each of O orders `(O, C, W)` of falling scores."""
    backwards = np.stack([reversed_ranks(order, n_words) for order in places])
    both = removal_curves(np.concatenate([places, backwards]), n_words, similarity)
    deletion, reverse = np.split(both, 2)
    return [Curves(d, turned(r, n_words)) for d, r in zip(deletion, reverse, strict=True)]


def turned(curves: np.ndarray, n_words: np.ndarray) -> np.ndarray:
    """Curves `(C, W + 1)` read from their last word to their first."""
    index = n_words[:, None] - np.arange(curves.shape[1])
    values = np.take_along_axis(curves, np.maximum(index, 0), axis=1)
    return np.where(index >= 0, values, np.nan)


def area(curves: np.ndarray, n_words: np.ndarray) -> np.ndarray:
    """Area `(C,)` under curves `(C, W + 1)` over the fraction of words, by trapezoids."""
    ends = (curves[:, 0] + np.take_along_axis(curves, n_words[:, None], axis=1)[:, 0]) / 2
    return (np.nansum(curves, axis=1) - ends) / n_words


def on_grid(curves: np.ndarray, n_words: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Curves `(C, W + 1)` at fractions `grid (G,)` of the words, between points linearly."""
    return np.stack([
        np.interp(grid, np.arange(n + 1) / n, curve[: n + 1])
        for curve, n in zip(curves, n_words, strict=True)
    ])


@torch.no_grad()
def masked_similarity(
    model: nn.Module,
    tokens: Tensor,
    image_features: Tensor,
    words: Tensor,
    captions: np.ndarray,
    masked: np.ndarray,
    mask: str = "mean",
) -> np.ndarray:
    """S of captions with some words masked, many at a time.

    Args:
        model: a model that `text_encoder` knows.
        tokens: `(C, context_length)`.
        image_features: `(C, E)`, normalised.
        words: `(C, T)` number of the word each token belongs to, from 1; 0 for none.
        captions: `(V,)` row of each variant's caption.
        masked: `(V, W)` which words are masked; column j is word j + 1.
        mask: What stands in for a masked token; see `mask_vector`.

    Returns:
        `(V,)` float64, without the temperature.

    Raises:
        ConfigError: Unknown mask.
    """
    encoder = text_encoder(model)
    vector = mask_vector(encoder, mask)
    rows = torch.from_numpy(np.asarray(captions, dtype=np.int64)).to(tokens.device)
    hidden = torch.from_numpy(masked).to(tokens.device)
    hidden = torch.cat([torch.zeros_like(hidden[:, :1]), hidden], dim=1)  # word 0 is never masked
    order = (words > 0).sum(dim=1)[rows].argsort(stable=True)  # captions of one length together
    result = torch.empty(len(rows), dtype=torch.float64)
    for part in order.split(ROWS_AT_ONCE):
        own = rows[part]
        inside = hidden[part].gather(1, words[own])
        result[part.cpu()] = _similarities(
            encoder, tokens[own], image_features[own], inside, vector
        ).cpu()
    return result.numpy()


def _similarities(
    encoder: TextEncoder, tokens: Tensor, image_features: Tensor, inside: Tensor, vector: Tensor
) -> Tensor:
    """S `(V,)` of captions with `vector` in the place of the tokens `inside` `(V, T)`."""
    embeddings = encoder.embed(tokens)
    hidden = inside[:, : embeddings.shape[1]].unsqueeze(-1)
    masked = torch.where(hidden, vector, embeddings)
    features = encoder.encode(tokens, embeddings=masked).features
    return matched_similarity(encoder.model, image_features, features, temperature=False).double()
