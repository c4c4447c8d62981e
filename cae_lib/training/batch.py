"""Build the batch of each training step; every random draw is a function of seed and step."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from cae_lib.attribution.binding import swapped_captions
from cae_lib.config import Experiment
from cae_lib.data.captions import ImageCaptionPairs
from cae_lib.data.images import normalize_pixels
from cae_lib.errors import ConfigError, DataError
from cae_lib.training.distributed import Ranks
from cae_lib.words.alignment import Alignment

ROLE_ASSIGNMENTS = ("parsed", "permuted", "random")
"""Values of `Experiment.roles`; see `placebo_roles`."""


@dataclass(frozen=True)
class Batch:
    """Input of one training step, or the share of it that one process has.

    Shapes: M image-caption pairs of this process, T tokens of a caption, S x S pixels of an image,
    W swaps of a caption. M is `batch_size` divided by the number of processes, and twice that
    number with NegCLIP's negatives.

    Attributes:
        rows: Row numbers `(B,)` of the dataset, B = `batch_size`, over all processes and without
            the rows that NegCLIP's negatives add.
        image_inputs: What the image encoder takes. Images are `(M, 3, S, S)`: uint8 from 0 to 255
            if `normalization` is set, otherwise normalised float32. If images are replaced by
            `PrecomputedFeatures`, these features `(M, ...)`.
        tokens: Token ids of the captions `(M, T)`.
        roles: Role of each token's word `(M, T)`: 0 other, 1 object, 2 attribute, 3 relation.
        words: Number of each token's word `(M, T)`, 0 for none.
        arguments: Numbers of the words that each token's word relates or describes `(M, T, 2)`; see
            `Alignment`.
        swaps: Swaps of each caption `(M, W, 5, 2)`; see `Alignment`.
        negatives: Token ids of K <= M hard negative captions `(K, T)`; None if the run has none.
        caption_of_negative: Index of each negative's caption among the M captions `(K,)`.
        negative_counts: K of each process.
        n_similar: Number of `rows` for which NegCLIP's file lists similar images.
        parsed_roles: For `match_gradient`, the roles `(M, T)` before they were shuffled; otherwise
            None.
        normalization: Scale and shift, `(3, 1, 1)` each, that normalise `image_inputs`; None if
            these need no normalisation.
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
        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in self._tensors().items()
            if name != "rows"
        }
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
    """Where batches take their images from.

    It is implemented by `TrainingImages` and by `PrecomputedFeatures`.
    """

    @property
    def normalization(self) -> tuple[Tensor, Tensor] | None:
        """Scale and shift, `(3, 1, 1)` each, for `normalize_pixels`; None for features."""
        ...

    def __len__(self) -> int: ...

    def crops(
        self, index: Tensor, generator: torch.Generator | None = None, subset: Tensor | None = None
    ) -> Tensor:
        """Return images by their numbers, as square crops or as features.

        Args:
            index: Numbers of the images `(n,)`.
            generator: Source of random crops; None for the central square.
            subset: Positions in `index` `(m,)`; only the images there are returned. None returns
                all, so that m = n.

        Returns:
            Crops of S x S pixels, uint8 `(m, 3, S, S)`, or features `(m, ...)`.
        """
        ...


class Batches:
    """The batches of a run; each is a function of (seed, step) alone.

    Processes that train together draw the same batch, and each keeps its share of the rows.

    Args:
        experiment: Settings of the run.
        pairs: Captions and their images.
        alignment: Tokens and roles of `pairs.captions`.
        images: The images of `pairs.image_paths`, in the same order.
        tokenizer: Turns n texts into token ids `(n, T)`. With `foils="exchanged"`, "a" and "an" are
            adapted after a swap only if the tokenizer's attribute `vocab_size` is the size of
            CLIP's vocabulary.
        ranks: The processes that train together; None for a single one.
        parsed_roles: For `match_gradient`, the roles before they were shuffled, in the shape of
            `alignment.roles`.

    Raises:
        DataError: If captions and alignment or paths and images differ in length, or if the
            settings need hard negatives or similar images that `pairs` does not have.
        ConfigError: If the batch size is not between 1 and the number of captions or not a multiple
            of the number of processes.
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
        if size % self.ranks.size:
            raise ConfigError(
                f"batch_size is {size}, but {self.ranks.size} processes train together; choose a "
                f"multiple of {self.ranks.size}."
            )

    def row_numbers(self, step: int) -> Tensor:
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
        """Return this process's share of the batch of optimiser step `step`, counted from 0.

        Its tensors are on the CPU, and its images are not normalised yet; see `Batch.prepare`.

        Raises:
            DataError: If an image file of the batch is broken or truncated.
        """
        settings, rows = self.experiment, self.row_numbers(step)
        source = self._random(RandomStream.NEGATIVE, step)
        all_rows, texts, n_similar = rows, None, 0
        if settings.negatives:
            all_rows, texts, n_similar = choose_negatives(self.pairs, rows, source)
        elif settings.foils == "given":
            draws = torch.rand(len(rows), generator=source, dtype=torch.float64)
            texts = _negative_captions(self.pairs, rows, draws)
        shares = _shares(len(all_rows), settings.batch_size, self.ranks.size)
        share = shares[self.ranks.rank]
        crops = self._random(RandomStream.CROP, step) if settings.augment else None
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
            tokens = self.tokenizer(negatives) if negatives else self.alignment.tokens[:0]
        matches = [(positions[:, None] == caption).nonzero() for positions in shares]
        caption_of_negative, numbers = matches[self.ranks.rank].unbind(1)
        return replace(
            batch,
            negatives=tokens[numbers],
            caption_of_negative=caption_of_negative,
            negative_counts=tuple(map(len, matches)),
        )

    def _swapped_captions(self, rows: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return one random swap of each caption that has any.

        Args:
            rows: Row numbers of the batch.
            source: Source of random numbers.

        Returns:
            For each of K swaps, the position of its caption in the batch `(K,)`, and the tokens of
            the swapped caption `(K, T)`.
        """
        captions = self.alignment.take(rows)
        caption, _, tokens = swapped_captions(
            captions.tokens,
            captions.words,
            captions.roles,
            captions.arguments,
            captions.swaps,
            swap_kind=dict(self.experiment.attribution).get("swap", "noun"),
            samples=1,
            vocabulary_size=getattr(self.tokenizer, "vocab_size", None),
            generator=source,
        )
        return caption, tokens

    def _random(self, stream: RandomStream, step: int) -> torch.Generator:
        return seeded_generator(self.experiment.seed, stream, step)


class RandomStream(IntEnum):
    """Independent streams of random numbers of one run, by what the numbers are used for.

    Attributes:
        ORDER: Order of the rows in each epoch.
        CROP: Random crops of images.
        MODEL: Random numbers within the model, such as dropout, and of the attribution method.
        NEGATIVE: Hard negatives and similar images.
    """

    ORDER, CROP, MODEL, NEGATIVE = range(4)


def seeded_generator(seed: int, stream: RandomStream, step_or_epoch: int) -> torch.Generator:
    """Return a CPU random number generator whose seed is a hash of the three arguments.

    A batch is therefore the same whether a run is resumed, is split over processes or draws its
    batches in a worker. Different arguments give unrelated random numbers.

    Args:
        seed: Seed of the run.
        stream: What the numbers are used for.
        step_or_epoch: Step of the run, from 0; for `RandomStream.ORDER` the epoch.
    """
    state = np.random.SeedSequence([seed, int(stream), step_or_epoch]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


@lru_cache(maxsize=1)
def _permutation(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=seeded_generator(seed, RandomStream.ORDER, epoch))


def _shares(count: int, size: int, processes: int) -> Tensor:
    """Split the positions in a batch evenly between processes.

    Args:
        count: Number of rows of the batch, one or two blocks of `size`. With NegCLIP's negatives
            the second block holds a similar image for each row of the first.
        size: Number of rows of a block, divisible by the number of processes.
        processes: Number of processes.

    Returns:
        Positions in the batch `(processes, count / processes)`. A process has the same places in
        both blocks.
    """
    blocks = torch.arange(count).view(count // size, processes, -1)
    return blocks.transpose(0, 1).flatten(1)


def choose_negatives(
    pairs: ImageCaptionPairs, rows: Tensor, generator: torch.Generator
) -> tuple[Tensor, list[str | None], int]:
    """Draw NegCLIP's negatives: similar images, and hard negative captions.

    Each of the B rows gets a second row: one with a similar image, or a random other row if no
    similar image is known. Each of the 2B rows gets one of its hard negative captions, if it has
    any.

    Args:
        pairs: Captions and images, with hard negatives and similar images.
        rows: Row numbers `(B,)`.
        generator: Source of random numbers.

    Returns:
        A tuple of three: the row numbers `(2B,)`, first `rows` and then the second row of each; the
        hard negative captions of these 2B rows, None for a row that has none; and the number of
        `rows` that have similar images.
    """
    draws = torch.rand(3, len(rows), generator=generator, dtype=torch.float64)
    hard_images, similar = pairs.hard_images or [], []
    for row, draw in zip(rows.tolist(), draws[0].tolist(), strict=True):
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
    """Leave out swaps of captions, so that swaps of another kind can be tested.

    Args:
        alignment: Tokens and swaps of captions.
        swapped: The swaps to keep: ("relations",) those of the arguments of relations;
            ("attributes",) those of two attributes; ("pairs",) those of the pairs of words that
            `is_kept_pair` chooses. Other words keep the swaps of relations that contain one of
            them, such as ("left", "right") those of "to the left of". Empty for all.
        decode: Function that returns the text of token ids.

    Raises:
        ConfigError: If the tagger has found no swaps.
    """
    if not swapped:
        return alignment
    if alignment.swaps is None:
        raise ConfigError(
            f"swapped is {', '.join(swapped)}: it needs a tagger that finds swaps, such as "
            "'dependency', and roles that are not shuffled."
        )
    of_relation = alignment.swaps[..., 4, 1] > 0
    if tuple(swapped) == ("relations",):
        keep = of_relation
    elif tuple(swapped) == ("attributes",):
        keep = ~of_relation
    else:
        keep = torch.zeros_like(of_relation)
        all_tokens, exists = alignment.tokens.tolist(), alignment.swaps[..., :4, 1].any(-1)
        for row, number in exists.nonzero().tolist():
            *nouns, first_phrase, second_phrase, relation = (
                decode(all_tokens[row][slice(*bounds)]).strip()
                for bounds in alignment.swaps[row, number].tolist()
            )
            if tuple(swapped) == ("pairs",):
                parts = nouns if all(nouns) else (first_phrase, second_phrase)
                keep[row, number] = is_kept_pair(*parts)
            else:
                keep[row, number] = bool({*relation.split()} & {*swapped})
    return replace(alignment, swaps=alignment.swaps * keep[..., None, None])


def is_kept_pair(first: str, second: str) -> bool:
    """Return whether training with `swapped=("pairs",)` swaps these two words: half of all pairs.

    A checksum of the two words, in alphabetical order, decides.
    """
    return zlib.crc32(" ".join(sorted((first, second))).encode()) % 2 == 0


def placebo_roles(alignment: Alignment, kind: str, seed: int) -> Alignment:
    """Shuffle the roles of each caption among its words, as a control.

    A caption with shuffled roles keeps the number of its words with each role, but loses its
    arguments and swaps. The shuffle of a caption depends only on `seed`, the caption's row number
    and the context length.

    Args:
        alignment: Tokens and roles of captions.
        kind: "permuted" shuffles the roles among the words that have one; "random" shuffles them
            among all words and punctuation marks; "parsed" returns the alignment unchanged.
        seed: Seed of the shuffle.

    Raises:
        ConfigError: If the kind is unknown.
    """
    if kind not in ROLE_ASSIGNMENTS:
        raise ConfigError(f"unknown roles {kind!r}: expected one of {', '.join(ROLE_ASSIGNMENTS)}.")
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
