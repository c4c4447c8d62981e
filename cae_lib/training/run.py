"""One optimiser step of a training run: batch, losses, gradients, update."""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.config import Experiment
from cae_lib.data.captions import Pairs
from cae_lib.errors import CaeError
from cae_lib.models.clip import Clip
from cae_lib.models.image_tower import encode_image
from cae_lib.models.towers import encode_text
from cae_lib.training.batch import Batch, Batches, ImageSource
from cae_lib.training.losses import contrastive_loss
from cae_lib.training.negclip import negclip_loss
from cae_lib.training.optim import (
    adamw,
    clamp_logit_scale,
    gradient_norm,
    learning_rate,
    set_learning_rate,
)
from cae_lib.training.order import Stream, stream_seed
from cae_lib.training.state import run_identity, save_state
from cae_lib.training.task import CompositionAttributionLoss
from cae_lib.words.alignment import Alignment


class NotFiniteError(CaeError):
    """A loss or gradient that is infinite or not a number; the step was not taken."""


class Run:
    """Model, data and optimiser of one run.

    Raises:
        DataError: pairs, alignment and pictures differ in length, or negatives are not there.
    """

    def __init__(
        self,
        experiment: Experiment,
        clip: Clip,
        pairs: Pairs,
        alignment: Alignment,
        images: ImageSource,
    ) -> None:
        self.experiment = experiment
        self.model = clip.model
        self.batches = Batches(experiment, pairs, alignment, images, clip.tokenizer)
        self.device = next(clip.model.parameters()).device
        self.cuda_devices = [self.device] if self.device.type == "cuda" else []
        self.optimizer = adamw(
            clip.model, experiment.lr, experiment.weight_decay, experiment.betas, experiment.eps
        )
        self.task = _task(clip.model, experiment)
        data = [pairs.image_index, alignment.tokens, alignment.roles]
        texts = [pairs.negatives, pairs.hard_images] if experiment.negatives else []
        self.identity = run_identity(experiment.key(), clip.weights_id, data, texts)

    def step(self, step: int) -> dict[str, float]:
        """Take step `step` (from 0) and return its log line.

        Raises:
            NotFiniteError: names the rows of the batch; weights and optimiser are unchanged.
        """
        started = time.perf_counter()
        settings = self.experiment
        batch = self.batches.at(step)
        torch.manual_seed(stream_seed(settings.seed, Stream.MODEL, step))
        lr = learning_rate(step, settings.steps, settings.lr, settings.warmup)
        set_learning_rate(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        measured = self.forward(batch.to(self.device))
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
        values["samples_per_second"] = len(batch.rows) / (time.perf_counter() - started)
        return values

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses and mean attributions of a batch; "loss" is the one to differentiate."""
        bf16 = self.experiment.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16):
            images = F.normalize(encode_image(self.model, batch.pixels).features.float(), dim=-1)
            texts, negatives, extra = self._texts(images, batch)
        scale = self.model.logit_scale.exp()
        if negatives is None:
            contrastive = contrastive_loss(images, texts.float(), scale)
        else:
            contrastive = negclip_loss(images, texts.float(), negatives.float(), scale)
            extra["n_negatives"] = scale.new_tensor(len(negatives))
            extra["n_similar"] = scale.new_tensor(batch.n_similar)
        loss = contrastive + extra["attribution"] if "attribution" in extra else contrastive
        return {"loss": loss, "contrastive": contrastive, **extra, "logit_scale": scale}

    def save(self, path: Path, step: int) -> None:
        """Write the state after `step` steps to `path`."""
        save_state(path, self.identity, step, self.model, self.optimizer)

    def _texts(
        self, image_features: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """Normalised features of captions and of false captions, and the attribution loss."""
        if self.task is not None:
            output = self.task(image_features, batch.tokens, batch.roles)
            negatives = batch.negatives
            if negatives is not None:
                negatives = (
                    self._encode(negatives) if len(negatives) else output.text_features[:0]
                )
            return output.text_features, negatives, {
                "attribution": output.loss,
                "objects": output.objects,
                "composition": output.composition,
                "n_objects": output.n_objects,
                "n_composition": output.n_composition,
            }
        if batch.negatives is None:
            return self._encode(batch.tokens), None, {}
        features = self._encode(torch.cat([batch.tokens, batch.negatives]))
        texts, negatives = features.tensor_split([len(batch.tokens)])
        return texts, negatives, {}

    def _encode(self, tokens: Tensor) -> Tensor:
        """Normalised features `(n, E)` of captions."""
        return F.normalize(encode_text(self.model, tokens).features.float(), dim=-1)


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
