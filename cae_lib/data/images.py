"""Pictures of a training set, decoded once into memory, and their random crops."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from torch import Tensor

from cae_lib.errors import DataError

TRIES = 10


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


def resized_crop(pixels: Tensor, boxes: Tensor) -> Tensor:
    """Cut a box from each picture and resize it to the picture's own size, all in one call.

    Departure: resizing is bilinear, not bicubic, which no batched kernel offers at this speed.

    Args:
        pixels: (B, C, H, W), uint8 or float.
        boxes: (B, 4) as (top, left, height, width).

    Returns:
        float32 (B, C, H, W) in the range of `pixels`.
    """
    height, width = pixels.shape[2:]
    top, left, crop_height, crop_width = boxes.T
    x = _sample_positions(left, crop_width, width)
    y = _sample_positions(top, crop_height, height)
    grid = torch.stack(
        torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1
    )  # (B, H, W, 2)
    return F.grid_sample(
        pixels.float(), grid.to(pixels.device), padding_mode="border", align_corners=False
    )


def crop_boxes(
    count: int,
    height: int,
    width: int,
    generator: torch.Generator,
    scale: tuple[float, float] = (0.9, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Tensor:
    """Boxes (count, 4) long as (top, left, height, width), drawn like torchvision's.

    The paper's recipe names the scale of RandomResizedCrop only; the rest is torchvision's.

    Up to ten draws of (area, log aspect ratio) for each picture; the first that fits is taken. If
    none fits, the largest central box whose aspect ratio lies within `ratio`.
    """
    return boxes_of(crop_draws(count, generator), height, width, scale, ratio)


def crop_draws(count: int, generator: torch.Generator) -> Tensor:
    """Random numbers (4, count, TRIES) in [0, 1) that the boxes of `count` pictures come from."""
    return torch.rand(4, count, TRIES, generator=generator, dtype=torch.float64)


def boxes_of(
    draws: Tensor,
    height: int,
    width: int,
    scale: tuple[float, float] = (0.9, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Tensor:
    """Boxes (count, 4) of pictures of one size from their draws; see `crop_boxes`."""
    area = height * width * (scale[0] + (scale[1] - scale[0]) * draws[0])
    low, high = np.log(ratio[0]), np.log(ratio[1])
    aspect = torch.exp(low + (high - low) * draws[1])
    widths = torch.round(torch.sqrt(area * aspect)).long()
    heights = torch.round(torch.sqrt(area / aspect)).long()
    tops = (draws[2] * (height - heights + 1)).floor().long()
    lefts = (draws[3] * (width - widths + 1)).floor().long()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    boxes = torch.stack([tops, lefts, heights, widths], dim=-1)  # (count, TRIES, 4)
    first = fits.int().argmax(dim=1)
    chosen = boxes[torch.arange(boxes.shape[0]), first]
    fallback = torch.tensor(_central_box(height, width, ratio))
    return torch.where(fits.any(dim=1, keepdim=True), chosen, fallback)


def _central_box(height: int, width: int, ratio: tuple[float, float]) -> list[int]:
    box_height, box_width = height, width
    if width / height < ratio[0]:
        box_height = round(width / ratio[0])
    elif width / height > ratio[1]:
        box_width = round(height * ratio[1])
    return [(height - box_height) // 2, (width - box_width) // 2, box_height, box_width]


def _sample_positions(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Positions (B, size) in grid_sample's [-1, 1] of `size` pixels spread over each interval."""
    start, length = start[:, None], length[:, None]
    pixel = start + (torch.arange(size) + 0.5) * length / size - 0.5
    inside = torch.minimum(torch.maximum(pixel, start), start + length - 1)
    return (2 * inside + 1) / size - 1


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
