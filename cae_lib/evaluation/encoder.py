"""Weights to measure, and unit vectors by them: each distinct picture and text is encoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import SimpleTokenizer
from open_clip.pretrained import download_pretrained, get_pretrained_cfg
from torch import Tensor, nn

from cae_lib.config import paths
from cae_lib.data.benchmarks.base import ImageRef
from cae_lib.data.completeness import open_clip_file
from cae_lib.errors import CheckpointError
from cae_lib.evaluation.picture_reader import Picture, PictureReader
from cae_lib.models.checkpoint import file_digest, read_meta
from cae_lib.models.clip import Clip, load_clip
from cae_lib.models.image_tower import encode_image
from cae_lib.models.text_encoder import text_encoder
from cae_lib.profiles import find_profile
from cae_lib.runtime import Progress, whole_file

LENGTHS_TOGETHER = 2
"""Lengths that may share a batch: longer texts make the attention of shorter ones dearer."""

MANY = 300
"""New pictures or texts from which on progress is told."""

TOKENIZED_AT_ONCE, TEXTS_AT_ONCE = 65_536, 256
PICTURES_AT_ONCE, PICTURES_AT_ONCE_ON_CPU = 64, 16
"""On a CPU fewer, so that their states fit its cache."""

VECTORS_VERSION = 1
"""Raise it when code changes that turns an image file into a vector, from `read_image` to
`Encoder.images`, and gives other vectors: those that are stored are then made anew."""

KNOWN_IDS: dict[tuple, dict[str, np.ndarray]] = {}
"""Ids of texts by kind of tokenizer, see `Encoder.tokens`."""


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
        start = "random" if self.source is None else file_digest(tag_file(self.model, self.source))
        return hashlib.sha256(f"{self.model} {self.activation} {start}".encode()).hexdigest()

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


class Encoder:
    """Turns pictures and texts into unit vectors `(n, E)`, float32, and remembers them as long as
    it lives, so benchmarks that share pictures or captions should share it. The model runs in
    float32, in eval mode and without gradients; its weights must not change meanwhile.

    Args:
        clip: The model with its preprocessing and tokenizer.
        of: Name of the profile whose data are encoded. Where its runs lock the image tower they
            share the vectors of pictures, in a file that `vectors_key` names; where its data are
            real, progress is told. By default neither.
        workers: Threads that decode pictures, see `PictureReader`.
    """

    def __init__(self, clip: Clip, of: str | None = None, workers: int | None = None) -> None:
        self.clip = clip
        self._reader = PictureReader(clip.preprocess, workers)
        self._of, self._shared = of and find_profile(of), None
        if of and self._of.training.get("lock_image") and hasattr(clip.model, "visual"):
            self._shared = paths().cache / "image-vectors" / f"{vectors_key(clip)}.npz"
        self._contents, self._vectors = _read_shared(self._shared)
        self._images: dict[ImageRef, np.ndarray] = {}
        self._texts: dict[str, np.ndarray] = {}
        self._ids = _known_ids(clip.tokenizer)

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.clip.model.parameters()).device

    @torch.inference_mode()
    def images(self, refs: Sequence[ImageRef]) -> np.ndarray:
        """Vectors of pictures; equal pixels are encoded once. DataError if a picture is missing,
        cannot be decoded, or has an empty crop."""
        new = [ref for ref in dict.fromkeys(refs) if ref not in self._images]
        states = {ref: self._reader.state(ref) if self._shared else "" for ref in new}
        contents = {
            ref: self._contents[state] for ref, state in states.items() if state in self._contents
        }
        size = PICTURES_AT_ONCE_ON_CPU if self.device.type == "cpu" else PICTURES_AT_ONCE
        with evaluating(self.clip.model), self._progress(len(new), "pictures") as progress:
            unseen = self._unseen([ref for ref in new if ref not in contents], contents)
            while batch := list(islice(unseen, size)):
                pixels = self._reader.normalised(batch, self.device)
                vectors = _unit(_image_features(self.clip.model, pixels))
                self._vectors.update(zip((p.content for p in batch), vectors, strict=True))
                progress.update(len(contents) - progress.n)
            progress.update(len(contents) - progress.n)  # those whose pixels have a vector
        self._images.update((ref, self._vectors[content]) for ref, content in contents.items())
        if self._shared and not {*states.values()} <= self._contents.keys():
            self._contents.update((states[ref], content) for ref, content in contents.items())
            self._share(self._shared)
        return np.array([self._images[ref] for ref in refs], dtype=np.float32)

    def pixels(self, refs: Sequence[ImageRef]) -> Tensor:
        """The model's input `(n, 3, H, W)`, float32, of pictures, on its device; as `images`."""
        pictures = {picture.ref: picture for picture in self._reader.read(dict.fromkeys(refs))}
        return self._reader.normalised([pictures[ref] for ref in refs], self.device)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of texts; batches hold texts that begin alike. If all are known the model is not
        looked at: thousands of items ask one at a time."""
        if new := [text for text in dict.fromkeys(texts) if text not in self._texts]:
            encoder = text_encoder(self.clip.model)
            with evaluating(self.clip.model), self._progress(len(new), "texts") as progress:
                for start in range(0, len(new), TOKENIZED_AT_ONCE):
                    some = new[start : start + TOKENIZED_AT_ONCE]
                    tokens = self.tokens(some)
                    for rows in neighbours(tokens).split(TEXTS_AT_ONCE):
                        vectors = _unit(encoder.encode_many(tokens[rows].to(self.device)))
                        self._texts.update(zip((some[i] for i in rows), vectors, strict=True))
                        progress.update(len(rows))
        return np.array([self._texts[text] for text in texts], dtype=np.float32)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Token ids `(n, context_length)`, long: what the tokenizer gives. Those of open_clip's
        byte-pair encoding are remembered by the process, for all models."""
        if self._ids is None:
            return self.clip.tokenizer(list(texts))
        if new := [text for text in dict.fromkeys(texts) if text not in self._ids]:
            ids = self.clip.tokenizer(new).numpy().astype(np.int32)
            self._ids.update(zip(new, ids, strict=True))
        return torch.from_numpy(np.array([self._ids[text] for text in texts], dtype=np.int64))

    def _progress(self, n: int, kind: str) -> Progress:
        quiet = self._of is None or self._of.base is not None or n < MANY
        return Progress(n, f"{self.clip.name}: {kind}", disable=quiet)

    def _unseen(self, refs: list[ImageRef], contents: dict[ImageRef, str]) -> Iterator[Picture]:
        """Those pictures whose pixels have no vector, while the contents of all are noted."""
        seen = set(self._vectors)
        for picture in self._reader.read(refs):
            contents[picture.ref] = picture.content
            if picture.content not in seen:
                seen.add(picture.content)
                yield picture

    def _share(self, path: Path) -> None:
        """Add what is new to what other runs have written meanwhile."""
        contents, vectors = _read_shared(path)
        contents, vectors = contents | self._contents, vectors | self._vectors
        with whole_file(path) as temporary, temporary.open("wb") as stream:
            np.savez(
                stream,
                states=[*contents],
                shown=[*contents.values()],
                contents=[*vectors],
                vectors=np.stack([*vectors.values()]),
            )


def _read_shared(path: Path | None) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The content of pictures by their state, and its vector; none where there is no file."""
    if path is None or not path.is_file():
        return {}, {}
    with np.load(path) as stored:
        return (
            dict(zip(stored["states"].tolist(), stored["shown"].tolist(), strict=True)),
            dict(zip(stored["contents"].tolist(), stored["vectors"], strict=True)),
        )


def _known_ids(tokenizer: Callable[[list[str]], Tensor]) -> dict[str, np.ndarray] | None:
    """What is remembered of the ids of texts; None for other tokenizers than open_clip's byte-pair
    encoding, and for those that mask texts at random."""
    if type(tokenizer) is not SimpleTokenizer or tokenizer.reduction_fn is not None:
        return None
    vocabulary = hash((*tokenizer.encoder, *tokenizer.bpe_ranks))
    return KNOWN_IDS.setdefault((vocabulary, tokenizer.context_length, tokenizer.clean_fn), {})


def vectors_key(clip: Clip) -> str:
    """Hash everything but the image that decides an image's vector: the weights and architecture of
    the image tower, the activation, the preprocessing (size, interpolation, resize mode, crop,
    mean, standard deviation), and the version of the code."""
    tower = clip.model.visual
    modules = [(name, _settings(part)) for name, part in tower.named_modules()]
    transforms = [_settings(transform) for transform in clip.preprocess.transforms]
    decided_by = VECTORS_VERSION, clip.activation, transforms, modules
    digest = hashlib.sha256(repr(decided_by).encode())
    for name, value in tower.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def _settings(part: object) -> tuple[str, dict[str, Any]]:
    """The class of a module or transform, and its plain attributes, such as sizes and heads."""
    plain = (bool, int, float, str, tuple, list, Enum, type(None))
    return type(part).__qualname__, {
        name: value
        for name, value in vars(part).items()
        if isinstance(value, plain) and name != "training" and not name.startswith("_")
    }


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
    features = model.get_image_features(pixel_values=pixels)
    return getattr(features, "pooler_output", features)  # transformers 4 returns the tensor itself


def _unit(features: Tensor) -> np.ndarray:
    return F.normalize(features.float(), dim=-1).cpu().numpy()
