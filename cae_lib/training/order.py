"""Randomness of a training run as a function of seed and step, so that it can resume anywhere."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from cae_lib.errors import ConfigError


class Stream(IntEnum):
    """Independent streams of random numbers of one run."""

    ORDER = 0
    CROP = 1
    MODEL = 2
    NEGATIVE = 3


def stream_seed(seed: int, stream: Stream, number: int) -> int:
    """Seed of a stream at epoch or step `number`; unlike inputs give unrelated seeds."""
    state = np.random.SeedSequence([seed, int(stream), number]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def generator(seed: int, stream: Stream, number: int) -> torch.Generator:
    """CPU generator of a stream at epoch or step `number`."""
    return torch.Generator().manual_seed(stream_seed(seed, stream, number))


class BatchOrder:
    """Rows of each step: a new permutation every epoch, the incomplete last batch dropped.

    Args:
        count: rows of the data set.
        batch_size: rows of a batch.
        seed: the permutation of an epoch is a function of (seed, epoch).

    Raises:
        ConfigError: the data set is smaller than one batch.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        if not 0 < batch_size <= count:
            raise ConfigError(
                f"batch_size is {batch_size}, but the data set has {count} rows; "
                f"choose 1 to {count}."
            )
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self.steps_per_epoch = count // batch_size
        self._epoch = -1
        self._permutation = torch.empty(0, dtype=torch.long)

    def rows(self, step: int) -> Tensor:
        """Row numbers (batch_size,) of optimiser step `step`, counted from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            source = generator(self.seed, Stream.ORDER, epoch)
            self._permutation = torch.randperm(self.count, generator=source)
            self._epoch = epoch
        return self._permutation[place * self.batch_size : (place + 1) * self.batch_size]
