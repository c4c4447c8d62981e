"""CAE in open_clip's own training loop.

Roles are passed along with the tokens. The model gives the loss one row of stats for each caption;
gradient accumulation and several processes concatenate these rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from open_clip import ClipLoss, CoCa
from torch import Tensor, nn

from cae_lib.errors import ConfigError, DataError
from cae_lib.training.distributed import Ranks
from cae_lib.training.losses import CAELoss, reduce_attribution_loss
from cae_lib.words.alignment import align, check_captions, named_tagger

if TYPE_CHECKING:
    from cae_lib.words.pipeline import Tagger

SHARED_ATTRIBUTES = (
    "_parameters",
    "_buffers",
    "_non_persistent_buffers_set",
    "_modules",
    "training",
)


class RoleTokenizer:
    """A tokenizer for open_clip's datasets that also gives the role of every token.

    Args:
        tokenizer: A tokenizer of `open_clip.get_tokenizer`.
        tagger: Finds the object, attribute and relation words of captions; by default the paper's
            scene-graph parser.
    """

    def __init__(self, tokenizer: Any, tagger: Tagger | None = None) -> None:
        self.tokenizer, self.tagger = tokenizer, tagger or named_tagger("scene-graph")

    def __call__(self, texts: str | list[str], context_length: int | None = None) -> Tensor:
        """Return tokens, roles and words `(n, 3, context_length)` of n captions; see `align`."""
        texts = [texts] if isinstance(texts, str) else texts
        check_captions(texts)
        alignment = align(texts, self.tagger.tag(texts), self.tokenizer, context_length)
        tensors: Any = (alignment.tokens, alignment.roles.long(), alignment.words)
        return torch.stack(tensors, dim=1)

    def __getattr__(self, name: str) -> Any:
        if name == "tokenizer":  # not there yet while being unpickled
            raise AttributeError(name)
        return getattr(self.tokenizer, name)


class CaeModel(nn.Module):
    """An open_clip model that, in training, also returns the attribution stats of its captions.

    Parameters, buffers and submodules are those of the model under their own names, and so are the
    keys of `state_dict`; other attributes and methods are also those of the model.

    Args:
        model: The model, built with `output_dict=True`.
        settings: Settings of `CAELoss`. The loss becomes the attribute `attribution`, an argument
            of `CaeClipLoss`.

    Raises:
        ConfigError: If the model has another loss than the contrastive one (CoCa, SigLIP), or
            `CAELoss` does not accept a setting.
    """

    def __init__(self, model: nn.Module, **settings: Any) -> None:
        super().__init__()
        if isinstance(model, CoCa) or getattr(model, "logit_bias", None) is not None:
            raise ConfigError(
                f"{type(model).__name__} trains by more than the contrastive loss, which "
                "CaeClipLoss would leave out: add CAELoss to your own loss."
            )
        attribution = CAELoss(model, **settings)
        self.__dict__.update({name: model.__dict__[name] for name in SHARED_ATTRIBUTES})
        self.__dict__.update(model=model, attribution=attribution)  # no submodules of this one

    def forward(self, image: Tensor | None = None, text: Tensor | None = None) -> Any:
        """Run the model, in training with the `attribution_stats (B, K)` of the captions.

        Texts are `(B, 3, T)` of `RoleTokenizer`, or tokens `(B, T)`, which have no stats. See
        `per_caption_stats`.
        """
        if text is None or text.ndim == 2 or not self.training:
            return self.model(image, None if text is None else _tokens(text))
        images = self.model.encode_image(image, normalize=True)
        # Compiled code has no gradients within the forward pass.
        encode_and_score: Any = torch.compiler.disable(self.attribution.encode_and_score)
        texts, stats = encode_and_score(images, *text.unbind(1))
        return {
            "image_features": images,
            "text_features": texts,
            "logit_scale": self.model.logit_scale.exp(),
            "attribution_stats": stats,
        }

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        """Return the features `(B, E)` of tokens or of the texts of `RoleTokenizer`."""
        return self.model.encode_text(_tokens(text), normalize=normalize)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["model"], name)

    def extra_repr(self) -> str:
        """Describe the settings of the loss."""
        return self.attribution.extra_repr()


class CaeClipLoss(ClipLoss):
    """open_clip's contrastive loss, and `weight * L_attr` under its own key.

    Under `DistributedDataParallel` the gradient is that of one process with the whole batch. For
    this, two gradients of open_clip's loop are corrected here. Without `gather_with_grad`, the
    gradient of the features is divided by the number of processes, which would multiply the weight
    of L_attr. And gradient accumulation multiplies the gradient of the temperature.

    Args:
        attribution: The `attribution` of a `CaeModel`.
        accum_freq: Number of parts of a batch whose gradients are accumulated.
        options: Options of `ClipLoss`.

    Raises:
        ConfigError: With these options the gradient is not that of the whole batch.
    """

    def __init__(self, attribution: CAELoss, *, accum_freq: int = 1, **options: Any) -> None:
        super().__init__(**options)
        if self.world_size > 1 and self.local_loss and not self.gather_with_grad:
            raise ConfigError(
                "local_loss without gather_with_grad leaves out the gradient of the features of "
                "other processes: set --gather-with-grad as well, or leave out --local-loss."
            )
        self.attribution, self.accum_freq = attribution, accum_freq

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        attribution_stats: Tensor | None = None,
        output_dict: bool = False,
    ) -> dict[str, Tensor] | Tensor:
        """Return `contrastive_loss` and `attribution_loss`, or their sum.

        The arguments are the output of `CaeModel`.

        Raises:
            DataError: There are no stats, because the texts carried no roles.
        """
        if attribution_stats is None:
            raise DataError(
                "texts without roles: build the training data with RoleTokenizer("
                "tokenizer), and call the model in training mode."
            )
        if self.world_size > 1 and not self.gather_with_grad:
            image_features = _scale_gradient(image_features, self.world_size)
            text_features = _scale_gradient(text_features, self.world_size)
        logit_scale = _scale_gradient(logit_scale, 1 / self.accum_freq)
        losses: Any = super().forward(image_features, text_features, logit_scale, output_dict=True)
        all_sum = Ranks(self.rank, self.world_size).sum
        loss = reduce_attribution_loss(attribution_stats, self.attribution.config, all_sum).loss
        losses["attribution_loss"] = self.attribution.weight * loss
        if output_dict:
            return losses
        return losses["contrastive_loss"] + losses["attribution_loss"]


def _tokens(text: Tensor) -> Tensor:
    return text if text.ndim == 2 else text[:, 0]


def _scale_gradient(values: Tensor, factor: float) -> Tensor:
    values = values.view_as(values)
    if values.requires_grad:
        values.register_hook(lambda gradient: factor * gradient)
    return values
