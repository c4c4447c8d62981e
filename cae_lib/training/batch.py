"""Build the batch of each step, with all random draws, as functions of seed and step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from cae_lib.attribution.binding import swapped_captions
from cae_lib.config import Experiment
from cae_lib.data.captions import Pairs
from cae_lib.data.images import normalize_pixels
from cae_lib.errors import ConfigError, DataError
from cae_lib.training.distributed import Ranks
from cae_lib.words.alignment import Alignment

ROLE_KINDS = ("parsed", "permuted", "random")


@dataclass(frozen=True)
class Batch:
    """Input of one step; M is B, or 2B with hard negatives, or the share of one process."""

    rows: Tensor  # (B,) row numbers of the data set, of all processes
    pixels: Tensor  # (M, 3, S, S), 0 to 255 with `affine`, else normalised; or features (M, E)
    tokens: Tensor  # (M, T) their captions
    roles: Tensor  # (M, T) of those tokens
    words: Tensor  # (M, T) number of the word each token belongs to, 0 for none
    arguments: Tensor | None = None  # (M, T, 2) words that a token's word is said of
    swaps: Tensor | None = None  # (M, W, 5, 2) what can be swapped in each caption
    masked: Tensor | None = None  # (M, T) bool, tokens that the contrastive loss sees masked
    negatives: Tensor | None = None  # (K, T) negative captions, K <= M
    owners: Tensor | None = None  # (K,) which of the M captions they belong to
    n_negatives: tuple[int, ...] = ()  # K of each process
    n_similar: int = 0  # rows, of all processes, with a similar image of the file's choice
    parsed_roles: Tensor | None = None  # (M, T) of tokens, for `match_gradient`
    affine: tuple[Tensor, Tensor] | None = None  # scale and shift that normalize `pixels`

    def prepare(self, device: torch.device) -> Batch:
        """Move the batch except `rows` to a device, and normalize its images."""
        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in self._tensors().items()
            if name != "rows"
        }
        if self.affine is not None:
            moved["pixels"] = normalize_pixels(
                moved["pixels"], *(v.to(device) for v in self.affine)
            )
        return replace(self, **moved, affine=None)

    def pin_memory(self) -> Batch:
        """Copy the batch to pinned memory; a `DataLoader` calls this."""
        return replace(self, **{name: v.pin_memory() for name, v in self._tensors().items()})

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}


class ImageSource(Protocol):
    """What a batch takes its images from: `TrainingImages`, or `Features` in place of them."""

    @property
    def affine(self) -> tuple[Tensor, Tensor] | None:
        """Scale and shift that normalize the images; None for features."""
        ...

    def __len__(self) -> int: ...

    def crops(
        self, index: Tensor, generator: torch.Generator | None = None, subset: Tensor | None = None
    ) -> Tensor:
        """Return the images of the rows `index`, or of `index[subset]`; see `TrainingImages`."""
        ...


class Batches:
    """The batches of a run; each is a function of (seed, step) alone.

    Processes that train together draw the same batch, and each keeps its share of the rows.

    Args:
        experiment: Settings of the run.
        pairs: Captions and their images.
        alignment: Tokens and roles of `pairs.captions`.
        images: The images of `pairs.image_paths`.
        tokenizer: Turns texts into tokens.
        ranks: The processes that train together; None stands for a single one.
        parsed_roles: For `match_gradient`, the roles `(n, T)` that a placebo was made from.

    Raises:
        DataError: If captions and alignment or paths and images differ in length, or hard negatives
            are missing.
        ConfigError: If the batch size does not fit the data or the number of processes, or `masked`
            is not a share from 0 to 1.
    """

    def __init__(
        self,
        experiment: Experiment,
        pairs: Pairs,
        alignment: Alignment,
        images: ImageSource,
        tokenizer: Callable[[list[str]], Tensor],
        ranks: Ranks | None = None,
        parsed_roles: Tensor | None = None,
    ) -> None:
        self.experiment, self.pairs, self.alignment = experiment, pairs, alignment
        self.parsed_roles = parsed_roles
        self.images, self.tokenizer, self.ranks = images, tokenizer, ranks or Ranks()
        count, size = len(pairs.captions), experiment.batch_size
        lengths = (count, len(alignment.tokens), len(pairs.image_paths), len(images))
        if lengths[0] != lengths[1] or lengths[2] != lengths[3]:
            raise DataError(
                f"{pairs.name}: {lengths[0]} captions with {lengths[1]} token rows, and "
                f"{lengths[2]} image paths with {lengths[3]} images; build all of them from the "
                "same pairs."
            )
        if experiment.foils == "given" and not any(pairs.negatives or []):
            raise DataError(f"{pairs.name} has no negative captions: foils='given' needs some.")
        if experiment.negatives and not (pairs.hard_images and any(pairs.negatives or [])):
            raise DataError(
                f"{pairs.name} has no hard negatives: training with them needs NegCLIP's tab "
                "separated file, with the columns neg_caption and neg_image, not all of them empty."
            )
        if not 0 < size <= count:
            raise ConfigError(
                f"batch_size is {size}, but the data set has {count} rows; choose 1 to {count}."
            )
        if size % self.ranks.size:
            raise ConfigError(
                f"batch_size is {size}, but {self.ranks.size} processes train together; choose a "
                f"multiple of {self.ranks.size}."
            )
        if not 0 <= experiment.masked <= 1:
            raise ConfigError(f"masked is {experiment.masked}; expected a share from 0 to 1.")

    def rows(self, step: int) -> Tensor:
        """Return the row numbers `(B,)` of an optimiser step, over all processes.

        Every epoch has its own permutation and drops the incomplete last batch.

        Args:
            step: Number of the optimiser step, counted from 0.
        """
        count, size = len(self.pairs.captions), self.experiment.batch_size
        epoch, number = divmod(step, count // size)
        permutation = _permutation(count, self.experiment.seed, epoch)
        return permutation[number * size : (number + 1) * size]

    def at(self, step: int) -> Batch:
        """Return the batch of optimiser step `step`, counted from 0."""
        settings, rows = self.experiment, self.rows(step)
        source = self._random(Stream.NEGATIVE, step)
        all_rows, texts, n_similar = rows, None, 0
        if settings.negatives:
            all_rows, texts, n_similar = choose_negatives(self.pairs, rows, source)
        elif settings.foils == "given":
            draws = torch.rand(len(rows), generator=source, dtype=torch.float64)
            texts = _negative_captions(self.pairs, rows, draws)
        shares = _shares(len(all_rows), settings.batch_size, self.ranks.size)
        share = shares[self.ranks.rank]
        crops = self._random(Stream.CROP, step) if settings.augment else None
        pixels = self.images.crops(self.pairs.image_index[all_rows], crops, share)
        captions = self.alignment.take(all_rows[share])
        masked = None
        if settings.masked:
            draws = torch.rand(2, len(all_rows), generator=self._random(Stream.MASK, step))
            is_masked, word_draws = draws[0, share] < settings.masked, draws[1, share]
            words = masked_words(captions.roles, captions.words, word_draws)
            masked = words & is_masked[:, None]
        batch = Batch(
            rows,
            pixels,
            captions.tokens,
            captions.roles,
            captions.words,
            captions.arguments,
            captions.swaps,
            masked,
            n_similar=n_similar,
            parsed_roles=None if self.parsed_roles is None else self.parsed_roles[all_rows[share]],
            affine=self.images.affine,
        )
        if not (settings.negatives or settings.foils):
            return batch
        if texts is None:
            caption, tokens = self._swapped_captions(rows, source)
        else:
            caption = torch.tensor([i for i, text in enumerate(texts) if text], dtype=torch.long)
            negatives = [text for text in texts if text]
            tokens = self.tokenizer(negatives) if negatives else self.alignment.tokens[:0]
        matches = [(positions[:, None] == caption).nonzero() for positions in shares]
        owners, numbers = matches[self.ranks.rank].unbind(1)
        n_negatives = tuple(map(len, matches))
        return replace(batch, negatives=tokens[numbers], owners=owners, n_negatives=n_negatives)

    def _swapped_captions(self, rows: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return one random swap of each caption that has any.

        Args:
            rows: Row numbers of the batch.
            source: Source of random numbers.

        Returns:
            For each swap the position of its caption in the batch `(K,)`, and its tokens `(K, T)`.
        """
        captions = self.alignment.take(rows)
        caption, _, tokens = swapped_captions(
            captions.tokens,
            captions.words,
            captions.roles,
            captions.arguments,
            captions.swaps,
            swap=dict(self.experiment.attribution).get("swap", "noun"),
            samples=1,
            vocabulary_size=getattr(self.tokenizer, "vocab_size", None),
            generator=source,
        )
        return caption, tokens

    def _random(self, stream: Stream, step: int) -> torch.Generator:
        return generator(self.experiment.seed, stream, step)


class Stream(IntEnum):
    """Independent streams of random numbers of one run."""

    ORDER, CROP, MODEL, NEGATIVE, MASK = range(5)


def generator(seed: int, stream: Stream, number: int) -> torch.Generator:
    """Return a CPU generator that depends on nothing but these three arguments.

    A batch is therefore the same whether a run is resumed, is split over processes or draws its
    batches in a worker. Different arguments give unrelated random numbers.

    Args:
        seed: Seed of the run.
        stream: What the numbers are for.
        number: Step of the run, or the epoch for `Stream.ORDER`.
    """
    state = np.random.SeedSequence([seed, int(stream), number]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


@lru_cache(maxsize=1)
def _permutation(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator(seed, Stream.ORDER, epoch))


def _shares(count: int, size: int, processes: int) -> Tensor:
    """Split the positions in a batch evenly between processes.

    Args:
        count: Number of rows of the batch, one or two blocks of `size`. With NegCLIP's negatives
            the second block holds a similar image for each row of the first.
        size: Number of rows of a block, divisible by the number of processes.
        processes: Number of processes.

    Returns:
        Positions `(processes, count / processes)`. A process has the same positions of each block.
    """
    blocks = torch.arange(count).view(count // size, processes, -1)
    return blocks.transpose(0, 1).flatten(1)


def choose_negatives(
    pairs: Pairs, rows: Tensor, generator: torch.Generator
) -> tuple[Tensor, list[str | None], int]:
    """Draw a row with a similar image for each row, and a hard negative for all of them (NegCLIP).

    Args:
        pairs: Captions and images, with hard negatives and similar images.
        rows: Row numbers `(B,)`.
        generator: Source of random numbers.

    Returns:
        The rows, followed by one with a similar image for each `(2B,)`; a hard negative for each of
        them, None where there is none; and the number of `rows` that have similar images (the
        others get a random other row).
    """
    draws = torch.rand(3, len(rows), generator=generator, dtype=torch.float64)
    hard_images, similar = pairs.hard_images or [], []
    for row, draw in zip(rows.tolist(), draws[0].tolist(), strict=True):
        any_other = (row + 1 + int(draw * (pairs.n_used - 1))) % pairs.n_used
        similar.append(_pick(hard_images[row], draw, any_other))
    all_rows = torch.cat([rows, torch.tensor(similar, dtype=rows.dtype)])
    texts = _negative_captions(pairs, all_rows, draws[1:].flatten())
    return all_rows, texts, sum(bool(hard_images[row]) for row in rows.tolist())


def _negative_captions(pairs: Pairs, rows: Tensor, draws: Tensor) -> list[str | None]:
    """Draw a hard negative for each row that has any; None for the others."""
    negatives = pairs.negatives or []
    rows_and_draws = zip(rows.tolist(), draws.tolist(), strict=True)
    return [_pick(negatives[row], draw, None) for row, draw in rows_and_draws]


def _pick(choices: list[Any], draw: float, otherwise: Any) -> Any:
    return choices[int(draw * len(choices))] if choices else otherwise


def masked_words(roles: Tensor, words: Tensor, draws: Tensor) -> Tensor:
    """Mark the tokens of one word with a role in each caption.

    Args:
        roles: Roles of tokens `(M, T)`, as in a `Batch`.
        words: Words of tokens `(M, T)`, as in a `Batch`.
        draws: Numbers in [0, 1) that select the words `(M,)`.

    Returns:
        Bool `(M, T)`: the tokens of the selected words. A caption without roles has none.
    """
    of_words = roles.new_zeros(len(words), int(words.max()) + 1)
    with_role = of_words.scatter_reduce(1, words, roles, "amax") > 0
    number = (draws * with_role.sum(1)).long() + 1
    drawn = (with_role & (with_role.cumsum(1) == number[:, None])).int().argmax(1)
    return (words == drawn[:, None]) & with_role.any(1, keepdim=True)


def placebo_roles(alignment: Alignment, kind: str, seed: int) -> Alignment:
    """Assign the roles of each caption to other words of the same caption, as a control.

    A caption keeps the number of its words with each role, but no arguments and no swaps. The draw
    depends on `seed` and the row alone.

    Args:
        alignment: Tokens and roles of captions.
        kind: "permuted" shuffles the roles among the words that have one; "random" among all words
            and punctuation marks; "parsed" changes nothing.
        seed: Seed of the draw.

    Raises:
        ConfigError: If the kind is unknown.
    """
    if kind not in ROLE_KINDS:
        raise ConfigError(f"unknown roles {kind!r}: expected one of {', '.join(ROLE_KINDS)}.")
    if kind == "parsed":
        return alignment
    roles, words = alignment.roles, alignment.words
    of_words = roles.new_zeros(len(words), words.shape[1] + 1)
    of_words = of_words.scatter_reduce(1, words, roles, "amax")
    dealt_in = of_words > 0
    if kind == "random":
        dealt_in = torch.zeros_like(dealt_in).scatter(1, words, words > 0)
    source = torch.Generator().manual_seed(seed)
    draws = torch.rand(of_words.shape, generator=source, dtype=torch.float64)
    order = draws.masked_fill(~dealt_in, 1).argsort(dim=1)  # the others come last and get no role
    dealt = torch.zeros_like(of_words).scatter(1, order, of_words.sort(descending=True).values)
    return replace(alignment, roles=dealt.gather(1, words), arguments=None, swaps=None)
