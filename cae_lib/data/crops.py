"""Random resized crops of a batch of pictures, drawn like torchvision's and cut in one call."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

TRIES = 10


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
