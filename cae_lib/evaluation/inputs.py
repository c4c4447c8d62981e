"""What models read, kept by the process for all of them: pixels of pictures, and tokens of texts.
Decoding and resizing take as long as a small model's forward pass, and are the same for every model
with one preprocessing. A file that changed since is read anew."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from open_clip import SimpleTokenizer
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose

from cae_lib.data.benchmarks.base import ImageRef
from cae_lib.errors import DataError

MOST_BYTES = 1_000_000_000
"""Pixels that are kept at most; the small world's benchmarks take 0.43 GB at 112 pixels."""

FILES_AHEAD = 128
MOST_WORKERS = 8

_PIXELS: dict[bytes, Tensor] = {}
_CONTENTS: dict[tuple, bytes] = {}
_TOKENS: dict[tuple, dict[str, np.ndarray]] = {}
_LOCK = Lock()


def forget() -> None:
    """Forget all pixels and texts."""
    for kept in (_CONTENTS, _PIXELS, _TOKENS):
        kept.clear()


@dataclass(frozen=True)
class Picture:
    """A picture's pixels `(3, H, W)`, uint8 before normalisation; `content` tells them apart."""

    ref: ImageRef
    pixels: Tensor
    content: bytes


class PictureReader:
    """Reads pictures for one preprocessing of open_clip, ahead of who takes them. `workers` are
    threads, by default one for each core."""

    def __init__(self, preprocess: Compose, workers: int | None = None):
        *geometry, _, last = preprocess.transforms  # the one before the last makes a tensor
        self._geometry, self._name = Compose(geometry), repr(geometry)
        self._mean, self._std = (torch.tensor(v).view(-1, 1, 1) for v in (last.mean, last.std))
        self.workers = workers or own_cores()

    def read(self, refs: Sequence[ImageRef]) -> Iterator[Picture]:
        """Pictures file by file, the files in the order given; a file is decoded once. DataError if
        a picture is missing, cannot be decoded, or has an empty crop."""
        files: dict[Path, list[ImageRef]] = {}
        for ref in refs:
            files.setdefault(ref.path, []).append(ref)
        jobs: deque[Future[list[Picture]]] = deque()
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for crops in files.values():
                    jobs.append(pool.submit(self._crops, crops))
                    if len(jobs) >= FILES_AHEAD:
                        yield from jobs.popleft().result()
                while jobs:
                    yield from jobs.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)

    def normalised(self, pictures: Sequence[Picture], device: torch.device) -> Tensor:
        """The model's input `(n, 3, H, W)`, float32: just what the preprocessing gives."""
        pixels = torch.stack([picture.pixels for picture in pictures]).to(device)
        return pixels.float().div_(255).sub_(self._mean.to(device)).div_(self._std.to(device))

    def _crops(self, refs: list[ImageRef]) -> list[Picture]:
        """The pictures of one file: kept ones if all are, else read anew, and kept."""
        keys = self._keys(refs)
        kept = [_CONTENTS.get(key) for key in keys]
        if kept and None not in kept:
            return [Picture(ref, _PIXELS[c], c) for ref, c in zip(refs, kept, strict=True)]
        picture = self._open(refs[0].path)
        found = [self._cut(picture, ref) for ref in refs]
        _keep(keys, found)
        return found

    def _keys(self, refs: list[ImageRef]) -> list[tuple]:
        """What tells apart the crops of a file as it is now; nothing for a file that is missing."""
        if not refs[0].path.is_file():
            return []
        status = refs[0].path.stat()
        file = (self._name, refs[0].path, status.st_mtime_ns, status.st_size)
        return [(*file, ref.crop) for ref in refs]

    def _open(self, path: Path) -> Image.Image:
        try:
            with Image.open(path) as file:
                return file.convert("RGB")
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such picture. Fetch the pictures of this set.") from error
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(
                f"{path}: cannot be decoded ({error}). Fetch this picture again."
            ) from error

    def _cut(self, picture: Image.Image, ref: ImageRef) -> Picture:
        try:
            cut = self._geometry(picture if ref.crop is None else picture.crop(ref.crop))
        except (ValueError, ZeroDivisionError) as error:
            raise DataError(
                f"{ref.path}: the crop {ref.crop} of a picture of {picture.size} pixels cannot be "
                f"used ({error}). Correct the row that asks for it."
            ) from error
        pixels = torch.from_numpy(np.array(cut)).permute(2, 0, 1).contiguous()
        return Picture(ref, pixels, hashlib.sha256(pixels.numpy().data).digest())


def own_cores() -> int:
    """How many cores this process may use, at most `MOST_WORKERS`."""
    allowed = getattr(os, "sched_getaffinity", None)  # which not every system has
    return min(MOST_WORKERS, len(allowed(0)) if allowed else os.cpu_count() or 1)


def _keep(keys: list[tuple], pictures: list[Picture]) -> None:
    """Keep pictures while there is room; equal pixels are kept once."""
    with _LOCK:
        for key, picture in zip(keys, pictures, strict=True):
            known = picture.content in _PIXELS
            if known or (len(_PIXELS) + 1) * picture.pixels.nbytes <= MOST_BYTES:
                _PIXELS.setdefault(picture.content, picture.pixels)
                _CONTENTS[key] = picture.content


def tokenize(tokenizer: Callable[[list[str]], Tensor], texts: Sequence[str]) -> Tensor:
    """Token ids `(n, context_length)`, long: what `tokenizer(texts)` gives, each text read once.
    Other tokenizers than open_clip's byte-pair encoding, and those that mask texts at random, are
    called as they are."""
    if type(tokenizer) is not SimpleTokenizer or tokenizer.reduction_fn is not None:
        return tokenizer(list(texts))
    known = _TOKENS.setdefault(_kind(tokenizer), {})
    new = [text for text in dict.fromkeys(texts) if text not in known]
    if new:
        known.update(zip(new, _trimmed(tokenizer, new), strict=True))
    result = np.zeros((len(texts), tokenizer.context_length), dtype=np.int64)
    for row, text in zip(result, texts, strict=True):
        row[: len(known[text])] = known[text]
    return torch.from_numpy(result)


@lru_cache(maxsize=8)
def _kind(tokenizer: SimpleTokenizer) -> tuple:
    """All that decides the tokens of a text."""
    vocabulary = repr([*tokenizer.encoder, *tokenizer.bpe_ranks]).encode()
    return hashlib.sha256(vocabulary).digest(), tokenizer.context_length, tokenizer.clean_fn


def _trimmed(tokenizer: SimpleTokenizer, texts: list[str]) -> list[np.ndarray]:
    """Ids of each text up to its last end-of-text token; only padding, which is 0, follows it."""
    rows = tokenizer(texts).numpy().astype(np.int32)
    after = (rows[:, ::-1] == tokenizer.eot_token_id).argmax(axis=1)
    return [row[: len(row) - n].copy() for row, n in zip(rows, after, strict=True)]
