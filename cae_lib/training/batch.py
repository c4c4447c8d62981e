"""Build the batch of each training step, ahead of time if workers help.

Every random draw is a function of seed and step.
"""

from __future__ import annotations

import signal
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache
from multiprocessing import resource_tracker
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cae_lib.attribution.binding import swapped_captions
from cae_lib.config import Experiment
from cae_lib.data.captions import ImageCaptionPairs
from cae_lib.data.images import normalize_pixels
from cae_lib.errors import ConfigError, DataError
from cae_lib.runtime import end_with_parent
from cae_lib.training.distributed import Ranks
from cae_lib.words.alignment import Alignment

ROLE_ASSIGNMENTS = ("parsed", "permuted", "random")
"""Values of `Experiment.roles`; see `placebo_roles`."""

PREFETCH_FACTOR = 2
"""Number of batches that each worker holds ready."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Signals that only the main process handles: it finishes its step, saves, and ends its workers."""


@dataclass(frozen=True)
class Batch:
    """Input of one training step, or the share of it that one process has.

    M is the process's share of `batch_size`, and twice that with NegCLIP's negatives. Tensors
    without a line below are as in `Alignment`, for M captions.

    Attributes:
        rows: Row numbers of the dataset `(batch_size,)`, over all processes, without those that
            NegCLIP's negatives add.
        image_inputs: Images `(M, 3, S, S)`, uint8 if `normalization` is set, else normalised
            float32; or `PrecomputedFeatures` `(M, ...)`.
        negatives: Token ids of K <= M hard negative captions `(K, T)`.
        caption_of_negative: Index of each negative's caption among the M captions `(K,)`.
        negative_counts: K of each process.
        n_similar: Number of `rows` for which NegCLIP's file lists similar images.
        parsed_roles: For `match_gradient`, the roles `(M, T)` before they were shuffled.
        normalization: Scale and shift `(3, 1, 1)` that `image_inputs` still need.
    """

    rows: Tensor
    image_inputs: Tensor
    tokens: Tensor
    roles: Tensor
    words: Tensor
    arguments: Tensor | None = None
    swaps: Tensor | None = None
    negatives: Tensor | None = None
    caption_of_negative: Tensor | None = None
    negative_counts: tuple[int, ...] = ()
    n_similar: int = 0
    parsed_roles: Tensor | None = None
    normalization: tuple[Tensor, Tensor] | None = None

    def prepare(self, device: torch.device) -> Batch:
        """Return the batch on a device, with normalised images; `rows` stay where they are."""
        # The model does not use `rows`: they are counted, and named in errors.
        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in self._tensors().items()
            if name != "rows"
        }
        # Pixels travel as uint8, a quarter of the bytes of float32, and are normalised on arrival.
        if self.normalization is not None:
            moved["image_inputs"] = normalize_pixels(
                moved["image_inputs"], *(v.to(device) for v in self.normalization)
            )
        return replace(self, **moved, normalization=None)

    def pin_memory(self) -> Batch:
        """Return a copy of the batch in pinned memory; `DataLoader` calls this method."""
        return replace(self, **{name: v.pin_memory() for name, v in self._tensors().items()})

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}


class ImageSource(Protocol):
    """Where batches take their images from: `TrainingImages` or `PrecomputedFeatures`."""

    @property
    def normalization(self) -> tuple[Tensor, Tensor] | None:
        """Scale and shift, `(3, 1, 1)` each, for `normalize_pixels`; None for features."""
        ...

    def __len__(self) -> int: ...

    def crops(
        self, index: Tensor, generator: torch.Generator | None = None, subset: Tensor | None = None
    ) -> Tensor:
        """Return images `index` `(n,)` as crops, uint8 `(n, 3, S, S)`, or as features `(n, ...)`.

        Without a generator of random crops, these are the central squares. `subset` `(m,)` keeps
        only m positions in `index`, but draws as for all n.
        """
        ...


class Batches:
    """The batches of a run; each is a function of (seed, step) alone.

    `alignment` has a row for each caption of `pairs`, and `images` an image for each of its paths.
    `parsed_roles` are the roles before they were shuffled, for `match_gradient`.
    """

    def __init__(
        self,
        experiment: Experiment,
        pairs: ImageCaptionPairs,
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
        # `Ranks.gather` takes the shares of all processes to be equally long.
        if size % self.ranks.size:
            raise ConfigError(
                f"batch_size is {size}, but {self.ranks.size} processes train together; choose a "
                f"multiple of {self.ranks.size}."
            )

    def row_numbers(self, step: int) -> Tensor:
        """Return the row numbers `(batch_size,)` of an optimiser step, over all processes."""
        count, size = len(self.pairs.captions), self.experiment.batch_size
        # Each epoch has a permutation of its own and drops the incomplete last batch.
        epoch, number = divmod(step, count // size)
        permutation = _permutation(count, self.experiment.seed, epoch)
        return permutation[number * size : (number + 1) * size]

    def at(self, step: int) -> Batch:
        """Return this process's share of the batch of a step, not normalised yet, on the CPU."""
        settings, rows = self.experiment, self.row_numbers(step)
        # Each process draws for the whole batch and then takes its share, so that a row gets the
        # same negatives and the same crop however many processes there are.
        source = self._random(RandomStream.NEGATIVE, step)
        all_rows, texts, n_similar = rows, None, 0
        if settings.negatives:
            all_rows, texts, n_similar = choose_negatives(self.pairs, rows, source)
        elif settings.foils == "given":
            draws = torch.rand(len(rows), generator=source, dtype=torch.float64)
            texts = _negative_captions(self.pairs, rows, draws)
        # (processes, M): the positions in the batch that each process takes.
        shares = _shares(len(all_rows), settings.batch_size, self.ranks.size)
        share = shares[self.ranks.rank]
        crops = self._random(RandomStream.CROP, step) if settings.augment else None
        # Crops are drawn for all rows, but only the images of this share are decoded.
        pixels = self.images.crops(self.pairs.image_index[all_rows], crops, share)
        captions = self.alignment.take(all_rows[share])
        batch = Batch(
            rows,
            pixels,
            captions.tokens,
            captions.roles,
            captions.words,
            captions.arguments,
            captions.swaps,
            n_similar=n_similar,
            parsed_roles=None if self.parsed_roles is None else self.parsed_roles[all_rows[share]],
            normalization=self.images.normalization,
        )
        if not (settings.negatives or settings.foils):
            return batch
        if texts is None:
            caption, tokens = self._swapped_captions(rows, source)
        else:
            caption = torch.tensor([i for i, text in enumerate(texts) if text], dtype=torch.long)
            negatives = [text for text in texts if text]
            # (0, T) if there are none, since not every tokenizer accepts an empty list.
            tokens = self.tokenizer(negatives) if negatives else self.alignment.tokens[:0]
        # A negative goes where its caption is: for each process, a row (index of the caption in the
        # share, number of the negative) for each of its K negatives (K, 2).
        matches = [(positions[:, None] == caption).nonzero() for positions in shares]
        caption_of_negative, numbers = matches[self.ranks.rank].unbind(1)
        return replace(
            batch,
            negatives=tokens[numbers],
            caption_of_negative=caption_of_negative,
            negative_counts=tuple(map(len, matches)),
        )

    def _swapped_captions(self, rows: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return positions `(K,)` of captions that have a swap, and tokens `(K, T)` of one each."""
        captions = self.alignment.take(rows)
        caption, _, tokens = swapped_captions(
            captions.tokens,
            captions.words,
            captions.roles,
            captions.arguments,
            captions.swaps,
            swap_kind=dict(self.experiment.attribution).get("swap", "noun"),
            samples=1,
            # "a" and "an" are adapted to the swap only in CLIP's vocabulary.
            vocabulary_size=getattr(self.tokenizer, "vocab_size", None),
            generator=source,
        )
        return caption, tokens

    def _random(self, stream: RandomStream, step: int) -> torch.Generator:
        return seeded_generator(self.experiment.seed, stream, step)


class RandomStream(IntEnum):
    """Independent streams of random numbers of one run, by what the numbers are used for."""

    # MODEL is for dropout and attribution methods, NEGATIVE for hard negatives and similar images.
    ORDER, CROP, MODEL, NEGATIVE = range(4)


def seeded_generator(seed: int, stream: RandomStream, step_or_epoch: int) -> torch.Generator:
    """Return a CPU generator seeded by a hash of its arguments; `ORDER` is counted in epochs."""
    # A hash, so that neighbouring seeds and steps give unrelated numbers. No state is carried from
    # step to step: a resumed run, a worker and another process draw the same.
    state = np.random.SeedSequence([seed, int(stream), step_or_epoch]).generate_state(1, np.uint64)
    # 63 bits, which fit a signed integer.
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


# One entry is enough: consecutive steps share the permutation of their epoch.


@lru_cache(maxsize=1)
def _permutation(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=seeded_generator(seed, RandomStream.ORDER, epoch))


def _shares(count: int, size: int, processes: int) -> Tensor:
    """Return the positions in a batch of each process `(processes, count / processes)`."""
    # (blocks, processes, rows). NegCLIP's second block holds the similar image of each row of the
    # first: a process takes the same places of both, so that the two stay together.
    blocks = torch.arange(count).view(count // size, processes, -1)
    return blocks.transpose(0, 1).flatten(1)


def choose_negatives(
    pairs: ImageCaptionPairs, rows: Tensor, generator: torch.Generator
) -> tuple[Tensor, list[str | None], int]:
    """Draw NegCLIP's negatives of rows `(B,)`: similar images, and hard negative captions.

    Returns the row numbers `(2B,)`, first `rows` and then a row with a similar image for each; a
    hard negative of each of these 2B rows, or None; and the number of `rows` with similar images.
    """
    # (3, B): for the similar image, and for the hard negatives of both rows. All are drawn, used or
    # not, so that a row without negatives does not shift the draws of the others.
    draws = torch.rand(3, len(rows), generator=generator, dtype=torch.float64)
    hard_images, similar = pairs.hard_images or [], []
    for row, draw in zip(rows.tolist(), draws[0].tolist(), strict=True):
        # Uniform over all rows but this one, for rows without a similar image.
        any_other = (row + 1 + int(draw * (pairs.n_used - 1))) % pairs.n_used
        similar.append(_pick(hard_images[row], draw, any_other))
    all_rows = torch.cat([rows, torch.tensor(similar, dtype=rows.dtype)])
    texts = _negative_captions(pairs, all_rows, draws[1:].flatten())
    return all_rows, texts, sum(bool(hard_images[row]) for row in rows.tolist())


def _negative_captions(pairs: ImageCaptionPairs, rows: Tensor, draws: Tensor) -> list[str | None]:
    """Draw a hard negative for each row that has any, by numbers in [0, 1); None for the others."""
    negatives = pairs.negatives or []
    rows_and_draws = zip(rows.tolist(), draws.tolist(), strict=True)
    return [_pick(negatives[row], draw, None) for row, draw in rows_and_draws]


def _pick(choices: list[Any], draw: float, otherwise: Any) -> Any:
    return choices[int(draw * len(choices))] if choices else otherwise


def select_swaps(
    alignment: Alignment, swapped: Sequence[str], decode: Callable[[list[int]], str]
) -> Alignment:
    """Keep the swaps that `Experiment.swapped` selects; those left out can then be tested.

    Words such as ("left", "right") keep relations that contain one of them, as "to the left of".
    """
    if not swapped:
        return alignment
    if alignment.swaps is None:
        raise ConfigError(
            f"swapped is {', '.join(swapped)}: it needs a tagger that finds swaps, such as "
            "'dependency', and roles that are not shuffled."
        )
    # The fifth range of a swap is its relation; it is empty if two attributes are swapped.
    of_relation = alignment.swaps[..., 4, 1] > 0
    if tuple(swapped) == ("relations",):
        keep = of_relation
    elif tuple(swapped) == ("attributes",):
        keep = ~of_relation
    else:
        keep = torch.zeros_like(of_relation)
        # `swaps` (n, W, 5, 2) is padded with zeros, in which neither nouns nor phrases exist.
        all_tokens, exists = alignment.tokens.tolist(), alignment.swaps[..., :4, 1].any(-1)
        for row, number in exists.nonzero().tolist():
            *nouns, first_phrase, second_phrase, relation = (
                decode(all_tokens[row][slice(*bounds)]).strip()
                for bounds in alignment.swaps[row, number].tolist()
            )
            if tuple(swapped) == ("pairs",):
                # A swap whose nouns cannot be swapped alone has only phrases.
                parts = nouns if all(nouns) else (first_phrase, second_phrase)
                keep[row, number] = is_kept_pair(*parts)
            else:
                keep[row, number] = bool({*relation.split()} & {*swapped})
    # A swap of zeros counts as none.
    return replace(alignment, swaps=alignment.swaps * keep[..., None, None])


def is_kept_pair(first: str, second: str) -> bool:
    """Return whether training with `swapped=("pairs",)` swaps these words, half of all pairs."""
    # A checksum, since Python's `hash` of a text differs between processes. The words are sorted,
    # so that either order of a pair gives the same answer.
    return zlib.crc32(" ".join(sorted((first, second))).encode()) % 2 == 0


def placebo_roles(alignment: Alignment, kind: str, seed: int) -> Alignment:
    """Shuffle the roles of each caption among its words, as a control.

    "permuted" deals them to the words that have one, "random" to all words and punctuation marks;
    "parsed" changes nothing. A caption keeps the number of its words with each role.
    """
    if kind not in ROLE_ASSIGNMENTS:
        raise ConfigError(f"unknown roles {kind!r}: expected one of {', '.join(ROLE_ASSIGNMENTS)}.")
    if kind == "parsed":
        return alignment
    roles, words = alignment.roles, alignment.words
    # (n, T + 1): the role of each word, by its number; column 0 is for tokens of no word. The
    # maximum, since some tokens of a word with a role may have none.
    of_words = roles.new_zeros(len(words), words.shape[1] + 1)
    of_words = of_words.scatter_reduce(1, words, roles, "amax")
    dealt_in = of_words > 0
    if kind == "random":
        dealt_in = torch.zeros_like(dealt_in).scatter(1, words, words > 0)
    # Rows are drawn one after the other, so that the shuffle of a caption depends on its row number
    # and the context length, but not on the captions after it.
    source = torch.Generator().manual_seed(seed)
    draws = torch.rand(of_words.shape, generator=source, dtype=torch.float64)
    # Draws are below 1, so words that take no part come last. The roles are dealt in descending
    # order, zeros at the end: these words get none.
    order = draws.masked_fill(~dealt_in, 1).argsort(dim=1)
    dealt = torch.zeros_like(of_words).scatter(1, order, of_words.sort(descending=True).values)
    # Arguments and swaps belong to the words that had these roles.
    return replace(alignment, roles=dealt.gather(1, words), arguments=None, swaps=None)


@contextmanager
def prefetch(
    prepare: Callable[[int], Any], steps: range, workers: int, pin: bool = False
) -> Iterator[Iterator[Any]]:
    """Yield an iterator over the batches of steps, prepared ahead by workers if there are any.

    `pin` puts what workers prepare into pinned memory. A DataError of `prepare` is raised at the
    step that it concerns. The workers end with the `with` block.
    """
    if workers == 0:
        yield map(prepare, steps)
        return
    loader = DataLoader(
        _StepDataset(prepare),
        sampler=steps,
        # An item of the dataset is a whole batch, which must not be collated again.
        batch_size=None,
        num_workers=workers,
        prefetch_factor=PREFETCH_FACTOR,
        pin_memory=pin,
        worker_init_fn=_start_worker,
        # Otherwise the loader draws the workers' seed from the global generator.
        generator=torch.Generator(),
    )
    # The start of the resource tracker unblocks signals, so it has to come before they are blocked.
    resource_tracker.ensure_running()
    # Workers inherit the block, so that no signal ends them before `_start_worker` ignores it.
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        batches: Any = iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    try:
        yield map(_raise_data_error, batches)
    finally:
        # Both attributes are private; they exist in PyTorch 2.9 to 2.13.
        batches._shutdown_workers()
        # A worker that is still busy gets SIGTERM from the line above, and ignores it.
        for worker in batches._workers:
            worker.kill()


class _StepDataset(Dataset):
    """Dataset whose item number `step` is the batch of that step, or the DataError it raises."""

    def __init__(self, prepare: Callable[[int], Any]) -> None:
        self.prepare = prepare

    def __getitem__(self, step: int) -> Any:
        try:
            return self.prepare(step)
        except DataError as error:
            # Raised in a worker, it would reach the main process as the text of a traceback.
            return error


def _raise_data_error(batch: Any) -> Any:
    if isinstance(batch, DataError):
        raise batch
    return batch


def _start_worker(worker: int) -> None:
    # Ctrl-C reaches all processes of a terminal, but only the main process decides when to stop.
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # A main process that is killed cannot end its workers.
    end_with_parent()
