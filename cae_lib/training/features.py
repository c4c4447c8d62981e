"""Features of all training pictures, computed once where a locked tower sees each always alike."""

from __future__ import annotations

from contextlib import closing, nullcontext

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cae_lib.config import paths
from cae_lib.data.images import Pictures
from cae_lib.errors import DataError
from cae_lib.models.clip import Clip
from cae_lib.runtime import Progress, training_hash, whole_file
from cae_lib.training.distributed import Ranks
from cae_lib.training.execution import ImageEncoder, feed
from cae_lib.training.state import content_hash, pictures_hash

PICTURES = 256
"""Pictures that are encoded at once."""


class Features(Pictures):
    """Features `(N, E)` of pictures, or of a trunk `(N, C, h, w)`, given out in their place."""

    affine = None

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def crops(
        self, index: Tensor, generator: torch.Generator | None = None, part: Tensor | None = None
    ) -> Tensor:
        """Features of the rows `index` (B,), or of those of its places that are in `part`."""
        return self.values[index if part is None else index[part]]


def picture_features(
    clip: Clip, locked: nn.Module, images: Pictures, encoder: ImageEncoder, precision: str,
    ranks: Ranks, workers: int, log: bool,
) -> Features:
    """Features of all pictures as evaluation crops them, not normalised, in the type they have.

    They are kept under `data/cache/features`, in a file that is named by a hash of image tower,
    pictures, precision and code; what lies there may be removed at any time. Each of several
    processes encodes a part of the pictures.

    Args:
        clip: the model.
        locked: the part of its image tower that makes the features; put into evaluation mode.
        images: all pictures of the training set.
        encoder: `(model, pixels)` -> features `(n, E)`, or of a trunk `(n, C, h, w)`.
        precision: "fp32" or "bf16" (autocast).
        ranks: the processes of the run.
        workers: processes that decode pictures ahead.
        log: show a progress line.

    Raises:
        DataError: a picture is missing or broken, or the file with their features is.
    """
    device = next(clip.model.parameters()).device
    weights = locked.state_dict()
    kind = [clip.name, clip.activation, precision, training_hash(), pictures_hash(images)]
    name = content_hash([*kind, *weights], weights.values())[:32]
    path = paths().cache / "features" / f"{name}.safetensors"
    if not ranks.any(not path.is_file(), device):
        try:
            return Features(load_file(path)["features"])
        except (SafetensorError, KeyError) as error:
            raise DataError(
                f"{path}: damaged file of image features ({error}). Delete it and run again."
            ) from error
    parts = torch.arange(len(images)).tensor_split(ranks.size)
    own = _Pictures(images, parts[ranks.rank].split(PICTURES))
    locked.eval()
    found = []
    with (
        torch.no_grad(),
        torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"),
        closing(feed(own, 0, len(own.rows), workers, pin=device.type == "cuda")) as batches,
        Progress(len(parts[0]), "image features") if log else nullcontext() as progress,
    ):
        for pixels in batches:
            found.append(encoder(clip.model, pixels.to(device, non_blocking=True)))
            if progress:
                progress.update(len(pixels))
        features = ranks.gather(torch.cat(found), [len(part) for part in parts]).cpu()
    if ranks.is_main:
        with whole_file(path) as temporary:
            save_file({"features": features}, temporary)
    return Features(features)


class _Pictures:
    """Pictures by parts of the rows; see `Steps`."""

    def __init__(self, images: Pictures, rows: tuple[Tensor, ...]) -> None:
        self.images, self.rows = images, rows

    def at(self, step: int) -> Tensor:
        return self.images.batch(self.rows[step])
