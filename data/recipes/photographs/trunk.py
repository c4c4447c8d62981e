"""Load and apply the image network of clip-photo, EfficientNet-Lite0 trained on ImageNet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from cae_lib.data.images import open_images
from cae_lib.models.clip import Clip
from cae_lib.models.trunk import TRUNK_PREFIX, trunk_weights
from cae_lib.runtime import Progress

# Images that are encoded at once.
BATCH = 64


def fill_trunk(model: nn.Module) -> None:
    """Put ImageNet's weights into the trunk of clip-photo; see `trunk_weights`."""
    weights = trunk_weights()
    model.visual.trunk.load_state_dict(
        {name.removeprefix(TRUNK_PREFIX): value for name, value in weights.items()}
    )
    # Channels last computes the same numbers faster.
    model.visual.trunk.to(memory_format=torch.channels_last)


@torch.no_grad()
def grids(clip: Clip, paths: Sequence[Path], label: str) -> Iterator[Tensor]:
    """Yield the trunk's output for images `(n, C, 7, 7)`, n images at a time."""
    images, device = open_images(paths, clip.image_size), next(clip.model.parameters()).device
    trunk = clip.model.visual.trunk.eval()
    with Progress(len(paths), label) as progress:
        for rows in torch.arange(len(paths)).split(BATCH):
            yield trunk(images.batch(rows).to(device))
            progress.update(len(rows))


def trunk_features(clip: Clip, paths: Sequence[Path]) -> Tensor:
    """Return unit vectors `(n, C)` of images, the means of the trunk's grids."""
    means = [grid.mean((2, 3)).cpu() for grid in grids(clip, paths, "images")]
    return nn.functional.normalize(torch.cat(means), dim=-1)
