"""Encoding pictures and texts for evaluation: each distinct one once, as float32 unit vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cae_lib.data.benchmarks.base import ImageRef
from cae_lib.evaluation.pictures import Picture, PictureReader
from cae_lib.evaluation.tokens import tokenize
from cae_lib.models.clip import Clip
from cae_lib.models.image_tower import encode_image
from cae_lib.models.text_encoder import text_encoder

LENGTHS_TOGETHER = 2
"""Lengths that may share a batch: longer texts make the attention of shorter ones dearer."""

TOKENIZED_AT_ONCE = 65_536
PICTURES_AT_ONCE, PICTURES_AT_ONCE_ON_CPU = 64, 16


class Encoder:
    """Turns pictures and texts into unit vectors and remembers them as long as it lives.

    Benchmarks that share pictures or captions should share the encoder. Everything runs in
    float32, in eval mode and without gradients, on the device that the model is on. The weights
    must not change while the encoder is used. Pixels and tokens are kept by the process, for the
    encoders of other models.

    Attributes:
        clip: The model with its preprocessing and tokenizer.
        batch_size: Texts in one forward pass at most, and pictures too; but not more of these than
            `PICTURES_AT_ONCE`, and on a CPU fewer, so that their states fit its cache.
    """

    def __init__(
        self,
        clip: Clip,
        batch_size: int = 256,
        workers: int = 2,
        allow_truncated: bool = False,
    ) -> None:
        """Prepare to encode with a model.

        Args:
            clip: The model.
            batch_size: See the attribute.
            workers: Threads that decode pictures.
            allow_truncated: Take pictures whose file ends too early, with grey in place of what is
                lost, as the evaluation of CAE's authors does for VL-CheckList. They are listed in
                `truncated`. By default such a picture is an error.
        """
        self.clip = clip
        self.batch_size = batch_size
        self._reader = PictureReader(clip.preprocess, workers, allow_truncated)
        self._by_content: dict[bytes, np.ndarray] = {}
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

    @property
    def truncated(self) -> set[Path]:
        """Those files that were taken although they end too early."""
        return self._reader.truncated

    @torch.inference_mode()
    def images(self, refs: Sequence[ImageRef]) -> np.ndarray:
        """Unit vectors `(n, E)`, float32, of pictures; equal pixels are encoded once.

        Raises:
            DataError: If a picture is missing, cannot be decoded, or has an empty crop.
        """
        new = [ref for ref in dict.fromkeys(refs) if ref not in self._images]
        contents: dict[ImageRef, bytes] = {}
        on_cpu = self._device.type == "cpu"
        size = min(self.batch_size, PICTURES_AT_ONCE_ON_CPU if on_cpu else PICTURES_AT_ONCE)
        with _EvalMode(self.clip.model):
            different = self._different(self._reader.read(new), contents)
            while batch := list(islice(different, size)):
                pixels = self._reader.normalised(batch, self._device)
                features = _unit(encode_image(self.clip.model, pixels).features)
                self._by_content.update(zip((p.content for p in batch), features, strict=True))
        self._images.update((ref, self._by_content[content]) for ref, content in contents.items())
        return self._gather(self._images, refs)

    def pixels(self, refs: Sequence[ImageRef]) -> Tensor:
        """The model's input `(n, 3, H, W)`, float32, of pictures, on its device.

        Raises:
            DataError: If a picture is missing, cannot be decoded, or has an empty crop.
        """
        found = {picture.ref: picture for picture in self._reader.read(list(dict.fromkeys(refs)))}
        return self._reader.normalised([found[ref] for ref in refs], self._device)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors `(n, E)`, float32, of texts; batches hold texts that begin alike."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        with _EvalMode(self.clip.model):
            for start in range(0, len(new), TOKENIZED_AT_ONCE):
                self._encode_texts(new[start : start + TOKENIZED_AT_ONCE])
        return self._gather(self._texts, texts)

    def _different(
        self, pictures: Iterable[Picture], contents: dict[ImageRef, bytes]
    ) -> Iterator[Picture]:
        """Those pictures whose pixels are new, while the contents of all are noted."""
        seen = set(self._by_content)
        for picture in pictures:
            contents[picture.ref] = picture.content
            if picture.content not in seen:
                seen.add(picture.content)
                yield picture

    def _encode_texts(self, texts: list[str]) -> None:
        tokens = tokenize(self.clip.tokenizer, texts)
        encoder = text_encoder(self.clip.model)
        for rows in neighbours(tokens).split(self.batch_size):
            features = _unit(encoder.encode_many(tokens[rows].to(self._device)))
            self._texts.update(zip((texts[row] for row in rows), features, strict=True))

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


def neighbours(tokens: Tensor) -> Tensor:
    """Order `(B,)` in which texts of about the same length that begin alike stand side by side."""
    array = tokens.cpu().numpy()
    differs = array != array[:, -1:]  # from the padding; of a text that fills the context, its end
    used = array.shape[1] - differs[:, ::-1].argmax(axis=1)
    by_content = np.array([row.tobytes() for row in array.astype(">u4")]).argsort(kind="stable")
    length = ((used - 1) // LENGTHS_TOGETHER)[by_content]
    return torch.from_numpy(by_content[length.argsort(kind="stable")])


def _unit(features: Tensor) -> np.ndarray:
    return F.normalize(features.float(), dim=-1).cpu().numpy()
