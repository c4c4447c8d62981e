"""Pictures of a training set, decoded once into memory and normalised in batches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from torch import Tensor

from cae_lib.data.crops import crop_boxes, resized_crop
from cae_lib.errors import DataError


class ImageStore:
    """All pictures of a set as one uint8 tensor (N, 3, S, S), decoded once by a thread pool.

    A picture of another size is resized (bicubic) to S pixels on its shorter side and cut to its
    central square, as CLIP does for evaluation. Departure from the paper: its random crops come
    from the whole photograph, ours from that square; for square pictures there is no difference.

    `Photographs` stands in for this class where a set is too large: the trainer uses `len` and
    `batch` alone.

    Args:
        paths: picture files; row i of the store is paths[i].
        size: S, in pixels.
        mean: per channel, of pixels in [0, 1].
        std: per channel, of pixels in [0, 1].
        workers: decoding threads; all cores by default.

    Raises:
        DataError: a file is missing, broken or truncated; names the file and its row.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        size: int,
        mean: Sequence[float] = OPENAI_DATASET_MEAN,
        std: Sequence[float] = OPENAI_DATASET_STD,
        workers: int | None = None,
    ) -> None:
        self.size = size
        self.pixels = torch.empty(len(paths), 3, size, size, dtype=torch.uint8)
        self._affine = affine(mean, std)

        def decode(row: int) -> None:
            with opened(Path(paths[row]), row, 2 * size) as image:
                array = np.array(central_square(image, size))
            self.pixels[row] = torch.from_numpy(array).permute(2, 0, 1)

        with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
            for _ in pool.map(decode, range(len(paths))):
                pass

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.pixels)

    def batch(
        self,
        index: Tensor,
        generator: torch.Generator | None = None,
        part: Tensor | None = None,
    ) -> Tensor:
        """Normalised pictures of the rows `index` (B,): float32 (B, 3, S, S).

        With a generator each one is a random resized crop, else the whole stored picture. With
        `part` only those places of `index` are returned; their crops are those of the whole.
        """
        places = slice(None) if part is None else part
        pixels = self.pixels[index[places]]
        if generator is None:
            cropped = pixels.float()
        else:
            boxes = crop_boxes(len(index), self.size, self.size, generator)
            cropped = resized_crop(pixels, boxes[places])
        return normalise(cropped, *self._affine)


def affine(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Scale and shift `(3, 1, 1)` that normalise pixels of 0 to 255.

    Args:
        mean: per channel, of pixels in [0, 1].
        std: per channel, of pixels in [0, 1].
    """
    means, spreads = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
    return 1 / (255 * spreads), -means / spreads


def normalise(pixels: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Pixels of 0 to 255 as float32, scaled and shifted; overwrites pixels that are float32."""
    return pixels.float().mul_(scale).add_(shift)


@contextmanager
def opened(path: Path, row: int, least: int) -> Iterator[Image.Image]:
    """A picture in RGB; a JPEG may be decoded smaller, but no side below `least` pixels.

    Raises:
        DataError: the file is missing, broken or truncated; names the file and its row.
    """
    try:
        with Image.open(path) as image:
            image.draft("RGB", (least, least))
            yield image.convert("RGB")
    except FileNotFoundError as error:
        raise DataError(f"{path} (row {row}): no such picture. Complete the data set.") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(
            f"{path} (row {row}): broken or truncated picture ({error}). Download it again."
        ) from error


def central_square(image: Image.Image, size: int) -> Image.Image:
    """The picture's central square, its side resized (bicubic) to `size` pixels."""
    if image.size == (size, size):
        return image
    factor = size / min(image.size)
    width, height = (max(size, round(side * factor)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + size, top + size))
