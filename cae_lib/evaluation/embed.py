"""Weights to measure, and their vectors of pictures and texts: float32 unit vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.pretrained import download_pretrained, get_pretrained_cfg
from torch import Tensor, nn

from cae_lib.data.benchmarks.base import ImageRef
from cae_lib.data.completeness import open_clip_file
from cae_lib.errors import CheckpointError
from cae_lib.evaluation.inputs import Picture, PictureReader, tokenize
from cae_lib.models.checkpoint import file_digest, read_meta
from cae_lib.models.clip import Clip, load_clip
from cae_lib.models.image_tower import encode_image
from cae_lib.models.text_encoder import text_encoder
from cae_lib.runtime import Progress, whole_file

LENGTHS_TOGETHER = 2
"""Lengths that may share a batch: longer texts make the attention of shorter ones dearer."""

MANY = 300
"""New pictures or texts from which on an encoder with a name tells its progress."""

TOKENIZED_AT_ONCE, TEXTS_AT_ONCE = 65_536, 256
PICTURES_AT_ONCE, PICTURES_AT_ONCE_ON_CPU = 64, 16
"""On a CPU fewer, so that their states fit its cache."""


@dataclass(frozen=True)
class Weights:
    """A checkpoint of `save_checkpoint`, which names its own model of open_clip and activation
    ("quickgelu" or "gelu"), or a tag of open_clip, or None for random weights."""

    source: Path | str | None
    model: str = ""
    activation: str = ""

    def digest(self) -> str:
        """SHA-256 of the weight file, which must be there; of random ones of what decides them."""
        if isinstance(self.source, Path):
            return file_digest(self.source)
        known = "random" if self.source is None else file_digest(tag_file(self.model, self.source))
        return hashlib.sha256(f"{self.model} {self.activation} {known}".encode()).hexdigest()

    def load(self, device: str | torch.device = "cpu") -> Clip:
        """The model with these weights; CheckpointError if they are missing, broken, or do not say
        what they are."""
        if not isinstance(self.source, Path):
            return load_clip(self.model, self.source, self.activation, device)
        meta = read_meta(self.source)
        if meta is None:
            raise CheckpointError(f"{self.source} holds no meta data: write it with `cae train`")
        return load_clip(meta.model, self.source, device=device)


def tag_file(model: str, tag: str) -> Path:
    """The file of a tag in open_clip's cache, downloaded if it is not there."""
    config = get_pretrained_cfg(model, tag)
    repository = str(config.get("hf_hub", "")).rpartition("/")[0]
    try:
        return open_clip_file(repository) or Path(download_pretrained(config))
    except Exception as error:  # whatever the hub's and urllib's errors are
        raise CheckpointError(
            f"cannot get the weights {tag!r} of {model} ({error}). Fetch them where there is a "
            "network, and copy ~/.cache/huggingface/hub to this machine"
        ) from error


def image_digest(model: nn.Module) -> str:
    """SHA-256 of the weights of a model's image tower."""
    known = hashlib.sha256()
    for name, value in model.visual.state_dict().items():
        known.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return known.hexdigest()


def _read_kept(path: Path | None) -> dict[bytes, np.ndarray]:
    """Vectors of pictures by the hash of their pixels."""
    if path is None or not path.is_file():
        return {}
    with np.load(path) as found:
        return dict(zip(found["contents"].tolist(), found["vectors"], strict=True))


class Encoder:
    """Turns pictures and texts into unit vectors and remembers them as long as it lives, so
    benchmarks that share pictures or captions should share it. All runs in float32, in eval mode
    and without gradients. The weights must not change while it is used.

    Args:
        clip: The model with its preprocessing and tokenizer.
        workers: Threads that decode pictures; by default one for each core, at most eight.
        kept: A file that vectors of pictures are read from and added to. Its name has to tell the
            image tower, see `image_digest`; for runs that share one.
        progress: A name for lines of progress while many are encoded; by default none is written.
    """

    def __init__(self, clip: Clip, workers: int | None = None, kept: Path | None = None,
                 progress: str | None = None) -> None:
        self.clip = clip
        self._reader = PictureReader(clip.preprocess, workers)
        self._kept, self._progress = kept, progress
        self._by_content = _read_kept(kept)
        self._images: dict[ImageRef, np.ndarray] = {}
        self._texts: dict[str, np.ndarray] = {}

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.clip.model.parameters()).device

    @torch.inference_mode()
    def images(self, refs: Sequence[ImageRef]) -> np.ndarray:
        """Unit vectors `(n, E)`, float32, of pictures; equal pixels are encoded once. DataError if
        a picture is missing, cannot be decoded, or has an empty crop."""
        new = [ref for ref in dict.fromkeys(refs) if ref not in self._images]
        contents: dict[ImageRef, bytes] = {}
        computed = 0
        size = PICTURES_AT_ONCE_ON_CPU if self.device.type == "cpu" else PICTURES_AT_ONCE
        different = self._new(new, contents)
        with evaluating(self.clip.model), self._told(len(new), "pictures") as told:
            while batch := list(islice(different, size)):
                pixels = self._reader.normalised(batch, self.device)
                features = _unit(_image_features(self.clip.model, pixels))
                self._by_content.update(zip((p.content for p in batch), features, strict=True))
                computed += len(batch)
                if told:
                    told.update(len(contents) - told.n)
            if told:
                told.update(len(contents) - told.n)  # those that were known
        if self._kept and computed:
            both = _read_kept(self._kept) | self._by_content
            with whole_file(self._kept) as path, path.open("wb") as stream:
                np.savez(stream, contents=np.array(list(both)), vectors=np.stack([*both.values()]))
        self._images.update((ref, self._by_content[content]) for ref, content in contents.items())
        return np.array([self._images[ref] for ref in refs], dtype=np.float32)

    def pixels(self, refs: Sequence[ImageRef]) -> Tensor:
        """The model's input `(n, 3, H, W)`, float32, of pictures, on its device; as `images`."""
        found = {picture.ref: picture for picture in self._reader.read(list(dict.fromkeys(refs)))}
        return self._reader.normalised([found[ref] for ref in refs], self.device)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors `(n, E)`, float32, of texts; batches hold texts that begin alike. For texts
        that are known the model is not looked at: thousands of items ask one at a time."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if texts and not new:
            return np.array([self._texts[text] for text in texts], dtype=np.float32)
        encoder = text_encoder(self.clip.model)
        with evaluating(self.clip.model), self._told(len(new), "texts") as told:
            for start in range(0, len(new), TOKENIZED_AT_ONCE):
                part = new[start : start + TOKENIZED_AT_ONCE]
                tokens = tokenize(self.clip.tokenizer, part)
                for rows in neighbours(tokens).split(TEXTS_AT_ONCE):
                    features = _unit(encoder.encode_many(tokens[rows].to(self.device)))
                    self._texts.update(zip((part[row] for row in rows), features, strict=True))
                    if told:
                        told.update(len(rows))
        return np.array([self._texts[text] for text in texts], dtype=np.float32)

    def _told(self, n: int, kind: str) -> AbstractContextManager[Progress | None]:
        """Lines of progress over `n` things of a kind, if there are many and the encoder has a
        name."""
        if self._progress is None or n < MANY:
            return nullcontext()
        return Progress(n, f"{self._progress}: {kind}")

    def _new(self, refs: list[ImageRef], contents: dict[ImageRef, bytes]) -> Iterator[Picture]:
        """Those pictures whose pixels are new, while the contents of all are noted."""
        seen = set(self._by_content)
        for picture in self._reader.read(refs):
            contents[picture.ref] = picture.content
            if picture.content not in seen:
                seen.add(picture.content)
                yield picture


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, and back afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def neighbours(tokens: Tensor) -> Tensor:
    """Order `(B,)` in which texts of about the same length that begin alike stand side by side."""
    array = tokens.cpu().numpy()
    differs = array != array[:, -1:]  # from the padding; of a text that fills the context, its end
    used = array.shape[1] - differs[:, ::-1].argmax(axis=1)
    by_content = np.array([row.tobytes() for row in array.astype(">u4")]).argsort(kind="stable")
    length = ((used - 1) // LENGTHS_TOGETHER)[by_content]
    return torch.from_numpy(by_content[length.argsort(kind="stable")])


def _image_features(model: nn.Module, pixels: Tensor) -> Tensor:
    """Features `(n, E)` by open_clip's model, or by one of Hugging Face."""
    if hasattr(model, "visual"):
        return encode_image(model, pixels).features
    found = model.get_image_features(pixel_values=pixels)
    return getattr(found, "pooler_output", found)  # transformers 4 returns the tensor itself


def _unit(features: Tensor) -> np.ndarray:
    return F.normalize(features.float(), dim=-1).cpu().numpy()
