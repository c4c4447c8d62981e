"""One training step of each candidate that `step_cost.py` measures."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss
from torch import Tensor
from torch.profiler import record_function

from cae_lib.methods import METHODS
from cae_lib.models.clip import load_clip
from cae_lib.models.image_tower import encode_image
from cae_lib.models.text_encoder import encode_text
from cae_lib.training.losses import (
    AttributionLossConfig,
    CAELoss,
    attribution_loss,
    contrastive_loss,
)
from cae_lib.training.objective import adamw
from speed import naive
from speed.captions import Batch
from speed.timing import PHASE

MODEL = "ViT-B-32"
MARGIN = 10.0
"""Keeps the hinge active, so that the attribution loss has a gradient in every step."""

PLAIN = ("gradcam", "perturbation")
OURS = {"counterfactual": {"samples": 1}, "binding": {"samples": 1, "hinge": "margin"}}
"""Methods that are not the paper's, with the settings of their rows."""


class Trainer:
    """One model and optimiser, and a training step of each candidate."""

    def __init__(self, device: torch.device, seed: int, data: list[Batch]) -> None:
        self.model = load_clip(MODEL, device=device, seed=seed).model.train()
        self.optimizer = adamw(self.model, lr=1e-6)
        self.data = data
        with torch.no_grad():
            self.fixed = F.normalize(encode_text(self.model, data[0].tokens).features, dim=-1)
        self.cae = {name: CAELoss(self.model, name, margin=MARGIN) for name in METHODS}
        self.cae |= {
            name: CAELoss(self.model, name, margin=MARGIN, **settings)
            for name, settings in OURS.items()
        }
        self.cae |= {
            f"reference-{name}": CAELoss(self.model, name, margin=MARGIN, path="reference")
            for name in METHODS
        }
        self.candidates: dict[str, Callable[[Batch], Tensor]] = {
            "open_clip": self.open_clip,
            "clip-ft": self.clip_ft,
            **{name: partial(self.with_cae, name) for name in self.cae},
            **{f"plain-{name}": partial(self.with_plain_cae, name) for name in PLAIN},
            "images": self.images_alone,
            "images-open_clip": self.open_clip_images_alone,
        }

    def step(self, name: str, number: int) -> None:
        """One optimiser step of a candidate on batch `number`."""
        self.optimizer.zero_grad(set_to_none=True)
        with record_function(PHASE + "forward"):
            loss = self.candidates[name](self.data[number])
        with record_function(PHASE + "backward"):
            loss.backward()
        with record_function(PHASE + "optimiser"):
            self.optimizer.step()

    def forget_gradients(self) -> None:
        """Free the gradients, so that each profile starts from the same memory."""
        self.optimizer.zero_grad(set_to_none=True)

    def open_clip(self, batch: Batch) -> Tensor:
        """open_clip as its own training script uses it."""
        return ClipLoss()(*self.model(batch.images, batch.tokens)[:3])

    def clip_ft(self, batch: Batch) -> Tensor:
        """CLIP-FT of `cae_lib`."""
        images = self._images(batch)
        texts = F.normalize(encode_text(self.model, batch.tokens).features, dim=-1)
        return self._contrastive(images, texts)

    def with_cae(self, name: str, batch: Batch) -> Tensor:
        """CAE of `cae_lib`."""
        images = self._images(batch)
        output = self.cae[name](images, batch.tokens, batch.roles)
        return self._contrastive(images, output.text_features) + output.loss

    def with_plain_cae(self, name: str, batch: Batch) -> Tensor:
        """CAE as one writes it first, around open_clip's image tower."""
        images = F.normalize(self.model.encode_image(batch.images), dim=-1)
        features, _, loss = self.plain_loss(name, images, batch)
        return self._contrastive(images, F.normalize(features, dim=-1)) + loss

    def images_alone(self, batch: Batch) -> Tensor:
        """Run what all steps of `cae_lib` share: the image tower against fixed text features."""
        return self._contrastive(self._images(batch), self.fixed)

    def open_clip_images_alone(self, batch: Batch) -> Tensor:
        """Run what the other steps share: open_clip's image tower against fixed text features."""
        images = F.normalize(self.model.encode_image(batch.images), dim=-1)
        return self._contrastive(images, self.fixed)

    def plain_loss(self, name: str, images: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Text features, scores and attribution loss of the naive implementation."""
        if name == "gradcam":
            features, scores = naive.gradcam(self.model, images, batch.tokens, create_graph=True)
        else:
            words = naive.words_of_the_loss(batch.tokens, batch.roles)
            features, scores = naive.perturbation(self.model, images, batch.tokens, words)
        return (
            features,
            scores,
            attribution_loss(scores, batch.roles, AttributionLossConfig(margin=MARGIN)).loss,
        )

    def _images(self, batch: Batch) -> Tensor:
        return F.normalize(encode_image(self.model, batch.images).features, dim=-1)

    def _contrastive(self, images: Tensor, texts: Tensor) -> Tensor:
        return contrastive_loss(images, texts, self.model.logit_scale.exp())
