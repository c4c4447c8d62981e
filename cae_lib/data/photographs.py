"""Pictures of a large training set, decoded when they are needed, and cropped from the whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from torch import Tensor

from cae_lib.data.crops import boxes_of, crop_draws
from cae_lib.data.images import ImageStore, affine, central_square, normalise, opened
from cae_lib.errors import DataError

QUALITY = 95
STORE_LIMIT = 4 * 2**30
"""Bytes that a set's pictures may take in memory."""


class Photographs:
    """Pictures on disk: each batch is decoded, cropped and resized (bicubic) anew.

    Stands in for `ImageStore` where a set does not fit into memory or its pictures are not stored
    in the model's size. The random crops are torchvision's RandomResizedCrop of the whole
    photograph. Memory is that of the batches under way.

    Args:
        paths: picture files; row i is paths[i].
        size: S, in pixels.
        mean: per channel, of pixels in [0, 1].
        std: per channel, of pixels in [0, 1].
        cache: folder for copies whose shorter side has `cache_side` pixels. They are made on first
            use and then read in place of the originals, which takes less time; the crops come
            from pictures resized twice (ours).
        cache_side: in pixels.

    Raises:
        DataError: files are missing; names the first one, its row, and how many they are.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        size: int,
        mean: Sequence[float] = OPENAI_DATASET_MEAN,
        std: Sequence[float] = OPENAI_DATASET_STD,
        cache: str | Path | None = None,
        cache_side: int = 256,
    ) -> None:
        self.paths = [Path(path) for path in paths]
        self.size = size
        self.affine = affine(mean, std)
        self._cache = Path(cache) if cache else None
        self._cache_side = cache_side
        lost = [row for row, path in enumerate(self.paths) if not path.is_file()]
        if lost:
            raise DataError(
                f"{self.paths[lost[0]]} (row {lost[0]}): no such picture, and {len(lost) - 1} more "
                f"of {len(self.paths)} are missing. Complete the data set."
            )

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.paths)

    def batch(
        self,
        index: Tensor,
        generator: torch.Generator | None = None,
        part: Tensor | None = None,
    ) -> Tensor:
        """Normalised pictures of the rows `index` (B,): float32 (B, 3, S, S); see `crops`."""
        return normalise(self.crops(index, generator, part), *self.affine)

    def crops(
        self,
        index: Tensor,
        generator: torch.Generator | None = None,
        part: Tensor | None = None,
    ) -> Tensor:
        """Pictures of the rows `index` (B,) before they are normalised: uint8 (B, 3, S, S).

        With a generator each one is a random resized crop, else the central square. With `part`
        only those places of `index` are returned; their crops are those of the whole.

        Raises:
            DataError: a file is broken or truncated; names the file and its row.
        """
        draws = None if generator is None else crop_draws(len(index), generator)
        places = range(len(index)) if part is None else part.tolist()
        pixels = torch.empty(len(places), 3, self.size, self.size, dtype=torch.uint8)
        for row, place in enumerate(places):
            draw = None if draws is None else draws[:, place : place + 1]
            array = self._picture(int(index[place]), draw)
            pixels[row] = torch.from_numpy(array).permute(2, 0, 1)
        return pixels

    def _picture(self, row: int, draw: Tensor | None) -> np.ndarray:
        """One crop, or the central square, (S, S, 3) uint8."""
        with opened(self._source(row), row, 2 * self.size) as image:
            if draw is None:
                return np.array(central_square(image, self.size))
            top, left, height, width = boxes_of(draw, image.height, image.width)[0].tolist()
            crop = image.crop((left, top, left + width, top + height))
            return np.array(crop.resize((self.size, self.size), Image.Resampling.BICUBIC))

    def _source(self, row: int) -> Path:
        """The file to read: the picture itself or, with a cache, its smaller copy."""
        path = self.paths[row]
        if self._cache is None:
            return path
        known = path.stat()
        identity = f"{path.resolve()} {known.st_size} {known.st_mtime_ns} {self._cache_side}"
        name = hashlib.sha256(identity.encode()).hexdigest()
        copy = self._cache / name[:2] / f"{name[2:34]}.jpg"
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            partial = copy.with_name(f"{copy.name}.{os.getpid()}")
            with opened(path, row, self._cache_side) as image:
                factor = min(1.0, self._cache_side / min(image.size))
                size = tuple(max(1, round(side * factor)) for side in image.size)
                small = image.resize(size, Image.Resampling.BICUBIC)
            small.save(partial, "JPEG", quality=QUALITY, subsampling=0)
            os.replace(partial, copy)
        return copy


def picture_source(
    paths: Sequence[str | Path], size: int, cache: str | Path | None = None
) -> ImageStore | Photographs:
    """The pictures of a training set: in memory if that changes nothing and they fit, else lazily.

    A set is kept in memory if its first picture is stored in the model's size, so that a crop of
    the stored picture is a crop of the whole, and if all of them take at most `STORE_LIMIT`.

    Args:
        paths: picture files.
        size: side of the model's input in pixels.
        cache: see `Photographs`.

    Raises:
        DataError: pictures are missing or broken.
    """
    fits = len(paths) * 3 * size * size <= STORE_LIMIT
    if fits and len(paths):
        with opened(Path(paths[0]), 0, size) as first:
            fits = first.size == (size, size)
    return ImageStore(paths, size) if fits else Photographs(paths, size, cache=cache)
