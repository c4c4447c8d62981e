"""One optimiser step of a training run: batch, losses, gradients, update."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch

from cae_lib.config import Experiment
from cae_lib.data.captions import Pairs
from cae_lib.data.photographs import Photographs
from cae_lib.errors import CaeError
from cae_lib.models.clip import Clip
from cae_lib.training.batch import Batch, Batches, ImageSource
from cae_lib.training.distributed import Ranks
from cae_lib.training.execution import Execution
from cae_lib.training.feed import feed
from cae_lib.training.objective import Objective, image_features
from cae_lib.training.optim import (
    adamw,
    clamp_logit_scale,
    gradient_norm,
    learning_rate,
    set_learning_rate,
)
from cae_lib.training.order import Stream, stream_seed
from cae_lib.training.state import run_identity, save_state
from cae_lib.words.alignment import Alignment


class NotFiniteError(CaeError):
    """A loss or gradient that is infinite or not a number; the step was not taken."""


class Run:
    """Model, data and optimiser of one run.

    Raises:
        ConfigError: the batch size does not fit the data or the number of processes.
        DataError: pairs, alignment and pictures differ in length, or negatives are not there.
    """

    def __init__(
        self,
        experiment: Experiment,
        clip: Clip,
        pairs: Pairs,
        alignment: Alignment,
        images: ImageSource,
        ranks: Ranks | None = None,
        execution: Execution | None = None,
    ) -> None:
        self.experiment, self.model = experiment, clip.model
        self.ranks, execution = ranks or Ranks(), execution or Execution()
        self.batches = Batches(experiment, pairs, alignment, images, clip.tokenizer, self.ranks)
        self.workers = execution.worker_count(isinstance(images, Photographs), self.ranks.here)
        self.device = next(clip.model.parameters()).device
        self.cuda_devices = [self.device] if self.device.type == "cuda" else []
        execution.prepare(clip.model)
        if experiment.lock_image:
            clip.model.lock_image_tower()
        self.optimizer = adamw(
            clip.model, experiment.lr, experiment.weight_decay, experiment.betas, experiment.eps
        )
        encoder = execution.image_encoder(image_features)
        self.objective = self.ranks.wrap(Objective(clip.model, experiment, self.ranks, encoder))
        self.identity = run_identity(experiment, clip.weights_id, pairs, alignment, images)

    def feed(self, start: int, end: int) -> Iterator[Batch]:
        """The batches of steps `start` to `end` (exclusive), prepared ahead by `workers`."""
        return feed(self.batches, start, end, self.workers, pin=self.device.type == "cuda")

    def step(self, step: int, batch: Batch) -> dict[str, float]:
        """Take step `step` (from 0) on its batch and return its log line.

        Raises:
            NotFiniteError: names the rows of the batch; weights and optimiser are unchanged.
        """
        settings = self.experiment
        torch.manual_seed(stream_seed(settings.seed, Stream.MODEL, step))
        lr = learning_rate(step, settings.steps, settings.lr, settings.warmup)
        set_learning_rate(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        measured = self.objective(batch.to(self.device))
        measured["loss"].backward()
        measured["gradient_norm"] = gradient_norm(self.model)
        numbers = torch.stack([value.detach().float() for value in measured.values()]).tolist()
        values = {"step": step + 1, **dict(zip(measured, numbers, strict=True)), "lr": lr}
        if not (math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"])):
            raise NotFiniteError(
                f"step {step + 1} of {settings.name}: loss {values['loss']}, gradient norm "
                f"{values['gradient_norm']}; expected finite numbers. Rows of "
                f"{self.batches.pairs.name} in this batch: {batch.rows.tolist()}. "
                "Check these rows, or lower the learning rate."
            )
        self.optimizer.step()
        clamp_logit_scale(self.model.logit_scale)
        return values

    def save(self, path: Path, step: int) -> None:
        """Write the state after `step` steps to `path`, in the main process."""
        if self.ranks.is_main:
            save_state(path, self.identity, step, self.model, self.optimizer)
