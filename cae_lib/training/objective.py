"""The training loss of a batch, the optimiser, and the learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.config import AttributionLossConfig, Experiment
from cae_lib.errors import ConfigError
from cae_lib.models.packed import find_packing_obstacle
from cae_lib.models.shared import SharedEncoder
from cae_lib.models.text_encoder import text_encoder
from cae_lib.training.batch import Batch
from cae_lib.training.distributed import Ranks
from cae_lib.training.features import ImageEncoder
from cae_lib.training.losses import (
    AttributionLossOutput,
    CAELoss,
    attribution_gap,
    contrastive_loss,
    reduce_attribution_loss,
)

HARD_NEGATIVE_SOURCES = ("given", "exchanged")
"""Values of `Experiment.foils`: those of the training data, or a random swap of each caption."""

MARGIN_RULES = ("fixed", "adaptive")
"""Values of `Experiment.margin_rule`: a constant margin, or one that follows the similarity gap."""

LOGGED_FIELDS = ("objects", "composition", "n_objects", "n_composition")
"""Fields of `AttributionLossOutput` that are written into the training log."""


class Objective(nn.Module):
    """Training loss of a batch: the contrastive loss, plus `weight * L_attr` if the run uses CAE.

    Hard negatives enter as extra negatives of the contrastive loss, as in NegCLIP, or with
    `experiment.foil_hinge` through a margin loss instead. If several processes share a batch, each
    computes the losses of the whole batch.

    Attributes:
        adaptive_margin: Margin of the margin loss in the next step, a 0-dimensional tensor that
            `forward` replaces; None if the margin is fixed.
    """

    def __init__(
        self,
        model: nn.Module,
        experiment: Experiment,
        ranks: Ranks,
        image_encoder: ImageEncoder,
        bf16: bool = False,
    ) -> None:
        super().__init__()
        _check_hard_negatives(experiment)
        _check_further_methods(experiment)
        _check_match_gradient(experiment, ranks)
        self.model: Any = model
        self.ranks, self.image_encoder, self.experiment = ranks, image_encoder, experiment
        device = next(model.parameters()).device
        self.bf16 = bf16
        self.adaptive_margin = None
        # Before the first step there is no gap to follow.
        if experiment.margin_rule == "adaptive":
            self.adaptive_margin = torch.zeros((), device=device)
        # All methods share the settings of the loss; only the first has parameters of its own.
        names = [field.name for field in fields(AttributionLossConfig)]
        shared = {name: getattr(experiment, name) for name in names} | {
            "image_gradient": experiment.image_gradient,
            "all_sum": ranks.sum if ranks.size > 1 else None,
        }
        self.cae_losses: dict[str, CAELoss] = {}
        # Several methods share one encoding of the captions where the packed encoder is exact.
        self.shared_encoder = None
        if experiment.further_methods and find_packing_obstacle(model) is None:
            self.shared_encoder = SharedEncoder(model)
        encoder = self.shared_encoder or model
        if experiment.method is not None:
            self.cae_losses[experiment.method] = CAELoss(
                encoder,
                experiment.method,
                experiment.weight,
                **shared,
                **dict(experiment.attribution),
            )
        for method, weight in experiment.further_methods:
            self.cae_losses[method] = CAELoss(encoder, method, weight, **shared)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the "loss" of the whole batch, and its parts to log, all 0-dimensional.

        "attribution" is the weighted sum of all CAE and margin losses, "logit_scale" the inverse
        temperature, not its logarithm. Each of `further_methods` adds "objects_METHOD" and
        "composition_METHOD". `batch` is this process's share, on the model's device.
        """
        with torch.autocast(
            batch.image_inputs.device.type, dtype=torch.bfloat16, enabled=self.bf16
        ):
            # (M, E). Normalised in float32, since bfloat16 would round the norm itself.
            images = F.normalize(self.image_encoder(self.model, batch.image_inputs).float(), dim=-1)
            texts, negatives, values = self._encode_texts(images, batch)
            # (K, E) each: the image, the caption and the hard negative. The margin loss takes the
            # place of these negatives in the contrastive loss.
            if self.experiment.foil_hinge and negatives is not None:
                margin_loss = self._hard_negative_margin_loss(
                    images[batch.caption_of_negative], texts[batch.caption_of_negative], negatives
                )
                values["attribution"] = values.get("attribution", 0) + margin_loss
                negatives = None
        # From here on outside of autocast, which would compute the logits in bfloat16.
        scale = self.model.logit_scale.exp()
        if negatives is not None:
            # The number of negatives differs between processes, unlike that of captions.
            negatives = self.ranks.gather(negatives.float(), batch.negative_counts)
            values["n_negatives"] = scale.new_tensor(len(negatives))
            values["n_similar"] = scale.new_tensor(batch.n_similar)
        # (M, E) -> all rows of the batch, which are the candidates of each other.
        images, texts = self.ranks.gather(images), self.ranks.gather(texts.float())
        contrastive = contrastive_loss(images, texts, scale, negatives)
        loss = contrastive + values["attribution"] if "attribution" in values else contrastive
        return {"loss": loss, "contrastive": contrastive, **values, "logit_scale": scale}

    def _encode_texts(
        self, images: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """Return normalised features of captions and of hard negatives, and the values of CAE."""
        tokens, negatives = batch.tokens, batch.negatives
        if not self.cae_losses:
            if negatives is None:
                return self._encode(tokens), None, {}
            # (M + K, T): one pass of the text tower for both.
            features = self._encode(torch.cat([tokens, negatives]))
            texts, negatives = features.tensor_split([len(tokens)])
            return texts, negatives, {}
        # The first method also returns the text features that the contrastive loss uses.
        cae_loss, *further_losses = self.cae_losses.values()
        annotations = batch.roles, batch.words, batch.arguments, batch.swaps
        with nullcontext() if self.shared_encoder is None else self.shared_encoder.sharing():
            if self.experiment.match_gradient:
                output = self._matched_placebo(cae_loss, images, batch)
            else:
                output = cae_loss(images, tokens, *annotations)
            outputs = [loss(images, tokens, *annotations) for loss in further_losses]
        values = {"attribution": output.loss} | {
            name: getattr(output, name) for name in LOGGED_FIELDS
        }
        for (method, _), further in zip(self.experiment.further_methods, outputs, strict=True):
            values["attribution"] = values["attribution"] + further.loss
            values |= {
                f"objects_{method}": further.objects,
                f"composition_{method}": further.composition,
            }
        # Never None from `CAELoss`.
        features: Any = output.text_features
        # Normalised again, because `CAELoss` normalises in 16 bits under autocast.
        texts = F.normalize(features.float(), dim=-1)
        # (K, E). A batch may have no hard negatives, which need no pass of the text tower.
        if negatives is not None:
            negatives = self._encode(negatives) if len(negatives) else texts[:0]
        return texts, negatives, values

    def _matched_placebo(
        self, cae_loss: CAELoss, images: Tensor, batch: Batch
    ) -> AttributionLossOutput:
        """Return the loss of shuffled roles with the gradient norm of the parsed roles' loss."""
        # Neither call gets arguments or swaps, which placebos do not have.
        parsed = cae_loss(images, batch.tokens, batch.parsed_roles, batch.words)
        texts, stats = cae_loss.encode_and_score(images, batch.tokens, batch.roles, batch.words)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        # The gap has no hinge, which would often be inactive: once roles are shuffled, A_obj and
        # A_comp are about equal.
        loss = match_gradient_norm(attribution_gap(stats), parsed.loss, parameters)
        # For the means and counts in the log; its loss is replaced.
        output = reduce_attribution_loss(stats, cae_loss.config)
        return replace(output, loss=loss, text_features=texts)

    def _encode(self, tokens: Tensor) -> Tensor:
        features = text_encoder(self.model).encode_features(tokens)
        return F.normalize(features.float(), dim=-1)

    def _hard_negative_margin_loss(
        self, images: Tensor, captions: Tensor, negatives: Tensor
    ) -> Tensor:
        """Return `weight * mean max(0, margin - gap)` over the hard negatives of all processes.

        All features are `(K, E)` and normalised; a row is about one hard negative.
        """
        # (K,): cosine of image and caption, less the cosine of image and hard negative.
        similarity_gap = (images * (captions - negatives)).sum(dim=1)
        margin = self.experiment.margin if self.adaptive_margin is None else self.adaptive_margin
        hinges = F.relu(margin - similarity_gap)
        # The mean is over all processes, of which each has another number of hard negatives.
        total, count = self.ranks.sum(torch.stack([hinges.sum(), hinges.new_tensor(len(hinges))]))
        # The threshold of CE-CLIP (Zhang et al. 2024), but of cosines in place of logits, and one
        # for all kinds of negatives. `count` is the same in all processes, so all sum, or none.
        if self.adaptive_margin is not None and count > 0:
            mean_gap = self.ranks.sum(similarity_gap.detach().sum()) / count.detach()
            self.adaptive_margin = mean_gap.clamp(0, self.experiment.margin)
        # 0 if no process has a hard negative.
        return self.experiment.weight * total / count.clamp(min=1)


def _check_hard_negatives(experiment: Experiment) -> None:
    """Check that the settings of hard negatives are valid together; otherwise raise ConfigError."""
    foils, margin_loss = experiment.foils, experiment.foil_hinge
    if foils not in (None, *HARD_NEGATIVE_SOURCES):
        expected = ", ".join(HARD_NEGATIVE_SOURCES)
        raise ConfigError(f"unknown foils {foils!r}: expected one of {expected}, or none.")
    if experiment.margin_rule not in MARGIN_RULES:
        expected = ", ".join(MARGIN_RULES)
        raise ConfigError(f"margin_rule is {experiment.margin_rule!r}: expected one of {expected}.")
    if experiment.margin_rule == "adaptive" and not margin_loss:
        raise ConfigError("margin_rule 'adaptive' is a setting of foil_hinge, which is off.")
    if foils and experiment.negatives:
        raise ConfigError("foils cannot be combined with negatives, which are NegCLIP's.")
    if experiment.swapped and not (experiment.method == "binding" or foils == "exchanged"):
        raise ConfigError(
            f"swapped is {', '.join(experiment.swapped)}: it selects swaps for the method "
            "'binding' and for foils 'exchanged', and this run uses neither."
        )
    if margin_loss and foils is None:
        raise ConfigError(
            "foil_hinge requires foils; it uses the weight and the margin of the run."
        )
    for name in ("weight", "margin"):
        if margin_loss and not getattr(experiment, name) > 0:
            value = getattr(experiment, name)
            raise ConfigError(f"foil_hinge with {name} {value}: expected one above 0.")


def _check_further_methods(experiment: Experiment) -> None:
    """Check that the methods of a run can be added; otherwise raise ConfigError."""
    methods = [name for name, _ in experiment.further_methods]
    if methods and experiment.method is None:
        raise ConfigError("further_methods are added to a method: set the method of the run, too.")
    if len({experiment.method, *methods}) < 1 + len(methods):
        raise ConfigError(
            f"further_methods are {', '.join(methods)} beside {experiment.method}: expected each "
            "method once."
        )


def _check_match_gradient(experiment: Experiment, ranks: Ranks) -> None:
    """Check that the other settings allow `match_gradient`; otherwise raise ConfigError."""
    if not experiment.match_gradient:
        return
    # `attribution_gap` is the difference of two means over the batch, as in these losses.
    is_paper_loss = experiment.hinge == "difference" and experiment.scope != "caption"
    is_paper_loss = is_paper_loss and not experiment.further_methods
    if experiment.method is None or experiment.roles == "parsed" or not is_paper_loss:
        raise ConfigError(
            "match_gradient scales the loss of a placebo: it requires one method, roles 'permuted' "
            "or 'random', hinge 'difference', and scope 'batch' or 'word'."
        )
    if ranks.size > 1:
        raise ConfigError("match_gradient needs the gradient of a whole batch: use one process.")


def match_gradient_norm(loss: Tensor, reference: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Scale a loss by a constant so that its gradient has the norm of a reference's gradient."""
    device = reference.device.type
    # PyTorch advises against backward passes under autocast.
    with torch.autocast(device, enabled=False):
        actual, target = (_gradient_norm_of(value, parameters) for value in (loss, reference))
    # The norms have no graph, so the factor is a constant; it is 0 for a loss without a gradient.
    return torch.where(actual > 0, target / actual.where(actual > 0, 1), 0) * loss


def _gradient_norm_of(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    # The graph is needed again for the step itself. Some parameters, such as those of the image
    # tower with the method "attention", do not affect the loss.
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return torch.nn.utils.get_total_norm([grad for grad in gradients if grad is not None])


def adamw(
    model: nn.Module,
    lr: float,
    weight_decay: float = 0.2,
    betas: tuple[float, float] = (0.9, 0.98),
    eps: float = 1e-6,
) -> torch.optim.AdamW:
    """Build AdamW over the trainable parameters, with weight decay for matrices only."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # As in open_clip, gains, biases, single vectors and `logit_scale` do not decay.
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # The fused kernel is several times faster for an embedding table of 49,408 tokens, on a CPU as
    # well as on a GPU.
    fused = {parameter.device.type for parameter in trained} <= {"cpu", "cuda"}
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=fused)


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Return the learning rate of a step: linear warm-up to `peak`, then cosine decay towards 0."""
    # `step` counts from 0: step 0 already has a rate above 0, and the last warm-up step has `peak`.
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * (1 + math.cos(math.pi * progress)) / 2


@torch.no_grad()
def gradient_norm(model: nn.Module) -> Tensor:
    """Return the L2 norm of the gradients of all parameters; not finite if any element is not."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)
