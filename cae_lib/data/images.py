"""Read image files, and draw batches of square crops from the images of a training set.

The images of a training set are either all held in memory or decoded anew for each batch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.functional import resized_crop

from cae_lib.errors import DataError

CROP_SCALE = (0.9, 1.0)
"""Smallest and largest share of an image's area that a random crop takes, as in the paper."""

CROP_RATIO = (3 / 4, 4 / 3)
"""Smallest and largest ratio of width to height of a random crop: torchvision's default."""

MAX_BYTES_IN_MEMORY = 4 * 2**30
"""Largest size in bytes of the decoded images of a training set that are held in memory."""


class TrainingImages:
    """Images of a training set, from which batches of square crops are drawn.

    This is an abstract base class. `ImagesInMemory` holds all images in memory, `ImagesOnDisk`
    decodes the files of each batch.

    Args:
        paths: Image files; row i is the image of `paths[i]`.
        size: Side of the square images that are returned, in pixels.

    Attributes:
        paths: The image files.
        size: Side of the square images that are returned, in pixels.
        normalization: Scale and shift, `(3, 1, 1)` each, that normalise pixels from 0 to 255 by the
            mean and standard deviation of OpenAI's CLIP; see `normalize_pixels`.

    Raises:
        DataError: If files are missing.
    """

    def __init__(self, paths: Sequence[str | Path], size: int) -> None:
        self.paths = [Path(path) for path in paths]
        self.size = size
        missing = [row for row, path in enumerate(self.paths) if not path.is_file()]
        if missing:
            first = missing[0]
            raise DataError(
                f"{self.paths[first]} (row {first}): no such picture, and {len(missing) - 1} more "
                f"of {len(self.paths)} are missing. Complete the data set."
            )
        means, spreads = (
            torch.tensor(values).view(3, 1, 1)
            for values in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
        )
        self.normalization = 1 / (255 * spreads), -means / spreads

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def batch(self, index: Tensor) -> Tensor:
        """Return the central squares of images, normalised as CLIP's image encoder expects them.

        Args:
            index: Rows of the images, `(B,)`.

        Returns:
            Pixels, float32 `(B, 3, size, size)`.

        Raises:
            DataError: If a file is missing, broken or truncated; the message names the file and its
                row. `ImagesInMemory` reads no files here.
        """
        return normalize_pixels(self.crops(index), *self.normalization)

    def crops(
        self, index: Tensor, generator: torch.Generator | None = None, subset: Tensor | None = None
    ) -> Tensor:
        """Return random crops or the central squares of images, before normalisation.

        Args:
            index: Rows of the images of a batch, `(B,)`.
            generator: Source of the random resized crops, from which a seed is drawn for each of
                the B images, whatever `subset` is; None returns the central squares.
            subset: Positions in `index` of the images to return, `(M,)`. Their crops are the same
                as if the whole batch were returned. None returns all B images.

        Returns:
            Pixels from 0 to 255, uint8 `(M, 3, size, size)`, or `(B, 3, size, size)` without
            `subset`.

        Raises:
            DataError: As for `batch`.
        """
        seeds = None if generator is None else draw_crop_seeds(len(index), generator)
        positions = range(len(index)) if subset is None else subset.tolist()
        pixels = torch.empty(len(positions), 3, self.size, self.size, dtype=torch.uint8)
        for row, position in enumerate(positions):
            seed = None if seeds is None else seeds[position]
            pixels[row] = self.pixels_of(int(index[position]), seed)
        return pixels

    def pixels_of(self, row: int, seed: Tensor | None) -> Tensor:
        """Return one image as a square, with pixels from 0 to 255.

        Args:
            row: Row of the image.
            seed: Seed of a random resized crop, an integer `()`; None returns the central square.

        Returns:
            Pixels, uint8 `(3, size, size)`.

        Raises:
            DataError: As for `batch`.
        """
        raise NotImplementedError


class ImagesInMemory(TrainingImages):
    """All images of a dataset in one tensor in memory, decoded once by a thread pool.

    The tensor `pixels` is uint8 `(number of images, 3, size, size)`. An image that does not have
    `size` x `size` pixels is resized (bicubic) to `size` pixels on its shorter side and cut to its
    central square. CLIP's preprocessing for evaluation does the same; pixels may differ by rounding
    and because a large JPEG is decoded at a smaller size. Random crops are torchvision's
    RandomResizedCrop of that square.

    Args:
        paths: Image files; row i is the image of `paths[i]`.
        size: Side of the square images, in pixels.

    Raises:
        DataError: If a file is missing, broken or truncated.
    """

    def __init__(self, paths: Sequence[str | Path], size: int) -> None:
        super().__init__(paths, size)
        self.pixels = torch.empty(len(self), 3, size, size, dtype=torch.uint8)

        def decode(row: int) -> None:
            image = read_image(self.paths[row], row, 2 * size)
            self.pixels[row] = _to_uint8_tensor(_resize_and_center_crop(image, size))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(decode, range(len(self))))

    def pixels_of(self, row: int, seed: Tensor | None) -> Tensor:
        """Return the central square of an image, or the random crop that a seed selects.

        The central square is a view of the stored tensor, so it must not be changed in place.
        """
        return self.pixels[row] if seed is None else _crop(self.pixels[row], seed, self.size)


class ImagesOnDisk(TrainingImages):
    """Images that are decoded, cropped and resized (bicubic) anew for each batch.

    Random crops are torchvision's RandomResizedCrop of the whole image. A large JPEG is decoded at
    a smaller size, with at least 2 * `size` pixels on each side.

    Args:
        paths: Image files; row i is the image of `paths[i]`.
        size: Side of the square images that are returned, in pixels.

    Raises:
        DataError: If a file is missing.
    """

    def pixels_of(self, row: int, seed: Tensor | None) -> Tensor:
        """Return the central square of an image, or the random crop that a seed selects."""
        image = read_image(self.paths[row], row, 2 * self.size)
        return _to_uint8_tensor(
            _resize_and_center_crop(image, self.size)
            if seed is None
            else _crop(image, seed, self.size)
        )


def open_images(paths: Sequence[str | Path], size: int) -> ImagesInMemory | ImagesOnDisk:
    """Open the images of a training set, in memory if they fit and already have the right size.

    Images are held in memory if all of them, with `size` x `size` pixels each, take at most
    `MAX_BYTES_IN_MEMORY` bytes and the first image, if there is any, has this size. Otherwise they
    are decoded from disk for each batch. Images of another size are not held in memory because
    `ImagesInMemory` would cut them to their central square before a crop is drawn.

    Args:
        paths: Image files; row i is the image of `paths[i]`.
        size: Side of the square images that the model takes, in pixels.

    Raises:
        DataError: If a file is missing, broken or truncated. For `ImagesOnDisk`, at most the first
            file is decoded here.
    """
    fits = len(paths) * 3 * size * size <= MAX_BYTES_IN_MEMORY
    if fits and len(paths):
        fits = read_image(paths[0], 0).size == (size, size)
    return ImagesInMemory(paths, size) if fits else ImagesOnDisk(paths, size)


def normalize_pixels(pixels: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return `pixels * scale + shift` as a new float32 tensor.

    Args:
        pixels: Pixels from 0 to 255, `(..., 3, height, width)`.
        scale: Factor of each channel, `(3, 1, 1)`: 1 / (255 * standard deviation).
        shift: Summand of each channel, `(3, 1, 1)`: -mean / standard deviation.
    """
    return pixels.to(torch.float32, copy=True).mul_(scale).add_(shift)


def read_image(
    path: str | Path, row: int | None = None, min_side: int | None = None
) -> Image.Image:
    """Read an image file as RGB, without applying its EXIF orientation.

    Without `min_side`, the pixels are those of `Image.open(path).convert("RGB")`. The loaders of
    the public benchmarks, CLIP_benchmark and open_clip read images in this way, so published
    numbers are measured on these pixels.

    Args:
        path: The image file.
        row: Number of the image in its dataset, for error messages; None if it has none.
        min_side: If given, a large JPEG is decoded at a smaller size, which is faster. Its sides
            then have at least this many pixels.

    Raises:
        DataError: If the file is missing, broken, truncated or no image; the message names the
            file.
    """
    name = path if row is None else f"{path} (row {row})"
    try:
        with Image.open(path) as image:
            if min_side is not None:
                image.draft("RGB", (min_side, min_side))
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise DataError(
            f"{name}: no such image file. Check the path, or fetch the images of this data set."
        ) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{name}: cannot be decoded ({error}); an image was expected. Fetch this file again."
        ) from error


def _resize_and_center_crop(image: Image.Image, size: int) -> Image.Image:
    """Resize an image (bicubic) to `size` pixels on its shorter side and crop its central square.

    An image of `size` x `size` pixels is returned as it is.
    """
    if image.size == (size, size):
        return image
    factor = size / min(image.size)
    width, height = (max(size, round(side * factor)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + size, top + size))


def _to_uint8_tensor(image: Image.Image) -> Tensor:
    """Return an RGB image as a uint8 tensor `(3, height, width)` with values from 0 to 255."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def draw_crop_seeds(n_crops: int, generator: torch.Generator) -> Tensor:
    """Draw a seed for the random crop of each of `n_crops` images, int64 `(n_crops,)`."""
    return torch.randint(2**62, (n_crops,), generator=generator)


def _crop(image: Any, seed: Tensor, size: int) -> Any:
    """Cut the RandomResizedCrop that a seed selects, and resize it to `size` x `size` pixels.

    The image is a PIL image or a tensor, and the result is of the same kind.
    """
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(int(seed))  # `manual_seed` would seed GPUs as well
        box = RandomResizedCrop.get_params(image, CROP_SCALE, CROP_RATIO)
    return resized_crop(image, *box, [size, size], InterpolationMode.BICUBIC)
