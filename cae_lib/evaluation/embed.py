"""Encoding pictures and texts for evaluation: each distinct one once, as float32 unit vectors."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFile, UnidentifiedImageError
from torch import Tensor

from cae_lib.data.benchmarks.base import ImageRef
from cae_lib.errors import DataError
from cae_lib.evaluation.tokens import tokenize
from cae_lib.models.clip import Clip
from cae_lib.models.image_tower import encode_image
from cae_lib.models.towers import encode_text, text_tower

Job = TypeVar("Job")
Result = TypeVar("Result")
TOKENIZED_AT_ONCE = 4096
PICTURES_AT_ONCE_ON_CPU = 16
_SWITCH = Lock()


class Encoder:
    """Turns pictures and texts into unit vectors and remembers them as long as it lives.

    Benchmarks that share pictures or captions should share the encoder. Everything runs in
    float32, in eval mode and without gradients, on the device that the model is on. The weights
    must not change while the encoder is used.

    Attributes:
        clip: The model with its preprocessing and tokenizer.
        batch_size: Texts in one forward pass, and pictures too on a GPU. On a CPU fewer pictures
            are encoded at a time, so that their states fit its cache.
        workers: Threads that decode pictures.
        allow_truncated: Take pictures whose file ends too early, with grey in place of what is
            lost, as the evaluation of CAE's authors does for VL-CheckList. They are listed in
            `truncated`. By default such a picture is an error.
        truncated: Those files that were taken although they end too early.
    """

    def __init__(
        self,
        clip: Clip,
        batch_size: int = 64,
        workers: int = 2,
        allow_truncated: bool = False,
    ) -> None:
        self.clip = clip
        self.batch_size = batch_size
        self.workers = workers
        self.allow_truncated = allow_truncated
        self.truncated: set[Path] = set()
        self._images: dict[ImageRef, np.ndarray] = {}
        self._texts: dict[str, np.ndarray] = {}

    @property
    def n_images(self) -> int:
        """Number of distinct pictures (path and crop) encoded so far."""
        return len(self._images)

    @property
    def n_texts(self) -> int:
        """Number of distinct texts encoded so far."""
        return len(self._texts)

    @torch.inference_mode()
    def images(self, refs: Sequence[ImageRef]) -> np.ndarray:
        """Unit vectors `(n, E)`, float32, of pictures; a file is decoded once for all its crops.

        Raises:
            DataError: If a picture is missing, cannot be decoded, or has an empty crop.
        """
        crops: dict[Path, list[ImageRef]] = {}
        for ref in dict.fromkeys(refs):
            if ref not in self._images:
                crops.setdefault(ref.path, []).append(ref)
        with _EvalMode(self.clip.model), ThreadPoolExecutor(self.workers) as pool:
            decoded = _ahead(pool, self._decode, crops.values(), 2 * self.batch_size)
            pairs = (pair for group in decoded for pair in group)
            size = self.batch_size
            if self._device.type == "cpu":
                size = min(size, PICTURES_AT_ONCE_ON_CPU)
            while batch := list(islice(pairs, size)):
                pixels = torch.stack([pixels for _, pixels in batch]).to(self._device)
                features = _unit(encode_image(self.clip.model, pixels).features)
                self._images.update(zip((ref for ref, _ in batch), features, strict=True))
        return self._gather(self._images, refs)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors `(n, E)`, float32, of texts; batches hold texts of about the same length."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        with _EvalMode(self.clip.model):
            for start in range(0, len(new), TOKENIZED_AT_ONCE):
                self._encode_texts(new[start : start + TOKENIZED_AT_ONCE])
        return self._gather(self._texts, texts)

    def _encode_texts(self, texts: list[str]) -> None:
        tokens = tokenize(self.clip.tokenizer, texts)
        order = text_tower(self.clip.model).eot(tokens).argsort(stable=True)
        for rows in order.split(self.batch_size):
            batch = tokens[rows].to(self._device)
            features = _unit(encode_text(self.clip.model, batch).features)
            self._texts.update(zip((texts[row] for row in rows), features, strict=True))

    def _decode(self, refs: list[ImageRef]) -> list[tuple[ImageRef, Tensor]]:
        """Read one file and preprocess each of its crops."""
        picture = self._open(refs[0].path)
        return [(ref, self._preprocess(picture, ref)) for ref in refs]

    def _open(self, path: Path) -> Image.Image:
        try:
            with Image.open(path) as file:
                return file.convert("RGB")
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such picture. Fetch the pictures of this set.") from error
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            if self.allow_truncated and "truncated" in str(error):
                self.truncated.add(path)
                return _what_is_there(path)
            raise DataError(
                f"{path}: cannot be decoded ({error}). Fetch this picture again."
            ) from error

    def _preprocess(self, picture: Image.Image, ref: ImageRef) -> Tensor:
        try:
            return self.clip.preprocess(picture if ref.crop is None else picture.crop(ref.crop))
        except (ValueError, ZeroDivisionError) as error:
            raise DataError(
                f"{ref.path}: the crop {ref.crop} of a picture of {picture.size} pixels cannot be "
                f"used ({error}). Correct the row that asks for it."
            ) from error

    @property
    def _device(self) -> torch.device:
        return next(self.clip.model.parameters()).device

    def _gather(self, store: dict, keys: Sequence) -> np.ndarray:
        if not keys:
            return np.empty((0, 0), dtype=np.float32)
        return np.stack([store[key] for key in keys])


class _EvalMode:
    """Puts a model into eval mode and back."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.training = model, model.training

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        self.model.train(self.training)


def _what_is_there(path: Path) -> Image.Image:
    """A picture of which the end is missing; Pillow has one switch for it, for all threads."""
    with _SWITCH:
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
        try:
            with Image.open(path) as file:
                return file.convert("RGB")
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def _unit(features: Tensor) -> np.ndarray:
    return F.normalize(features.float(), dim=-1).cpu().numpy()


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[Job], Result], jobs: Iterable[Job], window: int
) -> Iterator[Result]:
    """Results of `work` in order, with at most `window` of them computed ahead of the reader."""
    pending: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            pending.append(pool.submit(work, job))
            if len(pending) >= window:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
