"""How faithful word scores are: deletion and insertion curves, rank correlation, randomisation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from cae_lib.attribution.base import mask_vector, matched_similarity
from cae_lib.models.text_encoder import text_encoder
from cae_lib.models.text_tower import text_tower

ROWS_AT_ONCE = 128
FEWEST_WORDS = 3  # captions with fewer have no ranking to speak of
MOST_STAGES = 4  # that `cascade` divides the blocks into
MaskedSimilarity = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From captions `(V,)` and which of their words are masked `(V, W)` to S `(V,)`."""


@dataclass(frozen=True)
class Curves:
    """S `(C, W + 1)` with the k words of the highest scores masked (deletion), and with all but
    those masked (insertion); NaN beyond a caption's words."""

    deletion: np.ndarray
    insertion: np.ndarray


def ranks(scores: np.ndarray) -> np.ndarray:
    """Place `(C, W)` of each word by falling score, from 0; missing words (NaN) come last."""
    falling = np.where(np.isnan(scores), np.inf, -scores)
    return falling.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")


def random_ranks(n_words: np.ndarray, width: int, seed: int = 0) -> np.ndarray:
    """Places `(C, W)` of the words in random order."""
    draws = np.random.default_rng(seed).random((len(n_words), width))
    return ranks(np.where(np.arange(width) < n_words[:, None], draws, np.nan))


def removal_curves(
    orders: np.ndarray, n_words: np.ndarray, similarity: MaskedSimilarity
) -> np.ndarray:
    """S `(O, C, W + 1)` with the first k words of each order masked; NaN for k > n_words `(C,)`.
    Orders are places `(O, C, W)` of the words; each distinct masked caption is asked for once."""
    return _curves(_first_words(orders), n_words, similarity)


def paired_curves(
    places: np.ndarray, n_words: np.ndarray, similarity: MaskedSimilarity
) -> list[Curves]:
    """Deletion and insertion by each of O orders `(O, C, W)` of falling scores."""
    removed = _first_words(places)
    others = ~removed & (places < n_words[:, None])[:, :, None]
    both = _curves(np.concatenate([removed, others]), n_words, similarity)
    return [Curves(*pair) for pair in zip(*np.split(both, 2), strict=True)]


def _first_words(orders: np.ndarray) -> np.ndarray:
    """The first k words of each order `(O, C, W + 1, W)`."""
    return orders[:, :, None] < np.arange(orders.shape[2] + 1)[:, None]


def _curves(masked: np.ndarray, n_words: np.ndarray, similarity: MaskedSimilarity) -> np.ndarray:
    """S `(O, C, W + 1)` with the words `(O, C, W + 1, W)` masked."""
    shape = masked.shape[:3]
    wanted = np.broadcast_to(np.arange(shape[2]) <= n_words[:, None], shape)
    captions = np.broadcast_to(np.arange(shape[1])[:, None], shape)[wanted]
    keys = np.column_stack([captions, masked[wanted]]).astype(np.int32)
    distinct, inverse = np.unique(keys, axis=0, return_inverse=True)
    values = similarity(distinct[:, 0], distinct[:, 1:].astype(bool))
    curves = np.full(shape, np.nan)
    curves[wanted] = values[inverse.reshape(-1)]
    return curves


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
    return np.stack(
        [
            np.interp(grid, np.arange(n + 1) / n, curve[: n + 1])
            for curve, n in zip(curves, n_words, strict=True)
        ]
    )


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
    """S `(V,)` float64 of captions with some words masked, without the temperature.

    Args:
        model, mask: see `text_encoder`, and `mask_vector` for what stands in for a masked token.
        tokens, image_features: `(C, context_length)`, and `(C, E)`, normalised.
        words: `(C, T)` number of the word each token belongs to, from 1; 0 for none.
        captions: `(V,)` row of each variant's caption.
        masked: `(V, W)` which words are masked; column j is word j + 1.
    """
    encoder = text_encoder(model)
    vector = mask_vector(encoder, mask)
    rows = torch.from_numpy(np.asarray(captions, dtype=np.int64)).to(tokens.device)
    hidden = torch.from_numpy(masked).to(tokens.device)
    hidden = torch.cat([torch.zeros_like(hidden[:, :1]), hidden], dim=1)  # word 0 is never masked
    order = (words > 0).sum(dim=1)[rows].argsort(stable=True)  # captions of a length together
    result = torch.empty(len(rows), dtype=torch.float64)
    for some in order.split(ROWS_AT_ONCE):
        own = rows[some]
        embeddings = encoder.embed(tokens[own])
        inside = hidden[some].gather(1, words[own])[:, : embeddings.shape[1]]
        changed = torch.where(inside.unsqueeze(-1), vector, embeddings)
        features = encoder.encode(tokens[own], embeddings=changed).features
        similarity = matched_similarity(model, image_features[own], features)
        result[some.cpu()] = similarity.double().cpu()
    return result.numpy()


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation `(C,)` of two scores of each caption's words `(C, W)`, NaN for no
    word. It is NaN below `FEWEST_WORDS` words, and where one side does not tell its words apart."""
    ranked = [rankdata(values, axis=1, nan_policy="omit") for values in (first, second)]
    n = np.isfinite(first).sum(axis=1)
    a, b = (np.nan_to_num(r - (n[:, None] + 1) / 2) for r in ranked)
    size = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    defined = (n >= FEWEST_WORDS) & (size > 0)
    return np.where(defined, (a * b).sum(axis=1) / np.where(defined, size, 1), np.nan)


def cascade(model: nn.Module, fresh: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Put weights of a fresh model into the text tower from the top down (Adebayo et al., 2018).

    Yields each stage's name and a copy of the model, always the same object, with the weights of
    this stage and of those before replaced: "projection" (with the final layer norm), the blocks,
    and "embeddings" of tokens and positions.
    """
    mixed = copy.deepcopy(model)
    depth = len(text_tower(model).transformer.resblocks)
    stages = {"projection": ("ln_final.", "text_projection")}
    size = -(-depth // MOST_STAGES)
    for top in range(depth, 0, -size):
        low = max(top - size, 0)
        name = f"block {depth}" if low + 1 == depth else f"blocks {depth}-{low + 1}"
        stages[name] = tuple(f"transformer.resblocks.{block}." for block in range(low, top))
    stages["embeddings"] = ("token_embedding.", "positional_embedding")
    own, new = (dict(text_tower(each).named_parameters()) for each in (mixed, fresh))
    for stage, beginnings in stages.items():
        with torch.no_grad():
            for name, value in own.items():
                if name.startswith(beginnings):
                    value.copy_(new[name])
        yield stage, mixed
