"""Faithfulness of word scores: deletion and insertion curves, rank correlation, randomisation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from cae_lib.attribution.base import ReplacementKind, mask_embedding, matched_similarity
from cae_lib.models.text_encoder import text_encoder
from cae_lib.models.text_tower import text_tower

BATCH_SIZE = 128
MIN_WORDS = 3  # captions with fewer words have no ranking to speak of
BLOCK_STAGES = 4  # at most, of `randomize_cascade`
MaskedSimilarity = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From rows of captions `(V,)`, and which of their words are masked `(V, W)`, to S `(V,)`."""


@dataclass(frozen=True)
class Curves:
    """S of captions with k = 0 to W words masked; NaN beyond a caption's words.

    Attributes:
        deletion: `(C, W + 1)`, the k words of the highest scores are masked.
        insertion: `(C, W + 1)`, all but those are masked.
    """

    deletion: np.ndarray
    insertion: np.ndarray


def ranks(scores: np.ndarray) -> np.ndarray:
    """Rank the words `(C, W)` by falling score, from 0; missing words (NaN) come last."""
    falling = np.where(np.isnan(scores), np.inf, -scores)
    return falling.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")


def random_ranks(n_words: np.ndarray, width: int, seed: int = 0) -> np.ndarray:
    """Rank the words `(C, W)` of captions in random order."""
    draws = np.random.default_rng(seed).random((len(n_words), width))
    return ranks(np.where(np.arange(width) < n_words[:, None], draws, np.nan))


def removal_curves(
    orders: np.ndarray, n_words: np.ndarray, similarity: MaskedSimilarity
) -> np.ndarray:
    """Return S `(O, C, W + 1)` with the first k words of each order masked.

    Args:
        orders: Rank of each word `(O, C, W)` in each of O orders.
        n_words: Number of words of each caption `(C,)`; curves are NaN beyond it.
        similarity: Called with each distinct masked caption once.
    """
    return _masked_curves(_first_words(orders), n_words, similarity)


def paired_curves(
    orders: np.ndarray, n_words: np.ndarray, similarity: MaskedSimilarity
) -> list[Curves]:
    """Compute deletion and insertion by each of O orders `(O, C, W)` of falling scores."""
    deleted = _first_words(orders)
    not_inserted = ~deleted & (orders < n_words[:, None])[:, :, None]
    both = _masked_curves(np.concatenate([deleted, not_inserted]), n_words, similarity)
    return [Curves(*pair) for pair in zip(*np.split(both, 2), strict=True)]


def _first_words(orders: np.ndarray) -> np.ndarray:
    """Return the first k words of each order `(O, C, W + 1, W)`."""
    return orders[:, :, None] < np.arange(orders.shape[2] + 1)[:, None]


def _masked_curves(
    masked: np.ndarray, n_words: np.ndarray, similarity: MaskedSimilarity
) -> np.ndarray:
    """Return S `(O, C, W + 1)` with the words `(O, C, W + 1, W)` masked."""
    shape = masked.shape[:3]
    exists = np.broadcast_to(np.arange(shape[2]) <= n_words[:, None], shape)
    captions = np.broadcast_to(np.arange(shape[1])[:, None], shape)[exists]
    keys = np.column_stack([captions, masked[exists]]).astype(np.int32)
    distinct, inverse = np.unique(keys, axis=0, return_inverse=True)
    values = similarity(distinct[:, 0], distinct[:, 1:].astype(bool))
    curves = np.full(shape, np.nan)
    curves[exists] = values[inverse.reshape(-1)]
    return curves


def reverse_curves(curves: np.ndarray, n_words: np.ndarray) -> np.ndarray:
    """Read curves `(C, W + 1)` from their last word to their first."""
    index = n_words[:, None] - np.arange(curves.shape[1])
    values = np.take_along_axis(curves, np.maximum(index, 0), axis=1)
    return np.where(index >= 0, values, np.nan)


def area(curves: np.ndarray, n_words: np.ndarray) -> np.ndarray:
    """Return the area `(C,)` under curves `(C, W + 1)` over the share of words, by trapezoids."""
    ends = (curves[:, 0] + np.take_along_axis(curves, n_words[:, None], axis=1)[:, 0]) / 2
    return (np.nansum(curves, axis=1) - ends) / n_words


def on_grid(curves: np.ndarray, n_words: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Interpolate curves `(C, W + 1)` linearly at fractions `grid (G,)` of the words."""
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
    replacement: ReplacementKind = "mean",
) -> np.ndarray:
    """Return S of captions with some words masked `(V,)`, float64, without the temperature.

    Args:
        model: A model that `text_encoder` knows.
        tokens: Ids of the captions `(C, context_length)`.
        image_features: `(C, E)`.
        words: Number of each token's word `(C, T)`, from 1; 0 for none.
        captions: Row of each variant's caption `(V,)`.
        masked: Which words each variant has masked `(V, W)`; column j is word j + 1.
        replacement: What stands in for a masked token, see `mask_embedding`.
    """
    encoder = text_encoder(model)
    vector = mask_embedding(encoder, replacement)
    caption_rows = torch.from_numpy(np.asarray(captions, dtype=np.int64)).to(tokens.device)
    by_number = torch.from_numpy(masked).to(tokens.device)
    by_number = torch.cat([torch.zeros_like(by_number[:, :1]), by_number], dim=1)  # 0 is no word
    n_word_tokens = (words > 0).sum(dim=1)[caption_rows]
    result = torch.empty(len(caption_rows), dtype=torch.float64)
    for variants in n_word_tokens.argsort(stable=True).split(BATCH_SIZE):  # of similar lengths
        rows = caption_rows[variants]
        embeddings = encoder.embed(tokens[rows])
        is_masked = by_number[variants].gather(1, words[rows])[:, : embeddings.shape[1]]
        changed = torch.where(is_masked.unsqueeze(-1), vector, embeddings)
        features = encoder.encode(tokens[rows], embeddings=changed).features
        similarity = matched_similarity(model, image_features[rows], features)
        result[variants.cpu()] = similarity.double().cpu()
    return result.numpy()


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return Spearman's rank correlation `(C,)` of two scores of each caption's words `(C, W)`.

    It is NaN below `MIN_WORDS` words, and where one side gives all words the same score. A score
    of NaN stands for no word.
    """
    ranked = [rankdata(values, axis=1, nan_policy="omit") for values in (first, second)]
    n = np.isfinite(first).sum(axis=1)
    a, b = (np.nan_to_num(r - (n[:, None] + 1) / 2) for r in ranked)
    size = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    defined = (n >= MIN_WORDS) & (size > 0)
    return np.where(defined, (a * b).sum(axis=1) / np.where(defined, size, 1), np.nan)


def randomize_cascade(model: nn.Module, fresh: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Put weights of a fresh model into the text tower from the top down (Adebayo et al., 2018).

    Yields:
        The name of each stage, and a copy of the model, always the same object, with the weights of
        this stage and of those before replaced: "projection" (with the final layer norm), the
        blocks, and "embeddings" of tokens and positions.
    """
    mixed = copy.deepcopy(model)
    depth = len(text_tower(model).transformer.resblocks)
    stages: dict[str, tuple[str, ...]] = {"projection": ("ln_final.", "text_projection")}
    size = -(-depth // BLOCK_STAGES)
    for top in range(depth, 0, -size):
        low = max(top - size, 0)
        name = f"block {depth}" if low + 1 == depth else f"blocks {depth}-{low + 1}"
        stages[name] = tuple(f"transformer.resblocks.{block}." for block in range(low, top))
    stages["embeddings"] = ("token_embedding.", "positional_embedding")
    fresh_parameters = dict(text_tower(fresh).named_parameters())
    for stage, prefixes in stages.items():
        with torch.no_grad():
            for name, parameter in text_tower(mixed).named_parameters():
                if name.startswith(prefixes):
                    parameter.copy_(fresh_parameters[name])
        yield stage, mixed
