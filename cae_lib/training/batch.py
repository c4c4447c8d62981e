"""The batch of each optimiser step: rows, pictures, tokens and roles, and false captions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from cae_lib.config import Experiment
from cae_lib.data.captions import Pairs
from cae_lib.errors import DataError
from cae_lib.training.negclip import check_negatives, choose_negatives
from cae_lib.training.order import BatchOrder, Stream, generator
from cae_lib.words.alignment import Alignment


class ImageSource(Protocol):
    """What the trainer needs of a store of pictures."""

    def __len__(self) -> int:
        """Number of pictures."""
        ...

    def batch(self, index: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Normalised pictures (B, 3, S, S), randomly cropped with `generator`."""
        ...


@dataclass(frozen=True)
class Batch:
    """One step's input; M is B, or 2B with hard negatives.

    Attributes:
        rows: row numbers of the data set `(B,)`.
        pixels: pictures `(M, 3, S, S)`.
        tokens: their captions `(M, T)`.
        roles: roles of those tokens `(M, T)`.
        negatives: tokens of false captions `(K, T)`, K <= M; None without hard negatives.
        n_similar: rows with a similar picture of the file's choice.
    """

    rows: Tensor
    pixels: Tensor
    tokens: Tensor
    roles: Tensor
    negatives: Tensor | None = None
    n_similar: int = 0

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; `rows` stays where it is."""
        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, Tensor) and name != "rows"
        }
        return replace(self, **moved)


class Batches:
    """The batches of a run; each is a function of (seed, step) alone.

    Args:
        experiment: batch size, seed, and whether to add hard negatives.
        pairs: the training set.
        alignment: tokens and roles of `pairs.captions`.
        images: pictures of `pairs.image_paths`.
        tokenizer: turns false captions into tokens `(n, T)`.

    Raises:
        DataError: pairs, alignment and pictures differ in length, or negatives are not there.
    """

    def __init__(
        self,
        experiment: Experiment,
        pairs: Pairs,
        alignment: Alignment,
        images: ImageSource,
        tokenizer: Callable[[list[str]], Tensor],
    ) -> None:
        sizes = (len(pairs.captions), len(alignment.tokens), len(pairs.image_paths), len(images))
        if sizes[0] != sizes[1] or sizes[2] != sizes[3]:
            raise DataError(
                f"{pairs.name}: {sizes[0]} captions with {sizes[1]} token rows, and {sizes[2]} "
                f"picture paths with {sizes[3]} pictures; build all of them from the same pairs."
            )
        if experiment.negatives:
            check_negatives(pairs)
        self.seed, self.negatives = experiment.seed, experiment.negatives
        self.pairs, self.alignment, self.images = pairs, alignment, images
        self.tokenizer = tokenizer
        self.order = BatchOrder(sizes[0], experiment.batch_size, experiment.seed)

    def at(self, step: int) -> Batch:
        """The batch of optimiser step `step`, counted from 0."""
        rows = self.order.rows(step)
        if not self.negatives:
            return self._batch(rows, rows, step)
        source = generator(self.seed, Stream.NEGATIVE, step)
        chosen = choose_negatives(self.pairs, rows, source)
        texts = [text for text in chosen.negatives if text is not None]
        tokens = self.tokenizer(texts) if texts else self.alignment.tokens[:0]
        batch = self._batch(rows, chosen.rows, step)
        return replace(batch, negatives=tokens, n_similar=chosen.n_similar)

    def _batch(self, rows: Tensor, all_rows: Tensor, step: int) -> Batch:
        crops = generator(self.seed, Stream.CROP, step)
        return Batch(
            rows=rows,
            pixels=self.images.batch(self.pairs.image_index[all_rows], crops),
            tokens=self.alignment.tokens[all_rows],
            roles=self.alignment.roles[all_rows],
        )
