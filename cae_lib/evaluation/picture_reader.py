"""Pictures as models read them, decoded by threads ahead of who takes them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose

from cae_lib.data.benchmarks.base import ImageRef
from cae_lib.data.images import read_image
from cae_lib.errors import DataError

FILES_AT_ONCE = 256
MOST_WORKERS = 8


class Picture(NamedTuple):
    """A picture's pixels `(3, H, W)`, uint8 before normalisation, and their hash."""

    ref: ImageRef
    pixels: Tensor
    content: str


class PictureReader:
    """Reads pictures for one preprocessing of open_clip. `workers` are threads, by default one for
    each core that the process may use, at most `MOST_WORKERS`."""

    def __init__(self, preprocess: Compose, workers: int | None = None) -> None:
        *geometry, _, last = preprocess.transforms  # the one before the last makes a tensor
        self._geometry = Compose(geometry)
        self._mean, self._std = (torch.tensor(v).view(-1, 1, 1) for v in (last.mean, last.std))
        own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self.workers = workers or min(MOST_WORKERS, own or 1)

    def state(self, ref: ImageRef) -> str:
        """A hash of a picture's file as it is now, and of the part of it that is shown."""
        status = ref.path.stat() if ref.path.is_file() else None
        known = ref, status and (status.st_mtime_ns, status.st_size)
        return _digest(repr(known).encode())

    def read(self, refs: Iterable[ImageRef]) -> Iterator[Picture]:
        """Pictures file by file, the files in the order given; a file is decoded once. DataError if
        a picture is missing, cannot be decoded, or has an empty crop."""
        by_file: dict[Path, list[ImageRef]] = {}
        for ref in refs:
            by_file.setdefault(ref.path, []).append(ref)
        files = list(by_file.values())
        with ThreadPoolExecutor(self.workers) as pool:
            for start in range(0, len(files), FILES_AT_ONCE):
                for pictures in pool.map(self._crops, files[start : start + FILES_AT_ONCE]):
                    yield from pictures

    def normalised(self, pictures: Sequence[Picture], device: torch.device) -> Tensor:
        """The model's input `(n, 3, H, W)`, float32: just what the preprocessing gives."""
        pixels = torch.stack([picture.pixels for picture in pictures]).to(device)
        return pixels.float().div_(255).sub_(self._mean.to(device)).div_(self._std.to(device))

    def _crops(self, refs: list[ImageRef]) -> list[Picture]:
        """The pictures of one file."""
        image = read_image(refs[0].path)
        return [self._cut(image, ref) for ref in refs]

    def _cut(self, image: Image.Image, ref: ImageRef) -> Picture:
        try:
            cut = self._geometry(image if ref.crop is None else image.crop(ref.crop))
        except (ValueError, ZeroDivisionError) as error:
            raise DataError(
                f"{ref.path}: the crop {ref.crop} of a picture of {image.size} pixels cannot be "
                f"used ({error}). Correct the row that asks for it."
            ) from error
        pixels = torch.from_numpy(np.array(cut)).permute(2, 0, 1).contiguous()
        return Picture(ref, pixels, _digest(pixels.numpy().data))


def _digest(content: bytes | memoryview) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
