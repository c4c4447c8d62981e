"""Read image files, and hold the images of a training set.

Images of a training set are kept in memory or decoded when they are needed. Training takes random
crops of them.
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

SCALE = (0.9, 1.0)
"""Share of an image's area that a crop takes: the paper's; the rest is torchvision's default."""

RATIO = (3 / 4, 4 / 3)
STORE_LIMIT = 4 * 2**30
"""Bytes that a dataset's images may take in memory."""


class TrainingImages:
    """Images of a training set, from which batches of square crops are drawn.

    This is the interface that training uses. A subclass decides where the pixels come from:
    `ImageStore` holds all images in memory, `ImagesOnDisk` decodes the files of each batch.

    Args:
        paths: Image files. Row i, as in an `index`, is the image of `paths[i]`.
        size: Side S of the square images that are returned, in pixels.

    Raises:
        DataError: If files are missing; with an `ImageStore` also if one is broken or truncated.
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
        self.affine = 1 / (255 * spreads), -means / spreads

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def batch(self, index: Tensor) -> Tensor:
        """Return the central squares of images, normalised: float32 (B, 3, S, S)."""
        return normalize_pixels(self.crops(index), *self.affine)

    def crops(
        self, index: Tensor, generator: torch.Generator | None = None, subset: Tensor | None = None
    ) -> Tensor:
        """Return images as uint8 (B, 3, S, S), 0 to 255.

        Args:
            index: Rows, (B,).
            generator: If given, each image is a random resized crop, else the central square.
            subset: Positions in `index`; only these are returned, with their crops in the batch.

        Raises:
            DataError: For a broken or truncated file; the message names it and its row.
        """
        seeds = None if generator is None else crop_seeds(len(index), generator)
        positions = range(len(index)) if subset is None else subset.tolist()
        pixels = torch.empty(len(positions), 3, self.size, self.size, dtype=torch.uint8)
        for row, position in enumerate(positions):
            seed = None if seeds is None else seeds[position]
            pixels[row] = self.pixels_of(int(index[position]), seed)
        return pixels

    def pixels_of(self, row: int, seed: Tensor | None) -> Tensor:
        """Return an image, or its crop by a seed: (3, S, S) uint8."""
        raise NotImplementedError


class ImageStore(TrainingImages):
    """All images of a dataset as one uint8 tensor (N, 3, S, S), decoded once by a thread pool.

    An image of another size is resized (bicubic) to S pixels on its shorter side and cut to its
    central square, as CLIP does for evaluation but for rounding. Random crops are torchvision's, of
    that square.
    """

    def __init__(self, paths: Sequence[str | Path], size: int) -> None:
        super().__init__(paths, size)
        self.pixels = torch.empty(len(self), 3, size, size, dtype=torch.uint8)

        def decode(row: int) -> None:
            image = read_image(self.paths[row], row, 2 * size)
            self.pixels[row] = as_tensor(central_square(image, size))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(decode, range(len(self))))

    def pixels_of(self, row: int, seed: Tensor | None) -> Tensor:
        """Return an image, or its crop by a seed: (3, S, S) uint8."""
        return self.pixels[row] if seed is None else _crop(self.pixels[row], seed, self.size)


class ImagesOnDisk(TrainingImages):
    """Images that are decoded, cropped and resized (bicubic) for each batch.

    It replaces `ImageStore` where a dataset does not fit into memory or its images are not stored
    in the model's size. Random crops are torchvision's RandomResizedCrop of the whole image.
    """

    def pixels_of(self, row: int, seed: Tensor | None) -> Tensor:
        """Return an image, or its crop by a seed: (3, S, S) uint8."""
        image = read_image(self.paths[row], row, 2 * self.size)
        return as_tensor(
            central_square(image, self.size) if seed is None else _crop(image, seed, self.size)
        )


def open_images(paths: Sequence[str | Path], size: int) -> ImageStore | ImagesOnDisk:
    """Open the images of a training set, in memory if they fit and their crops stay the same.

    Crops stay the same if images are stored in the model's size `size`, because then nothing is cut
    off before a crop is drawn; the first image decides. Images fit if all of them take at most
    `STORE_LIMIT` bytes.

    Raises:
        DataError: If images are missing or broken.
    """
    fits = len(paths) * 3 * size * size <= STORE_LIMIT
    if fits and len(paths):
        fits = read_image(paths[0], 0).size == (size, size)
    return ImageStore(paths, size) if fits else ImagesOnDisk(paths, size)


def normalize_pixels(pixels: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return pixels from 0 to 255, scaled and shifted, as float32."""
    return pixels.to(torch.float32, copy=True).mul_(scale).add_(shift)


def read_image(
    path: str | Path, row: int | None = None, min_side: int | None = None
) -> Image.Image:
    """Read an image file as RGB, with its pixels as the file stores them.

    The EXIF orientation is not applied. The loaders of the public benchmarks, CLIP_benchmark and
    open_clip read with `Image.open(path).convert("RGB")`, which ignores it, and published numbers
    are measured on those pixels. Evaluation, training, `cae_lib.attribute`, `cae attribute` and the
    explorer all use this function, so they see the same pixels of a file, which are also those of
    an image that a user opens with Pillow. With `min_side`, as in training, a large JPEG is decoded
    at a smaller size.

    Args:
        path: The image file.
        row: Number of the image in its dataset, which an error names.
        min_side: If given, a JPEG may be decoded at a smaller size whose sides have at least this
            many pixels.

    Raises:
        DataError: If the file is missing, broken, truncated or no image; the message names it.
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


def central_square(image: Image.Image, size: int) -> Image.Image:
    """Cut an image to its central square, and resize it (bicubic) to a side of `size` pixels."""
    if image.size == (size, size):
        return image
    factor = size / min(image.size)
    width, height = (max(size, round(side * factor)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + size, top + size))


def as_tensor(image: Image.Image) -> Tensor:
    """Return an image as (3, height, width) uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def crop_seeds(count: int, generator: torch.Generator) -> Tensor:
    """Draw a seed for the crop of each of `count` images."""
    return torch.randint(2**62, (count,), generator=generator)


def _crop(image: Any, seed: Tensor, size: int) -> Any:
    """Cut torchvision's random crop of an image (PIL, or a tensor), and resize it to a square."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(int(seed))
        box = RandomResizedCrop.get_params(image, SCALE, RATIO)
    return resized_crop(image, *box, [size, size], InterpolationMode.BICUBIC)
