"""The losses of a batch, as one module from batch to numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.config import Experiment
from cae_lib.models.image_tower import encode_image
from cae_lib.models.text_encoder import encode_text
from cae_lib.training.batch import Batch
from cae_lib.training.distributed import Ranks
from cae_lib.training.losses import contrastive_loss
from cae_lib.training.negclip import negclip_loss
from cae_lib.training.task import CompositionAttributionLoss


class Objective(nn.Module):
    """L_ITC, or NegCLIP's with hard negatives, plus weight * L_attr with an attribution method.

    Args:
        model: the model to train.
        experiment: method, weights and precision.
        ranks: processes that share each batch; the losses are those of the whole batch.
        image_encoder: `(model, pixels)` -> features `(M, E)`, not normalised.
    """

    def __init__(
        self,
        model: nn.Module,
        experiment: Experiment,
        ranks: Ranks | None = None,
        image_encoder: Callable[[nn.Module, Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.ranks = ranks or Ranks()
        self.bf16 = experiment.precision == "bf16"
        self.image_encoder = image_encoder or image_features
        self.task = _task(model, experiment, self.ranks)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses and mean attributions of a batch; "loss" is the one to differentiate."""
        with torch.autocast(batch.pixels.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            images = F.normalize(self.image_encoder(self.model, batch.pixels).float(), dim=-1)
            texts, negatives, extra = self._texts(images, batch)
        scale = self.model.logit_scale.exp()
        all_images, all_texts = self.ranks.gather(images), self.ranks.gather(texts.float())
        if negatives is None:
            contrastive = contrastive_loss(all_images, all_texts, scale)
        else:
            all_negatives = self.ranks.gather(negatives.float(), batch.n_negatives)
            contrastive = negclip_loss(all_images, all_texts, all_negatives, scale)
            extra["n_negatives"] = scale.new_tensor(len(all_negatives))
            extra["n_similar"] = scale.new_tensor(batch.n_similar)
        loss = contrastive + extra["attribution"] if "attribution" in extra else contrastive
        return {"loss": loss, "contrastive": contrastive, **extra, "logit_scale": scale}

    def _texts(
        self, images: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """Normalised features of captions and of false captions, and the attribution loss."""
        if self.task is not None:
            output = self.task(images, batch.tokens, batch.roles, batch.words)
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


def image_features(model: nn.Module, pixels: Tensor) -> Tensor:
    """Features `(M, E)` of pictures `(M, 3, S, S)`, not normalised."""
    return encode_image(model, pixels).features


def _task(
    model: nn.Module, experiment: Experiment, ranks: Ranks
) -> CompositionAttributionLoss | None:
    if experiment.method is None:
        return None
    return CompositionAttributionLoss(
        model,
        method=experiment.method,
        weight=experiment.weight,
        margin=experiment.margin,
        scope=experiment.scope,
        stop_gradient=experiment.stop_gradient,
        complete_captions=experiment.complete_captions,
        all_sum=ranks.sum if ranks.size > 1 else None,
        **dict(experiment.attribution),
    )
