"""One optimiser step of a training run: batch, losses, gradients, update."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from open_clip.timm_model import TimmModel
from torch import Tensor, nn

from cae_lib.attribution.base import mask_vector
from cae_lib.config import Experiment
from cae_lib.data.captions import Pairs
from cae_lib.data.images import Photographs, Pictures
from cae_lib.errors import CaeError, ConfigError
from cae_lib.models.clip import Clip
from cae_lib.models.image_tower import encode_image
from cae_lib.models.text_encoder import encode_text, text_encoder
from cae_lib.training.batch import Batch, Batches
from cae_lib.training.distributed import Ranks
from cae_lib.training.execution import Execution, ImageEncoder, feed
from cae_lib.training.features import picture_features
from cae_lib.training.losses import contrastive_loss
from cae_lib.training.optim import adamw, gradient_norm, learning_rate
from cae_lib.training.order import Stream, stream_seed
from cae_lib.training.state import run_identity, save_state
from cae_lib.training.task import CompositionAttributionLoss
from cae_lib.words.alignment import Alignment, placebo_roles

MAX_LOGIT_SCALE = math.log(100)
PARTS = ("objects", "composition", "n_objects", "n_composition")


class NotFiniteError(CaeError):
    """A loss or gradient that is infinite or not a number; the step was not taken."""


class Objective(nn.Module):
    """L_ITC, or NegCLIP's with hard negatives, plus weight * L_attr with an attribution method.

    Args:
        model: the model to train.
        experiment: method, weights, masks and precision.
        ranks: processes that share each batch; the losses are those of the whole batch.
        image_encoder: `(model, pixels)` -> features `(M, E)`, not normalised.

    Raises:
        ConfigError: settings that `CompositionAttributionLoss` refuses, or masks beside a
            perturbation that masks otherwise.
    """

    def __init__(
        self, model: nn.Module, experiment: Experiment, ranks: Ranks, image_encoder: ImageEncoder
    ) -> None:
        super().__init__()
        parameters = dict(experiment.attribution)
        if experiment.masked and parameters.get("replacement", "mean") != "mean":
            raise ConfigError(
                f"masked puts the mean token embedding in the place of words, and the attribution "
                f"{parameters['replacement']!r}: leave out one of the two settings."
            )
        self.model, self.ranks, self.image_encoder = model, ranks, image_encoder
        self.bf16 = experiment.precision == "bf16"
        self.task = None if experiment.method is None else CompositionAttributionLoss(
            model, experiment.method, experiment.weight, experiment.margin, experiment.scope,
            experiment.stop_gradient, experiment.complete_captions,
            all_sum=ranks.sum if ranks.size > 1 else None, hinge=experiment.hinge, **parameters,
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses and mean attributions of a batch; "loss" is the one to differentiate."""
        with torch.autocast(batch.pixels.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            images = F.normalize(self.image_encoder(self.model, batch.pixels).float(), dim=-1)
            texts, negatives, extra = self._texts(images, batch)
            if batch.masked is not None:
                texts = self._with_masks(texts, batch.tokens, batch.masked)
        scale = self.model.logit_scale.exp()
        if negatives is not None:
            negatives = self.ranks.gather(negatives.float(), batch.n_negatives)
            extra["n_negatives"] = scale.new_tensor(len(negatives))
            extra["n_similar"] = scale.new_tensor(batch.n_similar)
        all_images, all_texts = self.ranks.gather(images), self.ranks.gather(texts.float())
        contrastive = contrastive_loss(all_images, all_texts, scale, negatives)
        loss = contrastive + extra["attribution"] if "attribution" in extra else contrastive
        return {"loss": loss, "contrastive": contrastive, **extra, "logit_scale": scale}

    def _texts(
        self, images: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """Normalised features of captions and of false captions, and the attribution loss."""
        negatives = batch.negatives
        if self.task is not None:
            output = self.task(images, batch.tokens, batch.roles, batch.words)
            extra = {"attribution": output.loss} | {name: getattr(output, name) for name in PARTS}
            if negatives is not None:
                none = output.text_features[:0]
                negatives = self._encode(negatives) if len(negatives) else none
            return output.text_features, negatives, extra
        if negatives is None:
            return self._encode(batch.tokens), None, {}
        features = self._encode(torch.cat([batch.tokens, negatives]))
        texts, negatives = features.tensor_split([len(batch.tokens)])
        return texts, negatives, {}

    def _encode(self, tokens: Tensor) -> Tensor:
        """Normalised features `(n, E)` of captions."""
        return F.normalize(encode_text(self.model, tokens).features.float(), dim=-1)

    def _with_masks(self, texts: Tensor, tokens: Tensor, masked: Tensor) -> Tensor:
        """The features `(M, E)` of captions, anew for those with tokens that are `masked (M, T)`.

        A masked token is the mean token embedding, as perturbation's is.
        """
        rows = masked.any(1).nonzero()[:, 0]
        if not len(rows):
            return texts
        encoder, own = text_encoder(self.model), torch.arange(len(rows), device=rows.device)
        tokens = tokens[rows]
        masked = masked[rows, : encoder.columns(tokens)]
        both = encoder.encode_variants(tokens, own, masked, mask_vector(encoder))
        anew = F.normalize(both[len(rows) :].float(), dim=-1)
        return texts.index_copy(0, rows, anew.to(texts.dtype))


class Run:
    """Model, data and optimiser of one run.

    What a locked image tower or trunk makes of pictures that are not cropped is computed once,
    here; see `picture_features`.

    Raises:
        ConfigError: the batch size does not fit the data or the number of processes, or settings
            that do not go together.
        DataError: pairs, alignment and pictures differ in length, or negatives are not there.
    """

    def __init__(
        self, experiment: Experiment, clip: Clip, pairs: Pairs, alignment: Alignment,
        images: Pictures, ranks: Ranks | None = None, execution: Execution | None = None,
        log: bool = False,
    ) -> None:
        self.experiment, self.model, self.steps = experiment, clip.model, experiment.steps
        self.ranks, execution = ranks or Ranks(), execution or Execution()
        self.device = next(clip.model.parameters()).device
        self.cuda_devices = [self.device] if self.device.type == "cuda" else []
        self.identity = run_identity(experiment, clip.weights_id, pairs, alignment, images)
        execution.prepare(clip.model)
        encoder = execution.image_encoder(image_features)
        workers = execution.worker_count(isinstance(images, Photographs), self.ranks.here)
        locked, rest = _locked(clip.model, experiment)
        if locked is not None:
            locked.requires_grad_(False)
            whole = encoder if locked is clip.model.visual else _run_trunk
            if not experiment.augment:
                images = picture_features(
                    clip, locked, images, whole, experiment.precision, self.ranks, workers, log
                )
                encoder, workers = rest, 0
            elif locked is clip.model.visual:
                encoder = torch.no_grad()(encoder)
        self.workers = workers
        alignment = placebo_roles(alignment, experiment.roles, experiment.seed)
        self.batches = Batches(experiment, pairs, alignment, images, clip.tokenizer, self.ranks)
        self.optimizer = adamw(
            clip.model, experiment.lr, experiment.weight_decay, experiment.betas, experiment.eps
        )
        self.objective = self.ranks.wrap(Objective(clip.model, experiment, self.ranks, encoder))

    def feed(self, start: int, end: int) -> Iterator[Batch]:
        """The batches of steps `start` to `end` (exclusive), prepared ahead by `workers`."""
        return feed(self.batches, start, end, self.workers, pin=self.device.type == "cuda")

    def train_mode(self) -> None:
        """Put the model into training mode, but for what is locked of its image tower."""
        self.model.train()
        locked, _ = _locked(self.model, self.experiment)
        if locked is not None:
            locked.eval()

    def step(self, step: int, batch: Batch) -> dict[str, float]:
        """Take step `step` (from 0) on its batch and return its log line.

        Raises:
            NotFiniteError: names the rows of the batch; weights and optimiser are unchanged.
        """
        settings = self.experiment
        torch.manual_seed(stream_seed(settings.seed, Stream.MODEL, step))
        lr = learning_rate(step, settings.steps, settings.lr, settings.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
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
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        return values

    def save(self, path: Path, step: int) -> None:
        """Write the state after `step` steps to `path`, in the main process."""
        if self.ranks.is_main:
            save_state(path, self.identity, step, self.model, self.optimizer)


def image_features(model: nn.Module, pixels: Tensor) -> Tensor:
    """Features `(M, E)` of pictures `(M, 3, S, S)`, not normalised."""
    return encode_image(model, pixels).features


def given_features(model: nn.Module, features: Tensor) -> Tensor:
    """Features `(M, E)` that stand in for pictures."""
    return features


def _run_trunk(model: nn.Module, pixels: Tensor) -> Tensor:
    return model.visual.trunk(pixels)


def _run_head(model: nn.Module, grids: Tensor) -> Tensor:
    return model.visual.head(grids)


def _locked(model: nn.Module, experiment: Experiment) -> tuple[nn.Module | None, ImageEncoder]:
    """The part of the image tower that a run keeps as it is, and what is computed after it.

    Raises:
        ConfigError: the trunk is to be locked, and the tower has none.
    """
    if experiment.lock_image:
        return model.visual, given_features
    if not experiment.lock_trunk:
        return None, given_features
    if not isinstance(model.visual, TimmModel):
        raise ConfigError(
            f"lock_trunk needs an image tower of timm, with trunk and head; {experiment.model} has "
            f"a {type(model.visual).__name__}: use lock_image."
        )
    return model.visual.trunk, _run_head
