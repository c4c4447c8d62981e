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
# Captions with fewer words have no ranking to speak of.
MIN_WORDS = 3
# Most stages of `randomize_cascade` that are blocks.
BLOCK_STAGES = 4
MaskedSimilarity = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Maps rows of captions `(V,)`, and which of their words are masked `(V, W)`, to S `(V,)`."""


@dataclass(frozen=True)
class Curves:
    """S of captions by the number of words k = 0 to W, `(C, W + 1)`; NaN beyond their words.

    Attributes:
        deletion: The k words of the highest scores are masked.
        insertion: All but those are masked.
    """

    deletion: np.ndarray
    insertion: np.ndarray


def ranks(scores: np.ndarray) -> np.ndarray:
    """Rank the words `(C, W)` by falling score, from 0; missing words (NaN) come last."""
    falling = np.where(np.isnan(scores), np.inf, -scores)
    # The second argsort inverts the permutation: it gives each word its place. Stable, so that of
    # equal words the first one comes first.
    return falling.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")


def random_ranks(n_words: np.ndarray, width: int, seed: int = 0) -> np.ndarray:
    """Rank the words `(C, W)` of captions in random order."""
    draws = np.random.default_rng(seed).random((len(n_words), width))
    return ranks(np.where(np.arange(width) < n_words[:, None], draws, np.nan))


def removal_curves(
    orders: np.ndarray, n_words: np.ndarray, similarity: MaskedSimilarity
) -> np.ndarray:
    """Return S `(O, C, W + 1)` with the first k words masked, by O orders' ranks `(O, C, W)`."""
    return _masked_curves(_first_words(orders), n_words, similarity)


def paired_curves(
    orders: np.ndarray, n_words: np.ndarray, similarity: MaskedSimilarity
) -> list[Curves]:
    """Compute deletion and insertion by each of O orders `(O, C, W)` of falling scores."""
    deleted = _first_words(orders)
    # Words that a caption does not have count as not masked in both, so equal captions have equal
    # masks and are encoded once.
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
    # (O, C, W + 1), whether caption c has k words
    exists = np.broadcast_to(np.arange(shape[2]) <= n_words[:, None], shape)
    captions = np.broadcast_to(np.arange(shape[1])[:, None], shape)[exists]
    keys = np.column_stack([captions, masked[exists]]).astype(np.int32)
    # Orders agree on many masks, above all on the first and the last one.
    distinct, inverse = np.unique(keys, axis=0, return_inverse=True)
    values = similarity(distinct[:, 0], distinct[:, 1:].astype(bool))
    curves = np.full(shape, np.nan)
    # NumPy 2.0 alone returns the inverse of rows with two dimensions.
    curves[exists] = values[inverse.reshape(-1)]
    return curves


def reverse_curves(curves: np.ndarray, n_words: np.ndarray) -> np.ndarray:
    """Read curves `(C, W + 1)` from their last word to their first."""
    index = n_words[:, None] - np.arange(curves.shape[1])
    values = np.take_along_axis(curves, np.maximum(index, 0), axis=1)
    return np.where(index >= 0, values, np.nan)


def area(curves: np.ndarray, n_words: np.ndarray) -> np.ndarray:
    """Return the area `(C,)` under curves `(C, W + 1)` over the share of words, by trapezoids."""
    # Beyond a caption's words curves are NaN, which the sum leaves out.
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
    """Return S, without the temperature, of V variants of C captions with words masked `(V,)`.

    `words` `(C, T)` has the number of each token's word from 1, and 0 for none; `captions` `(V,)`
    the row of each variant's caption; and column j of `masked` `(V, W)` says whether word j + 1 is.
    """
    encoder = text_encoder(model)
    vector = mask_embedding(encoder, replacement)
    caption_rows = torch.from_numpy(np.asarray(captions, dtype=np.int64)).to(tokens.device)
    by_number = torch.from_numpy(masked).to(tokens.device)
    # A column for number 0: what is no word is never masked.
    by_number = torch.cat([torch.zeros_like(by_number[:, :1]), by_number], dim=1)
    n_word_tokens = (words > 0).sum(dim=1)[caption_rows]
    result = torch.empty(len(caption_rows), dtype=torch.float64)
    # Captions of similar lengths share a batch, which is encoded up to its longest one.
    for variants in n_word_tokens.argsort(stable=True).split(BATCH_SIZE):
        rows = caption_rows[variants]
        embeddings = encoder.embed(tokens[rows])
        # (variants, columns)
        is_masked = by_number[variants].gather(1, words[rows])[:, : embeddings.shape[1]]
        changed = torch.where(is_masked.unsqueeze(-1), vector, embeddings)
        features = encoder.encode(tokens[rows], embeddings=changed).features
        similarity = matched_similarity(model, image_features[rows], features)
        result[variants.cpu()] = similarity.double().cpu()
    return result.numpy()


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return Spearman's rank correlation `(C,)` of two scores of each caption's words `(C, W)`.

    It is NaN below `MIN_WORDS` words, and where one side gives all words the same score.
    """
    ranked = [rankdata(values, axis=1, nan_policy="omit") for values in (first, second)]
    n = np.isfinite(first).sum(axis=1)
    # The mean rank is (n + 1) / 2, also with ties. After centring, a 0 for what is no word (NaN)
    # adds nothing.
    a, b = (np.nan_to_num(r - (n[:, None] + 1) / 2) for r in ranked)
    size = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    defined = (n >= MIN_WORDS) & (size > 0)
    return np.where(defined, (a * b).sum(axis=1) / np.where(defined, size, 1), np.nan)


def randomize_cascade(model: nn.Module, fresh: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Put weights of a fresh model into the text tower from the top down (Adebayo et al., 2018).

    Yields the name of each stage, and a copy of the model, always the same object.
    """
    mixed = copy.deepcopy(model)
    depth = len(text_tower(model).transformer.resblocks)
    stages: dict[str, tuple[str, ...]] = {"projection": ("ln_final.", "text_projection")}
    # rounded up
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
