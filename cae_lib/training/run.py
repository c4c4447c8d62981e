"""One optimiser step of a training run: batch, losses, gradients, update."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.config import Experiment
from cae_lib.data.captions import Pairs
from cae_lib.errors import CaeError, DataError
from cae_lib.models.clip import Clip
from cae_lib.models.image_tower import encode_image
from cae_lib.models.towers import encode_text
from cae_lib.training.losses import contrastive_loss
from cae_lib.training.optim import (
    adamw,
    clamp_logit_scale,
    gradient_norm,
    learning_rate,
    set_learning_rate,
)
from cae_lib.training.order import BatchOrder, Stream, generator, stream_seed
from cae_lib.training.state import run_identity, save_state
from cae_lib.training.task import CompositionAttributionLoss
from cae_lib.words.alignment import Alignment


class ImageSource(Protocol):
    """What the trainer needs of a store of pictures."""

    def __len__(self) -> int:
        """Number of pictures."""
        ...

    def batch(self, index: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Normalised pictures (B, 3, S, S), randomly cropped with `generator`."""
        ...


class NotFiniteError(CaeError):
    """A loss or gradient that is infinite or not a number; the step was not taken."""


class Run:
    """Model, data and optimiser of one run.

    Raises:
        DataError: pairs, alignment and pictures differ in length.
    """

    def __init__(
        self,
        experiment: Experiment,
        clip: Clip,
        pairs: Pairs,
        alignment: Alignment,
        images: ImageSource,
    ) -> None:
        sizes = (len(pairs.captions), len(alignment.tokens), len(pairs.image_paths), len(images))
        if sizes[0] != sizes[1] or sizes[2] != sizes[3]:
            raise DataError(
                f"{pairs.name}: {sizes[0]} captions with {sizes[1]} token rows, and {sizes[2]} "
                f"picture paths with {sizes[3]} pictures; build all of them from the same pairs."
            )
        self.experiment = experiment
        self.model = clip.model
        self.pairs, self.alignment, self.images = pairs, alignment, images
        self.device = next(clip.model.parameters()).device
        self.cuda_devices = [self.device] if self.device.type == "cuda" else []
        self.order = BatchOrder(sizes[0], experiment.batch_size, experiment.seed)
        self.optimizer = adamw(
            clip.model, experiment.lr, experiment.weight_decay, experiment.betas, experiment.eps
        )
        self.task = _task(clip.model, experiment)
        data = [pairs.image_index, alignment.tokens, alignment.roles]
        self.identity = run_identity(experiment.key(), clip.weights_id, data)

    def step(self, step: int) -> dict[str, float]:
        """Take step `step` (from 0) and return its log line.

        Raises:
            NotFiniteError: names the rows of the batch; weights and optimiser are unchanged.
        """
        started = time.perf_counter()
        settings = self.experiment
        rows = self.order.rows(step)
        torch.manual_seed(stream_seed(settings.seed, Stream.MODEL, step))
        lr = learning_rate(step, settings.steps, settings.lr, settings.warmup)
        set_learning_rate(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        measured = self.forward(rows, step)
        measured["loss"].backward()
        measured["gradient_norm"] = gradient_norm(self.model)
        numbers = torch.stack([value.detach().float() for value in measured.values()]).tolist()
        values = {"step": step + 1, **dict(zip(measured, numbers, strict=True)), "lr": lr}
        if not (math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"])):
            raise NotFiniteError(
                f"step {step + 1} of {settings.name}: loss {values['loss']}, gradient norm "
                f"{values['gradient_norm']}; expected finite numbers. Rows of {self.pairs.name} "
                f"in this batch: {rows.tolist()}. Check these rows, or lower the learning rate."
            )
        self.optimizer.step()
        clamp_logit_scale(self.model.logit_scale)
        values["samples_per_second"] = len(rows) / (time.perf_counter() - started)
        return values

    def forward(self, rows: Tensor, step: int) -> dict[str, Tensor]:
        """Losses and mean attributions of a batch; "loss" is the one to differentiate."""
        crops = generator(self.experiment.seed, Stream.CROP, step)
        pixels = self.images.batch(self.pairs.image_index[rows], crops).to(self.device)
        tokens = self.alignment.tokens[rows].to(self.device)
        bf16 = self.experiment.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16):
            image_features = F.normalize(encode_image(self.model, pixels).features.float(), dim=-1)
            text_features, extra = self._text(image_features, tokens, rows)
        scale = self.model.logit_scale.exp()
        contrastive = contrastive_loss(image_features, text_features.float(), scale)
        loss = contrastive + extra["attribution"] if extra else contrastive
        return {"loss": loss, "contrastive": contrastive, **extra, "logit_scale": scale}

    def save(self, path: Path, step: int) -> None:
        """Write the state after `step` steps to `path`."""
        save_state(path, self.identity, step, self.model, self.optimizer)

    def _text(
        self, image_features: Tensor, tokens: Tensor, rows: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Normalised text features (B, E) and, with a task, its loss and means."""
        if self.task is None:
            return F.normalize(encode_text(self.model, tokens).features.float(), dim=-1), {}
        output = self.task(image_features, tokens, self.alignment.roles[rows].to(self.device))
        return output.text_features, {
            "attribution": output.loss,
            "objects": output.objects,
            "composition": output.composition,
            "n_objects": output.n_objects,
            "n_composition": output.n_composition,
        }


def _task(model: nn.Module, experiment: Experiment) -> CompositionAttributionLoss | None:
    if experiment.method is None:
        return None
    return CompositionAttributionLoss(
        model,
        method=experiment.method,
        weight=experiment.weight,
        margin=experiment.margin,
        scope=experiment.scope,
        stop_gradient=experiment.stop_gradient,
        **dict(experiment.attribution),
    )
