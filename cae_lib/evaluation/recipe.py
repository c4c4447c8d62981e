"""A model's preprocessing in two parts: pixels as uint8, then their normalisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from open_clip.transform import MaybeConvertMode, MaybeToTensor
from PIL import Image
from torch import Tensor
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

GEOMETRY = (Resize, CenterCrop, MaybeConvertMode)
"""Steps that are told apart by how they print, and turn RGB pictures into RGB pictures."""


@dataclass(frozen=True)
class Recipe:
    """How pictures become a model's input.

    Attributes:
        name: Equal for equal `cut`; empty where the parts of the preprocessing are not known.
        cut: Resizes and crops a picture in RGB: uint8 `(3, H, W)`. Where the parts are not known it
            is all of the preprocessing: float32.
        mean, std: `(3, 1, 1)` of pixels in [0, 1]; None where the parts are not known.
    """

    name: str
    cut: Callable[[Image.Image], Tensor]
    mean: Tensor | None = None
    std: Tensor | None = None

    @classmethod
    def of(cls, preprocess: Callable[[Image.Image], Tensor]) -> Recipe:
        """Divide a preprocessing of open_clip; another one stays whole."""
        parts = preprocess.transforms if type(preprocess) is Compose else []
        kinds = [type(part) for part in parts]
        if (
            kinds[-2:] not in ([MaybeToTensor, Normalize], [ToTensor, Normalize])
            or any(kind not in GEOMETRY for kind in kinds[:-2])
            or any(getattr(part, "mode", "RGB") != "RGB" for part in parts[:-2])
        ):
            return cls("", preprocess)
        geometry = Compose(parts[:-2])
        mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (parts[-1].mean, parts[-1].std))
        return cls(repr(geometry), lambda picture: _pixels(geometry(picture)), mean, std)

    def normalised(self, pixels: Tensor) -> Tensor:
        """The model's input `(n, 3, H, W)` from what `cut` gave, step by step as torchvision."""
        if self.mean is None or self.std is None:
            return pixels
        mean, std = self.mean.to(pixels.device), self.std.to(pixels.device)
        return pixels.float().div_(255).sub_(mean).div_(std)


def _pixels(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
