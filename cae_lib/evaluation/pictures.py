"""Pictures as a model's preprocessing cuts them, kept by the process: models share them.

Decoding and resizing take as long as a small model's forward pass, and are the same for every
model with one preprocessing. So the pixels are kept, as uint8, up to `MOST_BYTES`; what no longer
fits is read again each time. A file that changed since is read anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Lock

import torch
from PIL import Image, ImageFile, UnidentifiedImageError
from torch import Tensor

from cae_lib.data.benchmarks.base import ImageRef
from cae_lib.errors import DataError
from cae_lib.evaluation.recipe import Recipe

MOST_BYTES = 1_000_000_000
"""Pixels that are kept at most; the small world's benchmarks take 0.43 GB at 112 pixels."""

FILES_AHEAD = 128

Key = tuple[Hashable, ...]

_SWITCH = Lock()


@dataclass(frozen=True)
class Picture:
    """What a preprocessing makes of a picture.

    Attributes:
        ref: The picture asked for.
        pixels: `(3, H, W)`, uint8 before normalisation, or float32 as the preprocessing gives it
            where its parts are not known.
        content: Equal for equal pixels.
    """

    ref: ImageRef
    pixels: Tensor
    content: bytes


class _Kept:
    """Pixels by their content, and contents by file and crop."""

    def __init__(self) -> None:
        self.pixels: dict[bytes, Tensor] = {}
        self.contents: dict[Key, bytes] = {}
        self.n_bytes = 0
        self._lock = Lock()

    def add(self, key: Key, content: bytes, pixels: Tensor) -> None:
        """Keep a picture if there is room; equal pixels are kept once."""
        with self._lock:
            if content not in self.pixels:
                if self.n_bytes + pixels.nbytes > MOST_BYTES:
                    return
                self.pixels[content] = pixels
                self.n_bytes += pixels.nbytes
            self.contents[key] = content

    def find(self, keys: Sequence[Key], refs: Sequence[ImageRef]) -> list[Picture]:
        """The pictures, or none if one of them is not kept."""
        contents = [self.contents.get(key) for key in keys]
        if None in contents:
            return []
        return [Picture(ref, self.pixels[c], c) for ref, c in zip(refs, contents, strict=True)]


_KEPT = _Kept()


def forget_pictures() -> None:
    """Forget all pixels, to free their memory or to measure from a fresh start."""
    _KEPT.__init__()


class PictureReader:
    """Reads pictures for one preprocessing, ahead of who takes them.

    Attributes:
        workers: Threads that decode pictures.
        allow_truncated: Take pictures whose file ends too early, with grey in place of what is
            lost; by default such a picture is an error.
        truncated: Those files that were taken although they end too early.
    """

    def __init__(
        self,
        preprocess: Callable[[Image.Image], Tensor],
        workers: int = 2,
        allow_truncated: bool = False,
    ) -> None:
        self.workers = workers
        self.allow_truncated = allow_truncated
        self.truncated: set[Path] = set()
        self._recipe = Recipe.of(preprocess)

    def read(self, refs: Sequence[ImageRef]) -> Iterator[Picture]:
        """Pictures file by file, the files in the order given; a file is decoded once.

        Raises:
            DataError: If a picture is missing, cannot be decoded, or has an empty crop.
        """
        files: dict[Path, list[ImageRef]] = {}
        for ref in refs:
            files.setdefault(ref.path, []).append(ref)
        pending: deque[list[Picture] | Future[list[Picture]]] = deque()
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for group in files.values():
                    pending.append(self._find(group) or pool.submit(self._decode, group))
                    if len(pending) >= FILES_AHEAD:
                        yield from _ready(pending.popleft())
                while pending:
                    yield from _ready(pending.popleft())
            finally:
                for job in pending:
                    if isinstance(job, Future):
                        job.cancel()

    def normalised(self, pictures: Sequence[Picture], device: torch.device) -> Tensor:
        """The model's input `(n, 3, H, W)`, float32: just what the preprocessing gives."""
        return self._recipe.normalised(torch.stack([p.pixels for p in pictures]).to(device))

    def _keys(self, refs: Sequence[ImageRef]) -> list[Key]:
        """What tells apart the crops of a file as it is now; empty where nothing is kept."""
        try:
            status = refs[0].path.stat()
        except OSError:
            return []
        file = (self._recipe.name, refs[0].path, status.st_mtime_ns, status.st_size)
        return [(*file, ref.crop) for ref in refs] if self._recipe.name else []

    def _find(self, refs: list[ImageRef]) -> list[Picture]:
        keys = self._keys(refs)
        return _KEPT.find(keys, refs) if keys else []

    def _decode(self, refs: list[ImageRef]) -> list[Picture]:
        """Read one file, cut each of its crops, and keep them if the file is whole."""
        keys = self._keys(refs)
        picture, whole = self._open(refs[0].path)
        found = []
        for ref in refs:
            pixels = self._cut(picture, ref)
            found.append(Picture(ref, pixels, sha256(pixels.numpy().data).digest()))
        if whole:
            for key, made in zip(keys, found, strict=False):
                _KEPT.add(key, made.content, made.pixels)
        return found

    def _open(self, path: Path) -> tuple[Image.Image, bool]:
        """The picture, and whether all of it is there."""
        try:
            with Image.open(path) as file:
                return file.convert("RGB"), True
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such picture. Fetch the pictures of this set.") from error
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            if self.allow_truncated and "truncated" in str(error):
                self.truncated.add(path)
                return _what_is_there(path), False
            raise DataError(
                f"{path}: cannot be decoded ({error}). Fetch this picture again."
            ) from error

    def _cut(self, picture: Image.Image, ref: ImageRef) -> Tensor:
        try:
            return self._recipe.cut(picture if ref.crop is None else picture.crop(ref.crop))
        except (ValueError, ZeroDivisionError) as error:
            raise DataError(
                f"{ref.path}: the crop {ref.crop} of a picture of {picture.size} pixels cannot be "
                f"used ({error}). Correct the row that asks for it."
            ) from error


def _ready(found: list[Picture] | Future[list[Picture]]) -> list[Picture]:
    return found.result() if isinstance(found, Future) else found


def _what_is_there(path: Path) -> Image.Image:
    """A picture of which the end is missing; Pillow has one switch for it, for all threads."""
    with _SWITCH:
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
        try:
            with Image.open(path) as file:
                return file.convert("RGB")
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before
