"""Encode images and texts as unit vectors: each distinct image and text is encoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from enum import Enum
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import SimpleTokenizer
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import Compose

from cae_bench.benchmarks.base import ImageRef
from cae_lib.config import paths
from cae_lib.data.images import read_image
from cae_lib.errors import DataError
from cae_lib.models.clip import Clip
from cae_lib.models.image_tower import encode_image
from cae_lib.models.text_encoder import text_encoder
from cae_lib.runtime import Progress, atomic_file, available_cores

# Attention is computed up to the longest text of a batch, so texts of similar length go together.
# Within a class, texts with the same beginning do, which the packed text encoder computes once.
LENGTH_BUCKET = 2
"""Width, in tokens, of the classes of text length by which texts are sorted into batches."""

PROGRESS_THRESHOLD = 300
"""Smallest number of new images or texts for which a progress bar is shown."""

TOKENIZER_BATCH_SIZE, TEXT_BATCH_SIZE = 65_536, 256
"""Numbers of texts that are tokenised together, and that go through the model together."""

CACHED_TOKEN_BATCHES = 16
"""Number of tokenised batches that `tokenize` caches, of 20 MB each for 77 tokens."""

# Fewer on a CPU, so that the hidden states fit into its cache.
IMAGE_BATCH_SIZE, IMAGE_BATCH_SIZE_ON_CPU = 64, 16
"""Numbers of images that go through the model together."""

# A bound on the decoded images that wait in memory for the model.
IMAGE_FILES_AT_ONCE = 256
"""Number of image files that the decoding threads get at once."""

MAX_WORKERS = 8
"""Largest default number of threads that decode images."""

# Raise it when the code from `read_image` to `Encoder.encode_images` gives other vectors for the
# same file. Stored vectors are then computed again.
VECTORS_VERSION = 1
"""Version of the stored vectors of images."""


class DecodedImage(NamedTuple):
    """An image that is resized and cropped for a model, but not yet normalised.

    Attributes:
        pixels: RGB values, uint8 `(3, height, width)`.
        pixel_hash: Hash of `pixels`, in hexadecimal.
    """

    ref: ImageRef
    pixels: Tensor
    pixel_hash: str


class ImageReader:
    """Reads images in threads and applies open_clip's preprocessing of a model to them.

    With `workers` None or 0, there is a thread for each core, but at most `MAX_WORKERS`.
    """

    def __init__(self, preprocess: Compose, workers: int | None = None) -> None:
        # The last two transforms make a tensor and normalise it; `normalize` does both for a batch,
        # on the device of the model, and until then an image takes one byte a value.
        *geometry, _, last = preprocess.transforms
        self._geometry = Compose(geometry)
        # (3, 1, 1) each
        self._mean, self._std = (torch.tensor(v).view(-1, 1, 1) for v in (last.mean, last.std))
        self.workers = workers or min(MAX_WORKERS, available_cores())

    def ref_fingerprint(self, ref: ImageRef) -> str:
        """Hash the path, the crop, and the modification time and size of the file, if it exists."""
        # A missing file is no error here: `read` names it.
        status = ref.path.stat() if ref.path.is_file() else None
        state = ref, status and (status.st_mtime_ns, status.st_size)
        return _content_hash(repr(state).encode())

    def read(self, refs: Iterable[ImageRef]) -> Iterator[DecodedImage]:
        """Yield the decoded images, grouped by file; each file is decoded once."""
        by_file: dict[Path, list[ImageRef]] = {}
        for ref in refs:
            by_file.setdefault(ref.path, []).append(ref)
        files = list(by_file.values())
        # Threads suffice: Pillow decodes and resizes without the interpreter lock.
        with ThreadPoolExecutor(self.workers) as pool:
            for start in range(0, len(files), IMAGE_FILES_AT_ONCE):
                for images in pool.map(self._read_file, files[start : start + IMAGE_FILES_AT_ONCE]):
                    yield from images

    def normalize(self, images: Sequence[DecodedImage], device: torch.device) -> Tensor:
        """Return the model's input, float32 `(images, 3, height, width)`."""
        pixels = torch.stack([image.pixels for image in images]).to(device)
        # The operations of torchvision's ToTensor and Normalize, in their order: equal bit for bit.
        return pixels.float().div_(255).sub_(self._mean.to(device)).div_(self._std.to(device))

    def _read_file(self, refs: list[ImageRef]) -> list[DecodedImage]:
        image = read_image(refs[0].path)
        return [self._crop(image, ref) for ref in refs]

    def _crop(self, image: Image.Image, ref: ImageRef) -> DecodedImage:
        try:
            cropped = self._geometry(image if ref.crop is None else image.crop(ref.crop))
        # A crop that rounds to no pixel only fails when it is resized.
        except (ValueError, ZeroDivisionError) as error:
            raise DataError(
                f"{ref.path}: the crop {ref.crop} of a picture of {image.size} pixels cannot be "
                f"used ({error}). Correct the row that asks for it."
            ) from error
        # (height, width, 3) to (3, height, width)
        pixels = torch.from_numpy(np.array(cropped)).permute(2, 0, 1).contiguous()
        return DecodedImage(ref, pixels, _content_hash(pixels.numpy().data))


def tokenize(tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Return the token ids of texts `(n, context_length)`, int64."""
    if not isinstance(tokenizer, SimpleTokenizer):
        return tokenizer(list(texts))
    # Cached, because models that share CLIP's tokenizer are measured on the same texts. `long`
    # copies, so a caller may change the ids. The length is in the key, since it may be set anew.
    return _remembered_tokens(tokenizer, tokenizer.context_length, tuple(texts)).long()


@lru_cache(maxsize=CACHED_TOKEN_BATCHES)
def _remembered_tokens(tokenizer: SimpleTokenizer, length: int, texts: tuple[str, ...]) -> Tensor:
    # int32 takes half the memory.
    return tokenizer(list(texts), length).int()


def _content_hash(content: bytes | memoryview) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class Encoder:
    """Encodes images and texts as unit vectors `(n, E)`, float32, each distinct one once.

    Vectors are kept in memory, so benchmarks that share images or captions should share an encoder.
    The model has to be in float32; it runs in eval mode and without gradients. Its weights must not
    change while the encoder is used.

    Args:
        clip: The model with its preprocessing and tokenizer.
        store_images: Store the image vectors of a model of open_clip also in a cached file named by
            `image_vectors_key`; models with the same image tower share it.
        show_progress: Show a progress bar for `PROGRESS_THRESHOLD` new images or texts or more.
        workers: Number of threads that decode images, see `ImageReader`.
    """

    def __init__(
        self,
        clip: Clip,
        *,
        store_images: bool = False,
        show_progress: bool = False,
        workers: int | None = None,
    ) -> None:
        self.clip = clip
        self._reader = ImageReader(clip.preprocess, workers)
        self._shows_progress = show_progress
        self._shared_file = None
        # `image_vectors_key` reads open_clip's `visual`, which models of Hugging Face do not have.
        if store_images and hasattr(clip.model, "visual"):
            self._shared_file = paths().cache / "image-vectors" / f"{image_vectors_key(clip)}.npz"
        # Two steps, file to pixels and pixels to vector: copies of an image share a vector, and a
        # file whose fingerprint is known is not opened.
        self._contents, self._vectors = _read_shared(self._shared_file)
        self._images: dict[ImageRef, np.ndarray] = {}
        self._texts: dict[str, np.ndarray] = {}

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.clip.model.parameters()).device

    @torch.inference_mode()
    def encode_images(self, refs: Sequence[ImageRef]) -> np.ndarray:
        """Return the unit vectors of images `(n, E)`, float32; equal pixels are encoded once.

        Without images, the shape is `(0,)`.

        Raises:
            DataError: If an image is missing, cannot be decoded, or has an empty crop.
            WriteError: If the file of shared vectors (see the class) cannot be written.
        """
        # A dict, unlike a set, keeps the order, and with it the batches from run to run.
        new = [ref for ref in dict.fromkeys(refs) if ref not in self._images]
        states = {
            ref: self._reader.ref_fingerprint(ref) if self._shared_file else "" for ref in new
        }
        contents = {
            ref: self._contents[state] for ref, state in states.items() if state in self._contents
        }
        size = IMAGE_BATCH_SIZE_ON_CPU if self.device.type == "cpu" else IMAGE_BATCH_SIZE
        with eval_mode(self.clip.model), self._progress(len(new), "images") as progress:
            # A generator: it reads ahead of the model and fills `contents` on the way.
            unseen = self._read_unseen([ref for ref in new if ref not in contents], contents)
            while batch := list(islice(unseen, size)):
                pixels = self._reader.normalize(batch, self.device)
                vectors = _unit_vectors(_image_features(self.clip.model, pixels))
                self._vectors.update(
                    zip((image.pixel_hash for image in batch), vectors, strict=True)
                )
                progress.update(len(contents) - progress.n)
            # The images since the last batch, all with pixels that have a vector already.
            progress.update(len(contents) - progress.n)
        self._images.update((ref, self._vectors[content]) for ref, content in contents.items())
        # Written only if an image is new, as the whole file is written each time.
        if self._shared_file and not {*states.values()} <= self._contents.keys():
            self._contents.update((states[ref], content) for ref, content in contents.items())
            self._write_shared(self._shared_file)
        return np.array([self._images[ref] for ref in refs], dtype=np.float32)

    def pixel_values(self, refs: Sequence[ImageRef]) -> Tensor:
        """Read images as the model's input, float32 `(images, 3, height, width)`, on its device.

        There has to be at least one image.

        Raises:
            DataError: If an image is missing, cannot be decoded, or has an empty crop.
        """
        images = {image.ref: image for image in self._reader.read(dict.fromkeys(refs))}
        return self._reader.normalize([images[ref] for ref in refs], self.device)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return the unit vectors of texts `(n, E)`, float32; equal texts are encoded once.

        Texts of similar length and with the same beginning are encoded in the same batch where
        possible, which is faster. Without texts, the shape is `(0,)`.
        """
        # Most calls ask only for encoded texts and skip `text_encoder`, which inspects the model.
        if new := [text for text in dict.fromkeys(texts) if text not in self._texts]:
            encoder = text_encoder(self.clip.model)
            with eval_mode(self.clip.model), self._progress(len(new), "texts") as progress:
                for start in range(0, len(new), TOKENIZER_BATCH_SIZE):
                    batch = new[start : start + TOKENIZER_BATCH_SIZE]
                    tokens = tokenize(self.clip.tokenizer, batch)
                    for rows in argsort_by_length_and_prefix(tokens).split(TEXT_BATCH_SIZE):
                        vectors = _unit_vectors(
                            encoder.encode_features(tokens[rows].to(self.device))
                        )
                        self._texts.update(zip((batch[i] for i in rows), vectors, strict=True))
                        progress.update(len(rows))
        return np.array([self._texts[text] for text in texts], dtype=np.float32)

    def _progress(self, n: int, kind: str) -> Progress:
        quiet = not self._shows_progress or n < PROGRESS_THRESHOLD
        return Progress(n, f"{self.clip.name}: {kind}", disable=quiet)

    def _read_unseen(
        self, refs: list[ImageRef], contents: dict[ImageRef, str]
    ) -> Iterator[DecodedImage]:
        """Yield one image for each new pixel hash; add the hashes of all `refs` to `contents`."""
        # Images of one batch get their vectors only later, so those already yielded are noted here.
        seen = set(self._vectors)
        for image in self._reader.read(refs):
            contents[image.ref] = image.pixel_hash
            if image.pixel_hash not in seen:
                seen.add(image.pixel_hash)
                yield image

    def _write_shared(self, path: Path) -> None:
        """Add the new vectors to the shared file."""
        # Read again, because another run may have added vectors meanwhile. There is no lock: if two
        # runs write at the same moment, the vectors of one are lost and computed again.
        contents, vectors = _read_shared(path)
        contents, vectors = contents | self._contents, vectors | self._vectors
        with atomic_file(path) as temporary, temporary.open("wb") as stream:
            np.savez(
                stream,
                states=[*contents],
                shown=[*contents.values()],
                contents=[*vectors],
                vectors=np.stack([*vectors.values()]),
            )


def _read_shared(path: Path | None) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Read pixel hashes by `ref_fingerprint`, and vectors by pixel hash; {} without a file."""
    if path is None or not path.is_file():
        return {}, {}
    with np.load(path) as stored:
        return (
            dict(zip(stored["states"].tolist(), stored["shown"].tolist(), strict=True)),
            dict(zip(stored["contents"].tolist(), stored["vectors"], strict=True)),
        )


def image_vectors_key(clip: Clip) -> str:
    """Return a hash, 32 digits, of what determines the vector of an image in an open_clip model."""
    tower: Any = clip.model.visual
    # The weights do not tell the activation, nor how many heads share a projection.
    modules = [(name, _plain_attributes(module)) for name, module in tower.named_modules()]
    transforms = [_plain_attributes(transform) for transform in clip.preprocess.transforms]
    inputs = VECTORS_VERSION, clip.activation, transforms, modules
    digest = hashlib.sha256(repr(inputs).encode())
    for name, value in tower.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        # As bytes, because NumPy has no bfloat16.
        digest.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def _plain_attributes(module: object) -> tuple[str, dict[str, Any]]:
    """Return the class name of a module or transform, and its public plain attributes."""
    plain = (bool, int, float, str, tuple, list, Enum, type(None))
    return type(module).__qualname__, {
        name: value
        for name, value in vars(module).items()
        # `training` says nothing of the vectors, which are computed in eval mode.
        if isinstance(value, plain) and name != "training" and not name.startswith("_")
    }


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode for a block; its submodules then get the mode it had."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def argsort_by_length_and_prefix(tokens: Tensor) -> Tensor:
    """Return the indices `(B,)` that sort texts by length, then by token ids.

    `tokens` are padded ids `(B, T)`; lengths in one `LENGTH_BUCKET` are equal.
    """
    array = tokens.cpu().numpy()
    # The last column is padding or, in a text that fills the context, the end-of-text token.
    differs = array != array[:, -1:]
    # (B,): the number of columns up to the last one that differs from the padding
    used = array.shape[1] - differs[:, ::-1].argmax(axis=1)
    # Big-endian unsigned numbers compare as bytes like the ids themselves.
    by_content = np.array([row.tobytes() for row in array.astype(">u4")]).argsort(kind="stable")
    # A second, stable sort by length keeps the order by ids within a length.
    length = ((used - 1) // LENGTH_BUCKET)[by_content]
    return torch.from_numpy(by_content[length.argsort(kind="stable")])


def _image_features(model: Any, pixels: Tensor) -> Tensor:
    """Return features `(n, E)` by a model of open_clip or of Hugging Face."""
    if hasattr(model, "visual"):
        return encode_image(model, pixels).features
    features = model.get_image_features(pixel_values=pixels)
    # transformers 4 returns the tensor itself, later versions an output with several fields.
    return getattr(features, "pooler_output", features)


def _unit_vectors(features: Tensor) -> np.ndarray:
    return F.normalize(features.float(), dim=-1).cpu().numpy()
