"""CAE in open_clip's own training loop.

The tokenizer passes the roles of words along with the tokens. The model returns one row of stats
for each caption. Gradient accumulation concatenates these rows, and the loss sums them over the
processes that share a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from open_clip import ClipLoss, CoCa
from torch import Tensor, nn

from cae_lib.errors import ConfigError, DataError
from cae_lib.training.distributed import Ranks
from cae_lib.training.losses import CAELoss, reduce_attribution_loss
from cae_lib.words.alignment import align, check_captions, named_tagger, warn_of_title_case

if TYPE_CHECKING:
    from cae_lib.words.pipeline import Tagger

SHARED_MODULE_ATTRIBUTES = (
    "_parameters",
    "_buffers",
    "_non_persistent_buffers_set",
    "_modules",
    "training",
)
"""Attributes of `nn.Module` that a `CAEModel` takes from the model that it wraps."""

N_CHECKED_CAPTIONS = 100
"""Number of captions after which a `RoleTokenizer` warns if most are in Title Case or capitals."""


class RoleTokenizer:
    """A tokenizer for open_clip's datasets that also returns each token's role and word number.

    Other attributes are those of the wrapped tokenizer. open_clip's datasets pass captions one by
    one, so the warning of `token_roles` about capitals is issued after the first 100 captions.

    Args:
        tokenizer: A tokenizer of `open_clip.get_tokenizer`.
        tagger: Finds the object, attribute and relation words of captions. If None, the paper's
            scene-graph parser is used.

    Raises:
        ConfigError: If `tagger` is None and no English spaCy model is installed.
    """

    def __init__(self, tokenizer: Any, tagger: Tagger | None = None) -> None:
        self.tokenizer, self.tagger = tokenizer, tagger or named_tagger("scene-graph")
        self._first_captions: list[str] = []

    def __call__(self, texts: str | list[str], context_length: int | None = None) -> Tensor:
        """Return tokens, roles and words of n captions, stacked as int64 `(n, 3, context_length)`.

        Roles and words are the numbers that `Alignment` describes.

        Args:
            texts: The captions; a single text stands for a list of one.
            context_length: Number of tokens that captions are padded or cut to. If None, the
                context length of the tokenizer is used.

        Raises:
            ConfigError: If `align` does not accept the tokenizer or the context length.
            DataError: If the captions are not texts, or the tagger does not accept one of them.
        """
        texts = [texts] if isinstance(texts, str) else texts
        check_captions(texts)
        # A single caption says nothing about a dataset, so the first ones are collected.
        if len(self._first_captions) < N_CHECKED_CAPTIONS:
            self._first_captions.extend(texts)
            if len(self._first_captions) >= N_CHECKED_CAPTIONS:
                warn_of_title_case(self._first_captions)
        alignment = align(texts, self.tagger.tag(texts), self.tokenizer, context_length)
        # int64 for all three, and stacked, because open_clip's loaders pass on one tensor a text.
        tensors: Any = (alignment.tokens, alignment.roles.long(), alignment.words)
        return torch.stack(tensors, dim=1)

    def __getattr__(self, name: str) -> Any:
        # While this object is unpickled, `tokenizer` is not set yet: its lookup would recurse.
        if name == "tokenizer":
            raise AttributeError(name)
        return getattr(self.tokenizer, name)


class CAEModel(nn.Module):
    """Wrapper of an open_clip model that also returns `per_caption_stats` in training.

    Parameters, buffers, submodules and keys of `state_dict` have the same names as in the wrapped
    model. Attributes and methods that this class does not define are those of the wrapped model.

    Args:
        model: The model, built with `output_dict=True`.
        settings: Arguments of `CAELoss`. The loss is built from them and stored in the attribute
            named `cae_loss`; `CAEClipLoss` takes this loss as an argument. `all_sum` has no effect,
            because `CAEClipLoss` sums over processes itself.

    Raises:
        ConfigError: If the model is trained with a loss other than the contrastive one (as CoCa and
            SigLIP are), or if `CAELoss` does not accept the model or a setting.
    """

    def __init__(self, model: nn.Module, **settings: Any) -> None:
        super().__init__()
        if isinstance(model, CoCa) or getattr(model, "logit_bias", None) is not None:
            raise ConfigError(
                f"{type(model).__name__} trains by more than the contrastive loss, which "
                "CAEClipLoss would leave out: add CAELoss to your own loss."
            )
        cae_loss = CAELoss(model, **settings)
        # The same containers as the model's, so that parameters and modules get no prefix. The flag
        # `training` is a copy, made once.
        self.__dict__.update({name: model.__dict__[name] for name in SHARED_MODULE_ATTRIBUTES})
        # Set as attributes, both would become submodules, of the model as well.
        self.__dict__.update(model=model, cae_loss=cae_loss)

    def forward(self, image: Tensor | None = None, text: Tensor | None = None) -> Any:
        """Run the model, and in training mode also compute the stats of captions with roles.

        Args:
            image: Normalised images `(B, 3, height, width)`; None to encode only texts.
            text: Output of `RoleTokenizer` `(B, 3, T)`, or tokens alone `(B, T)`; None to encode
                only images.

        Returns:
            In training mode, if the text has roles: a dictionary of "image_features" and
            "text_features" `(B, E)`, both normalised; "logit_scale", the exponential of the
            model's parameter of this name; and "attribution_stats", the K columns of
            `per_caption_stats` `(B, K)`. Otherwise the output of the wrapped model for the images
            and tokens.

        Raises:
            ConfigError: In training mode, if the text has roles and there are no images.
        """
        # Nothing is scored without roles, and open_clip's evaluation expects its model's output.
        if text is None or text.ndim == 2 or not self.training:
            return self.model(image, None if text is None else _tokens(text))
        if image is None:
            raise ConfigError("captions with roles are scored for their images: pass image as well")
        images = self.model.encode_image(image, normalize=True)
        # (B, 3, T) -> tokens, roles and words (B, T) -> features (B, E) and stats (B, K). The batch
        # may have further parts and processes, so `CAEClipLoss` computes the loss.
        texts, stats = self.cae_loss.encode_and_score(images, *text.unbind(1))
        return {
            "image_features": images,
            "text_features": texts,
            "logit_scale": self.model.logit_scale.exp(),
            "attribution_stats": stats,
        }

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        """Return text features `(B, E)`.

        Args:
            text: Tokens `(B, T)`, or the output of `RoleTokenizer` `(B, 3, T)`.
            normalize: Normalise the features.
        """
        return self.model.encode_text(_tokens(text), normalize=normalize)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            # Not `self.model`: in a copy that is not complete yet, its lookup would recurse.
            return getattr(self.__dict__["model"], name)

    def extra_repr(self) -> str:
        """Return the settings of the attribution loss as text, for `repr`."""
        return self.cae_loss.extra_repr()


class CAEClipLoss(ClipLoss):
    """open_clip's contrastive loss plus the attribution loss, which is `weight * L_attr`.

    Under `DistributedDataParallel` the gradient equals that of one process with the whole batch.
    This class corrects two gradients of open_clip's training loop. First, if
    `gather_with_grad` is off, the loop divides the contrastive gradient of the features by the
    number of processes; uncorrected, this division would raise the effective weight of L_attr.
    Second, gradient accumulation multiplies the gradient of the temperature by `accum_freq`.

    Args:
        cae_loss: The attribute `cae_loss` of a `CAEModel`.
        accum_freq: Number of parts of a batch whose gradients are accumulated, which has to equal
            open_clip's `--accum-freq`.
        options: Options of `ClipLoss`.

    Raises:
        ConfigError: If `local_loss` is used without `gather_with_grad` by several processes, so
            that the gradient is not that of the whole batch; or if `use_horovod` is set.
    """

    def __init__(self, cae_loss: CAELoss, *, accum_freq: int = 1, **options: Any) -> None:
        super().__init__(**options)
        if self.use_horovod:
            raise ConfigError(
                "use_horovod: the attribution loss is summed by torch.distributed only."
            )
        if self.world_size > 1 and self.local_loss and not self.gather_with_grad:
            raise ConfigError(
                "local_loss without gather_with_grad leaves out the gradient of the features of "
                "other processes: set --gather-with-grad as well, or leave out --local-loss."
            )
        self.cae_loss, self.accum_freq = cae_loss, accum_freq

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        attribution_stats: Tensor | None = None,
        output_dict: bool = False,
    ) -> dict[str, Tensor] | Tensor:
        """Compute the contrastive loss and the weighted attribution loss.

        The first four arguments are the output of a `CAEModel` in training mode.

        Args:
            image_features: `(B, E)`, normalised.
            text_features: `(B, E)`, normalised.
            logit_scale: Inverse temperature, the exponential of the model's parameter of this name.
            attribution_stats: The K columns of `per_caption_stats` `(B, K)`.
            output_dict: Return the losses separately.

        Returns:
            The sum of the two losses, 0-dimensional. With `output_dict`, a dictionary of both, with
            the keys "contrastive_loss" and "attribution_loss".

        Raises:
            DataError: If there are no stats, because the texts have no roles or the model is not in
                training mode.
        """
        if attribution_stats is None:
            raise DataError(
                "texts without roles: build the training data with RoleTokenizer("
                "tokenizer), and call the model in training mode."
            )
        # Without gather_with_grad, a process has a gradient only for its own features, and
        # `DistributedDataParallel` divides it by the number of processes.
        if self.world_size > 1 and not self.gather_with_grad:
            image_features = _scale_gradient(image_features, self.world_size)
            text_features = _scale_gradient(text_features, self.world_size)
        # The loop computes the loss of the whole batch once for each part. The features of a part
        # have a gradient in only one of these losses, but the temperature has one in all of them.
        logit_scale = _scale_gradient(logit_scale, 1 / self.accum_freq)
        losses: Any = super().forward(image_features, text_features, logit_scale, output_dict=True)
        # The gradient of this sum already is that of the whole batch: no correction is needed.
        all_sum = Ranks(self.rank, self.world_size).sum
        loss = reduce_attribution_loss(attribution_stats, self.cae_loss.config, all_sum).loss
        losses["attribution_loss"] = self.cae_loss.weight * loss
        if output_dict:
            return losses
        return losses["contrastive_loss"] + losses["attribution_loss"]


def _tokens(text: Tensor) -> Tensor:
    return text if text.ndim == 2 else text[:, 0]


def _scale_gradient(values: Tensor, factor: float) -> Tensor:
    # A view, since a hook on the features themselves would scale the gradient of L_attr, too.
    values = values.view_as(values)
    if values.requires_grad:
        values.register_hook(lambda gradient: factor * gradient)
    return values
