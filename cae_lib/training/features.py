"""Features of a locked image tower, computed once for all images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from open_clip.timm_model import TimmModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cae_lib.config import Experiment, paths
from cae_lib.data.images import TrainingImages
from cae_lib.errors import ConfigError, DataError
from cae_lib.models.clip import Clip
from cae_lib.models.image_tower import encode_image
from cae_lib.runtime import Progress, atomic_file
from cae_lib.training.batch import prefetch
from cae_lib.training.distributed import Ranks
from cae_lib.training.inputs import TRAINING_VERSION

BATCH_SIZE = 256
"""Number of images whose features are computed at once."""

ImageEncoder = Callable[[nn.Module, Tensor], Tensor]
"""Computes an image tower or a part of it: takes the model and M inputs, returns M rows."""


@dataclass(frozen=True)
class PrecomputedFeatures:
    """Precomputed features of N images, which replace the images in batches (an `ImageSource`).

    Attributes:
        values: Output of a locked image tower `(N, E)`, not normalised, or of a locked trunk, such
            as feature maps `(N, channels, height, width)`; on the CPU.
    """

    values: Tensor

    @property
    def normalization(self) -> None:
        """None, since features need no normalisation."""
        return None

    def __len__(self) -> int:
        return len(self.values)

    def crops(
        self, index: Tensor, generator: torch.Generator | None = None, subset: Tensor | None = None
    ) -> Tensor:
        """Return rows of `values`; there is nothing to crop, so the generator is not used."""
        return self.values[index if subset is None else index[subset]]


def encode_image_features(model: nn.Module, images: Tensor) -> Tensor:
    """Return the unnormalised features `(M, E)` of M normalised images `(M, 3, height, width)`."""
    return encode_image(model, images).features


class SplitTower(NamedTuple):
    """The image tower of a run, split into a locked and a trained part.

    `encode_rest` turns outputs of `encode_locked` into features. If nothing is locked, `locked` is
    None, and both functions turn images into features.
    """

    locked: nn.Module | None
    encode_locked: ImageEncoder
    encode_rest: ImageEncoder


def split_image_tower(model: nn.Module, experiment: Experiment) -> SplitTower:
    """Split an image tower by the settings `lock_image` and `lock_trunk`; nothing is frozen yet."""
    tower: Any = model.visual
    # The whole tower contains the trunk, so `lock_image` goes first.
    if experiment.lock_image:
        return SplitTower(tower, encode_image_features, lambda model, features: features)
    if not experiment.lock_trunk:
        return SplitTower(None, encode_image_features, encode_image_features)
    if not isinstance(tower, TimmModel):
        raise ConfigError(
            f"lock_trunk needs an image tower of timm, with trunk and head; {experiment.model} has "
            f"a {type(tower).__name__}: use lock_image."
        )
    return SplitTower(
        tower.trunk, lambda _, pixels: tower.trunk(pixels), lambda _, grids: tower.head(grids)
    )


def precompute_features(
    clip: Clip,
    locked: nn.Module,
    images: TrainingImages,
    encode_locked: ImageEncoder,
    bf16: bool,
    ranks: Ranks,
    workers: int,
    show_progress: bool,
) -> PrecomputedFeatures:
    """Return the output of a locked image tower or trunk for all images, computed or stored.

    Images are cropped as in evaluation. The processes of the run share the work, and each gets all
    features. Files in `data/cache/features` may be removed at any time.
    """
    device, weights = next(clip.model.parameters()).device, locked.state_dict()
    # The file is named by all that the features depend on: model, numerics, weights and images.
    kind = [clip.name, repr(locked), clip.activation, bf16, TRAINING_VERSION]
    kind += [images.size, _images_hash(images)]
    name = _content_hash([*kind, *weights], [*images.normalization, *weights.values()])[:32]
    path = paths().cache / "features" / f"{name}.safetensors"
    # All processes load, or all compute: one that lacks the file cannot compute its share alone.
    if not ranks.any(not path.is_file(), device):
        try:
            return PrecomputedFeatures(load_file(path)["features"])
        except (SafetensorError, KeyError) as error:
            raise DataError(
                f"{path}: damaged file of image features ({error}). Delete it and run again."
            ) from error
    # (N / processes,) rows for each process; the first shares may have one row more.
    shares = torch.arange(len(images)).tensor_split(ranks.size)
    batches_of_rows = shares[ranks.rank].split(BATCH_SIZE)
    chunks = []
    # Without dropout, and with the stored statistics of batch normalisation.
    locked.eval()
    with (
        torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16),
        prefetch(
            partial(_load_images, images, batches_of_rows),
            range(len(batches_of_rows)),
            workers,
            pin=device.type == "cuda",
        ) as batches,
        Progress(len(shares[0]), "image features") if show_progress else nullcontext() as progress,
    ):
        for pixels in batches:
            # Detached, so that a chunk does not keep the graph of its batch.
            chunks.append(encode_locked(clip.model, pixels.to(device, non_blocking=True)).detach())
            if progress:
                progress.update(len(pixels))
    features = ranks.gather(torch.cat(chunks), list(map(len, shares))).cpu().contiguous()
    if ranks.is_main:
        with atomic_file(path) as temporary:
            save_file({"features": features}, temporary)
    return PrecomputedFeatures(features)


def _images_hash(images: TrainingImages) -> str:
    """Hash images by their pixels if these are in memory, else by each file's name and size."""
    pixels = getattr(images, "pixels", None)
    if pixels is not None:
        return _content_hash([], [pixels])
    # Neither folder nor content: data may be moved, and files are not read only to be hashed.
    return _content_hash([(path.name, path.stat().st_size) for path in images.paths], [])


def _content_hash(values: list[Any], tensors: Iterable[Tensor]) -> str:
    """Return the SHA-256 of plain JSON values and of tensors (types, shapes, values), in hex."""
    content = hashlib.sha256(json.dumps(values).encode())
    for tensor in tensors:
        # Tensors of other types or shapes may have the same bytes.
        content.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        # Through bytes, since numpy has no bfloat16; flat, since a scalar has no byte view.
        content.update(tensor.contiguous().view(-1).view(torch.uint8).cpu().numpy().data)
    return content.hexdigest()


# Not a lambda in `precompute_features`, because workers that are spawned have to pickle it.
def _load_images(images: TrainingImages, batches_of_rows: Sequence[Tensor], number: int) -> Tensor:
    return images.batch(batches_of_rows[number])
