"""What a training run draws, as functions of seed and step, so that it can resume anywhere."""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cae_lib.data.captions import Pairs


class Stream(IntEnum):
    """Independent streams of random numbers of one run."""

    ORDER = 0
    CROP = 1
    MODEL = 2
    NEGATIVE = 3
    MASK = 4


def stream_seed(seed: int, stream: Stream, number: int) -> int:
    """Seed of a stream at epoch or step `number`; unlike inputs give unrelated seeds."""
    state = np.random.SeedSequence([seed, int(stream), number]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def generator(seed: int, stream: Stream, number: int) -> torch.Generator:
    """CPU generator of a stream at epoch or step `number`."""
    return torch.Generator().manual_seed(stream_seed(seed, stream, number))


def batch_rows(count: int, batch_size: int, seed: int, step: int) -> Tensor:
    """Row numbers (batch_size,) of step `step`, counted from 0, in a data set of `count` rows.

    Every epoch has a permutation of its own, and drops the incomplete last batch.
    """
    epoch, place = divmod(step, count // batch_size)
    return _permutation(count, seed, epoch)[place * batch_size : (place + 1) * batch_size]


@lru_cache(maxsize=1)
def _permutation(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator(seed, Stream.ORDER, epoch))


def choose_negatives(
    pairs: Pairs, rows: Tensor, source: torch.Generator
) -> tuple[Tensor, list[str | None], int]:
    """Draw one similar picture for each row, and one false caption for each of the two (NegCLIP).

    Args:
        pairs: rows of a NegCLIP file, with `negatives` and `hard_images`.
        rows: `(B,)` row numbers of a batch.
        source: CPU generator; the draw is a function of its state.

    Returns:
        The rows of the batch, then one row with a similar picture for each `(2B,)`; a false caption
        of each of them, None where the file has none; for how many rows the file names a similar
        picture: the others got any other row.
    """
    draws = torch.rand(3, len(rows), generator=source, dtype=torch.float64)
    similar = []
    for row, draw in zip(rows.tolist(), draws[0].tolist(), strict=True):
        any_other = (row + 1 + int(draw * (pairs.n_used - 1))) % pairs.n_used
        similar.append(_pick(pairs.hard_images[row], draw, any_other))
    both = torch.cat([rows, torch.tensor(similar, dtype=rows.dtype)])
    places = zip(both.tolist(), draws[1:].flatten().tolist(), strict=True)
    texts = [_pick(pairs.negatives[row], draw, None) for row, draw in places]
    return both, texts, sum(bool(pairs.hard_images[row]) for row in rows.tolist())


def _pick(choices: list[Any], draw: float, otherwise: Any) -> Any:
    return choices[int(draw * len(choices))] if choices else otherwise


def masked_words(roles: Tensor, words: Tensor, draws: Tensor) -> Tensor:
    """Tokens `(M, T)` of one word of each caption, drawn from those with a role, if it has any.

    Args:
        roles: of the tokens `(M, T)`.
        words: number of the word each token belongs to `(M, T)`, 0 for none.
        draws: random numbers `(M,)` in [0, 1).
    """
    known = roles.new_zeros(len(words), int(words.max()) + 1)
    known = known.scatter_reduce(1, words, roles, "amax") > 0  # words with a role
    place = (draws * known.sum(1)).long() + 1
    drawn = (known & (known.cumsum(1) == place[:, None])).int().argmax(1)
    return (words == drawn[:, None]) & known.any(1, keepdim=True)
