"""The batch of each optimiser step: rows, pictures, tokens and roles, and false captions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cae_lib.config import Experiment
from cae_lib.data.captions import Pairs
from cae_lib.data.images import Pictures, normalise
from cae_lib.errors import ConfigError, DataError
from cae_lib.training.distributed import Ranks
from cae_lib.training.order import Stream, batch_rows, choose_negatives, generator, masked_words
from cae_lib.words.alignment import Alignment


@dataclass(frozen=True)
class Batch:
    """One step's input; M is B, or 2B with hard negatives, or a process's share of that.

    Attributes:
        rows: row numbers of the data set `(B,)`, of all processes.
        pixels: pictures `(M, 3, S, S)`, 0 to 255 with `affine`, else normalised; or the features
            `(M, E)` of a locked image tower.
        tokens: their captions `(M, T)`.
        roles: roles of those tokens `(M, T)`.
        words: number of the word each token belongs to `(M, T)`.
        masked: tokens that the contrastive loss sees masked `(M, T)` bool; None masks none.
        negatives: tokens of false captions `(K, T)`, K <= M; None without hard negatives.
        n_negatives: K of each process.
        n_similar: rows, of all processes, with a similar picture of the file's choice.
        affine: scale and shift that normalise `pixels`; None once that is done.
    """

    rows: Tensor
    pixels: Tensor
    tokens: Tensor
    roles: Tensor
    words: Tensor
    masked: Tensor | None = None
    negatives: Tensor | None = None
    n_negatives: tuple[int, ...] = ()
    n_similar: int = 0
    affine: tuple[Tensor, Tensor] | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on a device, its pictures normalised; `rows` stays where it is."""
        moved = {name: value.to(device, non_blocking=True)
                 for name, value in self._tensors().items() if name != "rows"}
        if self.affine is not None:
            moved["pixels"] = normalise(moved["pixels"], *(v.to(device) for v in self.affine))
        return replace(self, **moved, affine=None)

    def pin_memory(self) -> Batch:
        """The batch in pinned memory; a `DataLoader` calls this."""
        return replace(self, **{name: v.pin_memory() for name, v in self._tensors().items()})

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}


class Batches:
    """The batches of a run; each is a function of (seed, step) alone.

    Several processes draw the same batch and keep one share of its rows each.

    Args:
        experiment: batch size and seed, and whether to crop, to mask and to add hard negatives.
        pairs: the training set.
        alignment: tokens and roles of `pairs.captions`.
        images: pictures of `pairs.image_paths`.
        tokenizer: turns false captions into tokens `(n, T)`.
        ranks: the processes that share each batch.

    Raises:
        ConfigError: the batch size does not fit the data or the number of processes, or `masked`
            is no share.
        DataError: pairs, alignment and pictures differ in length, or negatives are not there.
    """

    def __init__(
        self, experiment: Experiment, pairs: Pairs, alignment: Alignment, images: Pictures,
        tokenizer: Callable[[list[str]], Tensor], ranks: Ranks | None = None,
    ) -> None:
        count, size = len(pairs.captions), experiment.batch_size
        lengths = (count, len(alignment.tokens), len(pairs.image_paths), len(images))
        if lengths[0] != lengths[1] or lengths[2] != lengths[3]:
            raise DataError(
                f"{pairs.name}: {lengths[0]} captions with {lengths[1]} token rows, and "
                f"{lengths[2]} picture paths with {lengths[3]} pictures; build all of them from "
                "the same pairs."
            )
        if experiment.negatives and not (pairs.hard_images and any(pairs.negatives or [])):
            raise DataError(
                f"{pairs.name} has no hard negatives: training with them needs NegCLIP's tab "
                "separated file, with the columns neg_caption and neg_image, not all of them empty."
            )
        if not 0 < size <= count:
            raise ConfigError(
                f"batch_size is {size}, but the data set has {count} rows; choose 1 to {count}."
            )
        if not 0 <= experiment.masked <= 1:
            raise ConfigError(f"masked is {experiment.masked}; expected a share from 0 to 1.")
        self.experiment, self.pairs, self.alignment = experiment, pairs, alignment
        self.images, self.tokenizer, self.ranks = images, tokenizer, ranks or Ranks()
        if size % self.ranks.size:
            raise ConfigError(
                f"batch_size is {size}, but {self.ranks.size} processes train together; choose a "
                f"multiple of {self.ranks.size}."
            )

    def rows(self, step: int) -> Tensor:
        """Row numbers (B,) of optimiser step `step`, of all processes."""
        settings = self.experiment
        return batch_rows(len(self.pairs.captions), settings.batch_size, settings.seed, step)

    def at(self, step: int) -> Batch:
        """The batch of optimiser step `step`, counted from 0."""
        rows = self.rows(step)
        if not self.experiment.negatives:
            return self._batch(rows, rows, step)
        source = self._random(Stream.NEGATIVE, step)
        both, texts, n_similar = choose_negatives(self.pairs, rows, source)
        false = [[texts[i] for i in own if texts[i]] for own in self._places(len(both)).tolist()]
        own = false[self.ranks.rank]
        return replace(
            self._batch(rows, both, step),
            negatives=self.tokenizer(own) if own else self.alignment.tokens[:0],
            n_negatives=tuple(map(len, false)), n_similar=n_similar,
        )

    def _random(self, stream: Stream, step: int) -> torch.Generator:
        return generator(self.experiment.seed, stream, step)

    def _places(self, count: int) -> Tensor:
        """For each process its places in a batch of one or two blocks of B rows."""
        size = self.experiment.batch_size
        parts = torch.arange(count).view(count // size, self.ranks.size, -1)
        return parts.transpose(0, 1).flatten(1)

    def _batch(self, rows: Tensor, all_rows: Tensor, step: int) -> Batch:
        crops = self._random(Stream.CROP, step) if self.experiment.augment else None
        part = self._places(len(all_rows))[self.ranks.rank]
        pixels = self.images.crops(self.pairs.image_index[all_rows], crops, part)
        own = all_rows[part]
        roles, words = self.alignment.roles[own], self.alignment.words[own]
        masked = self._masked(roles, words, len(all_rows), part, step)
        tokens, affine = self.alignment.tokens[own], self.images.affine
        return Batch(rows, pixels, tokens, roles, words, masked, affine=affine)

    def _masked(
        self, roles: Tensor, words: Tensor, count: int, part: Tensor, step: int
    ) -> Tensor | None:
        """The tokens to mask at the places `part` of `count` captions; see `Batch`."""
        if not self.experiment.masked:
            return None
        draws = torch.rand(2, count, generator=self._random(Stream.MASK, step))[:, part]
        chosen = draws[0] < self.experiment.masked
        return masked_words(roles, words, draws[1]) & chosen[:, None]
