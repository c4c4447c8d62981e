"""What is locked of an image tower, and its features of all pictures, computed once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

import torch
from open_clip.timm_model import TimmModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cae_lib.config import Experiment, paths
from cae_lib.data.images import ImageStore, TrainingImages
from cae_lib.errors import ConfigError, DataError
from cae_lib.keys import TRAINING_VERSION
from cae_lib.models.clip import Clip
from cae_lib.runtime import Progress, whole_file
from cae_lib.training.distributed import Ranks
from cae_lib.training.execution import ImageEncoder, feed, uses_bf16
from cae_lib.training.state import content_hash, pictures_hash

# Images that are encoded at once.
PICTURES = 256


class Features(ImageStore):
    """Features `(N, E)` of pictures, or of a trunk `(N, C, h, w)`, given out in their place."""

    affine = None

    def __init__(self, values: Tensor) -> None:
        self.pixels = values

    def __len__(self) -> int:
        return len(self.pixels)

    def crops(
        self, index: Tensor, generator: torch.Generator | None = None, part: Tensor | None = None
    ) -> Tensor:
        """Features of the rows `index`, or of its places `part`; nothing of them is cut."""
        return self.pixels[index if part is None else index[part]]


def locked_part(
    model: nn.Module, experiment: Experiment, encoder: ImageEncoder
) -> tuple[nn.Module | None, ImageEncoder, ImageEncoder]:
    """The part of the image tower that a run keeps as it is, what it makes of pictures, the rest. A
    ConfigError if a trunk is to be locked that the tower does not have."""
    tower = model.visual
    if experiment.lock_image:
        return tower, encoder, lambda model, features: features
    if not experiment.lock_trunk:
        return None, encoder, encoder
    if not isinstance(tower, TimmModel):
        raise ConfigError(
            f"lock_trunk needs an image tower of timm, with trunk and head; {experiment.model} has "
            f"a {type(tower).__name__}: use lock_image."
        )
    return tower.trunk, lambda _, pixels: tower.trunk(pixels), lambda _, grids: tower.head(grids)


def picture_features(
    clip: Clip,
    locked: nn.Module,
    images: TrainingImages,
    encoder: ImageEncoder,
    precision: str,
    ranks: Ranks,
    workers: int,
    log: bool,
) -> Features:
    """Features that `locked` makes of all pictures as evaluation crops them, by `encoder`.

    They are kept under `data/cache/features`, in a file named by a hash of all that decides them,
    which may be removed at any time. The processes of the run share the work, and `workers` of each
    decode pictures ahead. A DataError if a picture is missing or broken, or the file is.
    """
    device, weights = next(clip.model.parameters()).device, locked.state_dict()
    bf16 = uses_bf16(precision, device)
    kind = [clip.name, repr(locked), clip.activation, bf16, TRAINING_VERSION]
    kind += [images.size, pictures_hash(images)]
    name = content_hash([*kind, *weights], [*images.affine, *weights.values()])[:32]
    path = paths().cache / "features" / f"{name}.safetensors"
    if not ranks.any(not path.is_file(), device):
        try:
            return Features(load_file(path)["features"])
        except (SafetensorError, KeyError) as error:
            raise DataError(
                f"{path}: damaged file of image features ({error}). Delete it and run again."
            ) from error
    shares, made = torch.arange(len(images)).tensor_split(ranks.size), []
    own = shares[ranks.rank].split(PICTURES)
    locked.eval()
    with (
        torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16),
        feed(
            partial(_pictures, images, own), range(len(own)), workers, pin=device.type == "cuda"
        ) as batches,
        Progress(len(shares[0]), "image features") if log else nullcontext() as progress,
    ):
        for pixels in batches:
            made.append(encoder(clip.model, pixels.to(device, non_blocking=True)).detach())
            if progress:
                progress.update(len(pixels))
    features = ranks.gather(torch.cat(made), list(map(len, shares))).cpu().contiguous()
    if ranks.is_main:
        with whole_file(path) as temporary:
            save_file({"features": features}, temporary)
    return Features(features)


def _pictures(images: TrainingImages, rows: Sequence[Tensor], number: int) -> Tensor:
    return images.batch(rows[number])
