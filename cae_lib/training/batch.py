"""The batch of each optimiser step: rows, pictures, tokens and roles, and false captions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from cae_lib.config import Experiment
from cae_lib.data.captions import Pairs
from cae_lib.data.images import normalise
from cae_lib.data.photographs import Photographs
from cae_lib.errors import DataError
from cae_lib.training.distributed import Ranks
from cae_lib.training.negclip import check_negatives, choose_negatives
from cae_lib.training.order import BatchOrder, Stream, generator
from cae_lib.words.alignment import Alignment


class ImageSource(Protocol):
    """What the trainer needs of a store of pictures."""

    def __len__(self) -> int:
        """Number of pictures."""
        ...

    def batch(
        self,
        index: Tensor,
        generator: torch.Generator | None = None,
        part: Tensor | None = None,
    ) -> Tensor:
        """Normalised pictures (B, 3, S, S), randomly cropped with `generator`.

        With `part` only those places of `index` are returned, with the crops they have in the
        whole; a run of one process does not pass it.
        """
        ...


@dataclass(frozen=True)
class Batch:
    """One step's input; M is B, or 2B with hard negatives, or a process's share of that.

    Attributes:
        rows: row numbers of the data set `(B,)`, of all processes.
        pixels: pictures `(M, 3, S, S)`, normalised, or uint8 with `affine`.
        tokens: their captions `(M, T)`.
        roles: roles of those tokens `(M, T)`.
        words: number of the word each token belongs to `(M, T)`; None leaves it to CLIP's encoding.
        negatives: tokens of false captions `(K, T)`, K <= M; None without hard negatives.
        n_negatives: K of each process.
        n_similar: rows, of all processes, with a similar picture of the file's choice.
        affine: scale and shift that normalise `pixels`; None once that is done.
    """

    rows: Tensor
    pixels: Tensor
    tokens: Tensor
    roles: Tensor
    words: Tensor | None = None
    negatives: Tensor | None = None
    n_negatives: tuple[int, ...] = ()
    n_similar: int = 0
    affine: tuple[Tensor, Tensor] | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on a device, its pictures normalised; `rows` stays where it is."""
        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, Tensor) and name != "rows"
        }
        if self.affine is not None:
            moved["pixels"] = normalise(moved["pixels"], *(v.to(device) for v in self.affine))
        return replace(self, **moved, affine=None)

    def pin_memory(self) -> Batch:
        """The batch in pinned memory; a `DataLoader` calls this."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{name: value.pin_memory() for name, value in tensors.items()})


class Batches:
    """The batches of a run; each is a function of (seed, step) alone.

    Several processes draw the same batch and keep one share of its rows each.

    Args:
        experiment: batch size, seed, and whether to add hard negatives.
        pairs: the training set.
        alignment: tokens and roles of `pairs.captions`.
        images: pictures of `pairs.image_paths`.
        tokenizer: turns false captions into tokens `(n, T)`.
        ranks: the processes that share each batch.

    Raises:
        ConfigError: the batch size does not fit the data or the number of processes.
        DataError: pairs, alignment and pictures differ in length, or negatives are not there.
    """

    def __init__(
        self,
        experiment: Experiment,
        pairs: Pairs,
        alignment: Alignment,
        images: ImageSource,
        tokenizer: Callable[[list[str]], Tensor],
        ranks: Ranks | None = None,
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
        ranks = ranks or Ranks()
        self.shares = [Ranks(r, ranks.size).share(experiment.batch_size) for r in range(ranks.size)]
        self.rank = ranks.rank

    def at(self, step: int) -> Batch:
        """The batch of optimiser step `step`, counted from 0."""
        rows = self.order.rows(step)
        if not self.negatives:
            return self._batch(rows, rows, self._places(1)[self.rank], step)
        source = generator(self.seed, Stream.NEGATIVE, step)
        chosen = choose_negatives(self.pairs, rows, source)
        places = self._places(2)
        texts = [[chosen.negatives[i] for i in own if chosen.negatives[i]] for own in places]
        own = texts[self.rank]
        return replace(
            self._batch(rows, chosen.rows, places[self.rank], step),
            negatives=self.tokenizer(own) if own else self.alignment.tokens[:0],
            n_negatives=tuple(map(len, texts)),
            n_similar=chosen.n_similar,
        )

    def _places(self, blocks: int) -> list[list[int]]:
        """For each process its places in a batch of 1 or 2 blocks of B rows."""
        size = self.order.batch_size
        places = range(size)
        return [
            [block * size + place for block in range(blocks) for place in places[share]]
            for share in self.shares
        ]

    def _batch(self, rows: Tensor, all_rows: Tensor, places: list[int], step: int) -> Batch:
        crops = generator(self.seed, Stream.CROP, step)
        index = self.pairs.image_index[all_rows]
        part = torch.tensor(places)
        own = all_rows[part]
        arguments = (index, crops, part) if len(self.shares) > 1 else (index, crops)
        lazy = isinstance(self.images, Photographs)
        return Batch(
            rows=rows,
            pixels=(self.images.crops if lazy else self.images.batch)(*arguments),
            affine=self.images.affine if lazy else None,
            tokens=self.alignment.tokens[own],
            roles=self.alignment.roles[own],
            words=None if self.alignment.words is None else self.alignment.words[own],
        )
