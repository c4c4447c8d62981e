"""Read image files, and draw batches of square crops from the images of a training set."""

from __future__ import annotations

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
from cae_lib.runtime import available_cores

CROP_SCALE = (0.9, 1.0)  # share of an image's area that a random crop takes, as in the paper
CROP_RATIO = (3 / 4, 4 / 3)  # width to height of a random crop: torchvision's default
MAX_BYTES_IN_MEMORY = 4 * 2**30  # of the decoded images of a training set


class TrainingImages:
    """Images of a training set, from which batches of `size` x `size` pixels are drawn.

    This is an abstract base class. `ImagesInMemory` holds all images in memory, `ImagesOnDisk`
    decodes the files of each batch. Row i is the image of `paths[i]`.
    """

    def __init__(self, paths: Sequence[str | Path], size: int) -> None:
        self.paths = [Path(path) for path in paths]
        self.size = size
        # Before a training starts, not in the step that would draw the file.
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
        # Scale and shift (3, 1, 1) of pixels from 0 to 255, by the statistics of OpenAI's CLIP.
        self.normalization = 1 / (255 * spreads), -means / spreads

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, index: Tensor) -> Tensor:
        """Return the normalised central squares of rows `(B,)`, float32 `(B, 3, size, size)`."""
        return normalize_pixels(self.crops(index), *self.normalization)

    def crops(
        self, index: Tensor, generator: torch.Generator | None = None, subset: Tensor | None = None
    ) -> Tensor:
        """Return pixels from 0 to 255 of rows `(B,)`, uint8 `(B, 3, size, size)`.

        A `generator` draws random resized crops; without it, the central squares are returned.
        With `subset`, positions `(M,)` in `index`, only these M images are returned.
        """
        # A seed for each image of the batch, whatever `subset` is: a process that decodes its share
        # of the batch gets the crops that a single process would draw.
        seeds = None if generator is None else draw_crop_seeds(len(index), generator)
        positions = range(len(index)) if subset is None else subset.tolist()
        pixels = torch.empty(len(positions), 3, self.size, self.size, dtype=torch.uint8)
        for row, position in enumerate(positions):
            seed = None if seeds is None else seeds[position]
            pixels[row] = self.pixels_of(int(index[position]), seed)
        return pixels

    def pixels_of(self, row: int, seed: Tensor | None) -> Tensor:
        """Return an image, uint8 `(3, size, size)`: the crop of a seed `()`, or the central square.

        A subclass implements this, and raises a DataError that names the file if it is broken.
        """
        raise NotImplementedError


class ImagesInMemory(TrainingImages):
    """All images of a dataset in memory, each as its central square, decoded once by threads.

    The squares are those of CLIP's preprocessing for evaluation, up to rounding and the size at
    which a large JPEG is decoded. Random crops are torchvision's RandomResizedCrop of the square.
    """

    def __init__(self, paths: Sequence[str | Path], size: int) -> None:
        super().__init__(paths, size)
        # (images, 3, size, size)
        self.pixels = torch.empty(len(self), 3, size, size, dtype=torch.uint8)

        # Each thread writes rows of its own, so no lock is needed.
        def decode(row: int) -> None:
            image = read_image(self.paths[row], row, 2 * size)
            self.pixels[row] = _to_uint8_tensor(_resize_and_center_crop(image, size))

        # Threads run in parallel, because Pillow decodes and resizes without Python's global lock.
        with ThreadPoolExecutor(available_cores()) as pool:
            # `list` raises the error of a broken file, which `map` alone would not.
            list(pool.map(decode, range(len(self))))

    def pixels_of(self, row: int, seed: Tensor | None) -> Tensor:
        """Return the central square, a view that must not be changed, or the crop of a seed."""
        return self.pixels[row] if seed is None else _crop(self.pixels[row], seed, self.size)


class ImagesOnDisk(TrainingImages):
    """Images that are decoded, cropped and resized (bicubic) anew for each batch.

    Random crops are torchvision's RandomResizedCrop of the whole image.
    """

    def pixels_of(self, row: int, seed: Tensor | None) -> Tensor:
        """Return the central square of an image, or the random crop that a seed selects."""
        # At twice the size, a large JPEG is decoded faster, and the resize still reduces it.
        image = read_image(self.paths[row], row, 2 * self.size)
        return _to_uint8_tensor(
            _resize_and_center_crop(image, self.size)
            if seed is None
            else _crop(image, seed, self.size)
        )


def open_images(paths: Sequence[str | Path], size: int) -> ImagesInMemory | ImagesOnDisk:
    """Open the images of a training set, in memory if they fit and already have the right size."""
    fits = len(paths) * 3 * size * size <= MAX_BYTES_IN_MEMORY
    # `ImagesInMemory` would cut images of another size to their central square before it draws a
    # crop. The first image stands for all.
    if fits and len(paths):
        fits = read_image(paths[0], 0).size == (size, size)
    return ImagesInMemory(paths, size) if fits else ImagesOnDisk(paths, size)


def normalize_pixels(pixels: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return `pixels * scale + shift` as a new float32 tensor; see `TrainingImages.normalization`.

    Pixels are `(..., 3, height, width)`, scale and shift `(3, 1, 1)`.
    """
    # `copy`, because the operations in place must not change float32 pixels of the caller.
    return pixels.to(torch.float32, copy=True).mul_(scale).add_(shift)


def read_image(
    path: str | Path, row: int | None = None, min_side: int | None = None
) -> Image.Image:
    """Read an image file as RGB; `row` is its number in a dataset, for error messages.

    With `min_side`, a large JPEG is decoded faster, at a smaller size of at least this many pixels.
    """
    name = path if row is None else f"{path} (row {row})"
    try:
        with Image.open(path) as image:
            if min_side is not None:
                image.draft("RGB", (min_side, min_side))
            # Without applying the EXIF orientation: the loaders of the public benchmarks,
            # CLIP_benchmark and open_clip do not, so published numbers are measured on such pixels.
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise DataError(
            f"{name}: no such image file. Check the path, or fetch the images of this data set."
        ) from error
    # Pillow raises a SyntaxError for some broken PNG files.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{name}: cannot be decoded ({error}); an image was expected. Fetch this file again."
        ) from error


def _resize_and_center_crop(image: Image.Image, size: int) -> Image.Image:
    """Resize an image (bicubic) to `size` pixels on its shorter side; crop the central square."""
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
    """Cut the RandomResizedCrop of a seed from a PIL image or a tensor; return the same kind."""
    # `get_params` draws from PyTorch's global generator, whose state other draws depend on.
    with torch.random.fork_rng(devices=()):
        # `torch.manual_seed` would seed GPUs as well.
        torch.default_generator.manual_seed(int(seed))
        box = RandomResizedCrop.get_params(image, CROP_SCALE, CROP_RATIO)
    return resized_crop(image, *box, [size, size], InterpolationMode.BICUBIC)
