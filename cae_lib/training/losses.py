"""The losses: the contrastive loss, and CAE's attribution loss as a module for any training loop.

A caption reaches its loss in three steps: `CAELoss` encodes it and scores its tokens by an
attribution method, `per_caption_stats` sums the scores by role, and `reduce_attribution_loss`
compares the roles over the batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.attribution.base import AttributionMethod, Captions, get_method
from cae_lib.attribution.checks import is_integer
from cae_lib.config import AttributionLossConfig
from cae_lib.errors import ConfigError, DataError, check_type
from cae_lib.models.text_encoder import EncoderImplementation, TextEncoder, text_encoder
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION

Function = TypeVar("Function", bound=Callable[..., Any])
LOG_FLOOR = 1e-6
"""The hinge "log" raises smaller mean attributions to this value before it takes logarithms.

A smaller mean has no gradient. Scores of "perturbation" and "binding" may be negative: take another
hinge for them.
"""
# 30 % of the captions of COCO and Flickr8k have no swap ("a dog and a cat"); of 200 batches of 32
# such captions, about one exceeds this share by chance. A warning thus means that most texts are
# not like these captions, but titles or tags, for example.
MAX_SHARE_WITHOUT_SWAP = 0.5
"""Share of captions without a swap above which `CAELoss` warns, in training with `swaps`."""


def contrastive_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor,
    negatives: Tensor | None = None,
) -> Tensor:
    """Compute CLIP's symmetric cross-entropy over a batch.

    This is the mean of two losses: one finds the caption of each image among all captions, the
    other the image of each caption among all images.

    Args:
        image_features: `(M, E)`, normalised; row i belongs to caption i.
        text_features: `(M, E)`, normalised.
        logit_scale: Inverse temperature, the exponential of the model's parameter `logit_scale`.
        negatives: Features of hard negative captions `(K, E)`, normalised, in any order, K >= 0.
            They are additional candidates in the first loss and do not enter the second (NegCLIP,
            Yuksekgonul et al. 2023). None for no hard negatives.

    Returns:
        The loss, a 0-dimensional tensor.

    Raises:
        DataError: If the features do not have these shapes, or if M is 0.
    """
    shape = tuple(image_features.shape)
    negatives_shape = shape if negatives is None else tuple(negatives.shape)
    are_pairs = len(shape) == 2 and shape[0] > 0 and tuple(text_features.shape) == shape
    if not are_pairs or len(negatives_shape) != 2 or negatives_shape[1] != shape[1]:
        raise DataError(
            "expected features of images and of their captions (M, E), M of 1 or more, and of "
            f"negatives (K, E); found images {shape}, captions {tuple(text_features.shape)}"
            f"{'' if negatives is None else f', negatives {negatives_shape}'}."
        )
    # (M + K, E), then logits (M, M + K): a row for each image, a column for each candidate text.
    texts = text_features if negatives is None else torch.cat([text_features, negatives])
    logits = logit_scale * image_features @ texts.T
    # Image i belongs to caption i.
    labels = torch.arange(len(logits), device=logits.device)
    # (M, M): a hard negative has no image, so it gets no row of its own.
    caption_logits = logits[:, : len(labels)].T
    return (F.cross_entropy(logits, labels) + F.cross_entropy(caption_logits, labels)) / 2


@dataclass(frozen=True)
class AttributionLossOutput:
    """The attribution loss and its parts; all tensors but the features are 0-dimensional.

    Words without a score (see `Attribution.has_score`) count as words without a role.

    Attributes:
        loss: L_attr, multiplied by `weight` if `CAELoss` returns it. It is 0 without attribute and
            relation words and, unless the hinge is "margin", also without object words.
        objects: A_obj, the mean attribution of object words, detached; 0 if there are none. With
            scope "caption" it is the mean of the captions' means.
        composition: A_comp, the same for attribute and relation words.
        n_objects: Number of tokens (scope "word": words) that `objects` averages.
        n_composition: Number of tokens (scope "word": words) that `composition` averages.
        text_features: `(B, E)`, normalised, for the contrastive loss; None if not from `CAELoss`.
    """

    loss: Tensor
    objects: Tensor
    composition: Tensor
    n_objects: Tensor
    n_composition: Tensor
    text_features: Tensor | None = None


class CaptionStats(NamedTuple):
    """Sums of token scores by role for each caption `(B,)`, the columns of `per_caption_stats`.

    With scope "word", a word counts once, with the mean score of its tokens that have a role.
    Composition stands for attributes and relations; the hinges of a role are the sum of
    `max(0, margin - score)`.
    """

    object_sum: Tensor
    composition_sum: Tensor
    n_objects: Tensor
    n_composition: Tensor
    # Only with hinge "margin", which averages the two roles separately.
    attribute_hinges: Tensor | None = None
    relation_hinges: Tensor | None = None
    n_attributes: Tensor | None = None
    n_relations: Tensor | None = None


class FeaturesAndStats(NamedTuple):
    """Normalised text features `(B, E)`, and the K columns of `per_caption_stats` `(B, K)`."""

    text_features: Tensor
    stats: Tensor


def _uncompiled(method: Function) -> Function:
    """Let a method run eagerly in compiled code, which cannot take gradients in a forward pass."""
    eager: Any = torch.compiler.disable(method)
    return eager


class CAELoss(nn.Module):
    """CAE's attribution loss, which is `weight * L_attr` (section 3).

    The module returns the features of the captions together with the loss, and encodes the captions
    once for both. It holds an unregistered reference to `model`: the model's weights are not part
    of `parameters()` or `state_dict()`, and `train()` and `eval()` do not change the model's mode.
    Under `torch.no_grad` the numbers have no graph; they are the same for every method that draws
    nothing at random. In code that `torch.compile`
    compiles, the module runs uncompiled. Without autocast, text features have the dtype of the
    model; loss and attributions are always float32 or wider.

    Args:
        model: A model of open_clip or Hugging Face that `text_encoder` accepts, or a `TextEncoder`.
        method: Name of an attribution method, or an `AttributionMethod`.
        weight: λ, 0 or more; the paper does not report its values.
        image_gradient: Let L_attr train the image tower too, since no formula of the paper treats
            the features of images or texts as constant. If False, image features are detached.
        all_sum: Function that sums a tensor, with gradient, over the processes that share a batch,
            such as `Ranks.sum`; the loss is then that of the whole batch. None for a single
            process.
        implementation: "packed", "reference", or "auto"; see `text_encoder`.
        settings: Fields of `AttributionLossConfig`, such as `margin`, and parameters of the named
            method. The method "binding" does not score object words. Its default hinge is therefore
            "margin", and no other hinge is allowed; the setting `margin` must then be above 0.

    Raises:
        ConfigError: If the model, the method or a setting is unknown or not allowed.
    """

    def __init__(
        self,
        model: nn.Module | TextEncoder,
        method: str | AttributionMethod = "attention",
        weight: float = 1.0,
        *,
        image_gradient: bool = True,
        all_sum: Callable[[Tensor], Tensor] | None = None,
        implementation: EncoderImplementation = "auto",
        **settings: Any,
    ) -> None:
        super().__init__()
        # Built here only to refuse unknown models before the first batch.
        text_encoder(model, implementation)
        # In a tuple, so that the model is not registered as a submodule.
        self._model = (model,)
        # `settings` mixes fields of the loss with parameters of the method.
        names = {field.name for field in fields(AttributionLossConfig)} & settings.keys()
        of_loss = {name: settings.pop(name) for name in names}
        self.method = get_method(method, **settings)
        if not self.method.scores_objects:
            # Without A_obj, attributes and relations can only be compared with eps.
            of_loss.setdefault("hinge", "margin")
            if of_loss["hinge"] != "margin":
                raise ConfigError(
                    f"hinge {of_loss['hinge']!r} compares with object words, which "
                    f"{type(self.method).__name__} does not score: expected 'margin'."
                )
        self.config = AttributionLossConfig(**of_loss)
        check_type("image_gradient", image_gradient, bool)
        check_type("weight", weight, float)
        if weight < 0:
            raise ConfigError(f"weight is {weight}: expected 0 or more.")
        if all_sum is not None and not callable(all_sum):
            raise ConfigError(f"all_sum is {all_sum!r}: expected a function such as `Ranks.sum`.")
        self.weight, self.all_sum = weight, all_sum
        self.implementation: EncoderImplementation = implementation
        self.image_gradient = image_gradient

    @property
    def model(self) -> nn.Module | TextEncoder:
        """The model or text encoder that encodes the captions."""
        return self._model[0]

    @_uncompiled
    def forward(
        self,
        image_features: Tensor,
        tokens: Tensor,
        roles: Tensor,
        words: Tensor | None = None,
        arguments: Tensor | None = None,
        swaps: Tensor | None = None,
    ) -> AttributionLossOutput:
        """Score the captions against their images and compute the loss.

        Args:
            image_features: `(B, E)`, normalised or not; row i belongs to caption i.
            tokens: Token ids in C columns `(B, C)`.
            roles: Role of each token's word `(B, C)`, integers such as int8: 0 other, 1 object, 2
                attribute, 3 relation. Tokens that belong to no word have role 0.
            words: For each token, the number of the word that the token belongs to `(B, C)`,
                counted from 1 in each caption; 0 if the token belongs to no word. If None, words
                are found from the tokens where they are needed, which requires CLIP's vocabulary.
                The loss is the same without `words`; they serve to notice rows that are mixed up.
                With CLIP's vocabulary, `words` are refused unless they are those that the tokens
                form, so that a row of another of COCO's captions is noticed in nine of ten cases.
                Roles that are shuffled alone are refused only if they lie on start, end or padding
                tokens (in three of ten cases) or take a relation from the binder of a swap.
            arguments: Used only by the method "binding", and only if `swaps` is None: `(B, C, 2)`,
                see `Alignment`. If None, the positions of object words decide which swaps there
                are; see `swapped_captions`.
            swaps: Used only by the method "binding": up to W swaps of each caption `(B, W, 5, 2)`,
                see `Alignment`. If None, swaps are derived from the roles and `arguments`. Swaps
                that cannot be those of their captions are refused (see `misplaced_swaps`). If too
                many captions have none (`MAX_SHARE_WITHOUT_SWAP`), a warning is issued.

        Returns:
            The loss, multiplied by `weight`, with its parts and the text features.

        Raises:
            DataError: If a tensor has the wrong shape, type or values, or does not belong to these
                captions.
            ConfigError: If a tensor is on another device than the model, or if words are needed and
                cannot be found from the tokens.
        """
        # tokens (B, C) -> a score for each token (B, T) -> its sums by role in each caption (B, K)
        scored = self.encode_and_score(image_features, tokens, roles, words, arguments, swaps)
        # (B, K) -> A_obj and A_comp over all captions -> max(0, A_obj - A_comp + eps), a number
        output = reduce_attribution_loss(scored.stats, self.config, self.all_sum)
        # Scoring has encoded the captions, so the contrastive loss can reuse their features (B, E).
        return replace(output, loss=self.weight * output.loss, text_features=scored.text_features)

    @_uncompiled
    def encode_and_score(
        self,
        image_features: Tensor,
        tokens: Tensor,
        roles: Tensor,
        words: Tensor | None = None,
        arguments: Tensor | None = None,
        swaps: Tensor | None = None,
    ) -> FeaturesAndStats:
        """Return the normalised text features and the `per_caption_stats` of a batch.

        This is for training loops that collect the stats of several parts of a batch. Concatenate
        them, pass them with `config` and `all_sum` to
        `cae_lib.training.losses.reduce_attribution_loss`, and multiply its loss by `weight`, as
        `forward` does. Arguments and errors are those of `forward`.
        """
        if roles is None:
            raise DataError("roles are None: expected those of `token_roles`, a tensor (B, C).")
        captions = Captions(
            # Chosen anew for each batch: hooks or adapters may have been added to the model.
            text_encoder(self.model, self.implementation),
            tokens,
            image_features,
            # Training differentiates the scores, even if they are gradients themselves.
            create_graph=torch.is_grad_enabled(),
            words=words,
            roles=roles,
            arguments=arguments,
            swaps=swaps,
        ).validate()
        # (B, C) bool each: tokens of object words, and tokens of attribute and relation words.
        # `per_caption_stats` decides again which captions are complete, without unscored words.
        is_object, is_composition = role_masks(roles, self.config)
        # Scores depend on image and text; a detached image leaves L_attr to the text tower.
        images = captions.image_features
        images = images if self.image_gradient else images.detach()
        # One score for each token (B, T): how much it contributes to the similarity of its caption
        # and the matched image. Only tokens with a role are requested, since a method such as
        # perturbation encodes the caption once more for each requested word.
        attribution = self.method.attribute(
            replace(captions, image_features=images, requested=is_object | is_composition)
        )
        # T <= C: columns that cannot affect the features, such as padding, have no score.
        length = attribution.sequence_length
        scored_roles = roles[:, :length]
        # A word that the method could not score must not enter a mean as 0: it loses its role.
        if attribution.has_score is not None:
            scored_roles = scored_roles * attribution.has_score
            # Only "binding" reads swaps, and scores no token of a caption without one.
            if swaps is not None and not self.method.scores_objects and torch.is_grad_enabled():
                _warn_of_missing_swaps(attribution.has_score)
        # Scores (B, T) and roles (B, T) -> sums and counts of each caption (B, K), K = 4 or 8. Word
        # numbers are needed only where a word counts once, whatever its number of tokens.
        words = captions.word_numbers(length) if self.config.scope == "word" else None
        stats = per_caption_stats(attribution.scores, scored_roles, self.config, words)
        return FeaturesAndStats(F.normalize(attribution.text_features, dim=-1), stats)

    def extra_repr(self) -> str:
        """Return the settings as text, for `repr`."""
        return (
            f"{self.method}, weight={self.weight}, {self.config}, "
            f"implementation={self.implementation}, "
            f"image_gradient={self.image_gradient}"
        )


def _warn_of_missing_swaps(has_score: Tensor) -> None:
    """Warn if more than `MAX_SHARE_WITHOUT_SWAP` of the captions have no swap."""
    # (B, T): "binding" scores no token of a caption without a swap.
    if (~has_score.any(dim=1)).float().mean() > MAX_SHARE_WITHOUT_SWAP:
        warnings.warn(
            f"More than {MAX_SHARE_WITHOUT_SWAP:.0%} of the captions of a batch have no swap, and "
            "the loss does not act on them: they have no relation with two arguments and no "
            "attributes of two objects.",
            stacklevel=4,
        )


def role_masks(roles: Tensor, config: AttributionLossConfig) -> tuple[Tensor, Tensor]:
    """Return bool masks `(B, T)` of the tokens that enter A_obj, and of those that enter A_comp."""
    # A bool mask would pass for roles 0 and 1: no composition word, and a loss of 0.
    if not is_integer(roles):
        raise DataError(f"roles are of type {roles.dtype}: expected integers, such as int8.")
    is_object, is_composition = roles == OBJECT, (roles == ATTRIBUTE) | (roles == RELATION)
    # A caption that lacks one of the two groups has nothing to compare, so by default it is left
    # out. Hinge "margin" compares with eps instead of object words and uses all captions.
    if config.hinge != "margin" and (config.complete_captions or config.scope == "caption"):
        is_complete = (is_object.any(1) & is_composition.any(1)).unsqueeze(1)
        return is_object & is_complete, is_composition & is_complete
    return is_object, is_composition


def per_caption_stats(
    scores: Tensor, roles: Tensor, config: AttributionLossConfig, words: Tensor | None = None
) -> Tensor:
    """Sum the scores `(B, T)` of each caption by role, as one tensor that processes can exchange.

    The columns are the fields of `CaptionStats`: `(B, 8)` with hinge "margin", otherwise the first
    four `(B, 4)`. `CaptionStats(*stats.T)` names them. Only scope "word" needs `words` `(B, T)`.
    """
    for name, value in (("roles", roles), ("words", words)):
        if value is not None and value.shape != scores.shape:
            raise DataError(
                f"{name} have the shape {tuple(value.shape)}, scores {tuple(scores.shape)}: "
                "expected the same shape (B, T)."
            )
    is_object, is_composition = role_masks(roles, config)
    # (B, T): 1 for a token. With scope "word", 1 / n for each of the n tokens of a word that have a
    # role, so that the word adds their mean score to the sum, and 1 to the count.
    token_weight = torch.ones_like(scores)
    if config.scope == "word":
        if words is None:
            raise ConfigError("scope 'word' needs words (B, T): the word each token belongs to.")
        words = words.long()
        token_weight = 1 / _sum_by_word((is_object | is_composition).to(scores), words).clamp(min=1)
    # The sums and the counts of objects and composition, (B,) each.
    stats = CaptionStats(*_sum_roles(scores, token_weight, (is_object, is_composition)))
    if config.hinge == "margin":
        # A mean of hinges is not the hinge of a mean: the tokens of a word are averaged first.
        if words is not None and config.scope == "word":
            composition_scores = torch.where(is_composition, scores, 0)
            n_tokens = _sum_by_word(is_composition.to(scores), words).clamp(min=1)
            scores = _sum_by_word(composition_scores, words) / n_tokens
        is_attribute, is_relation = roles == ATTRIBUTE, roles == RELATION
        token_hinges = F.relu(config.margin - scores)
        hinges = _sum_roles(token_hinges, token_weight, (is_attribute, is_relation))
        stats = CaptionStats(*stats[:4], *hinges)
    # (B, 4) or (B, 8). Sums, not means, because sums of parts of a batch can be added up.
    return torch.stack([column for column in stats if column is not None], dim=1)


def reduce_attribution_loss(
    stats: Tensor,
    config: AttributionLossConfig,
    all_sum: Callable[[Tensor], Tensor] | None = None,
) -> AttributionLossOutput:
    """Compute the attribution loss, without its weight, from `per_caption_stats` `(B, K)`.

    The stats of several parts of a batch may be concatenated; `config` is the one that they were
    computed with. `all_sum` sums a tensor, with gradient, over the processes that share the batch,
    None for a single process. The output has no `text_features`.
    """
    # (K, B): a row for each field of `CaptionStats`. Contiguous, as collectives of processes ask.
    columns = stats.T.contiguous()
    if config.scope != "caption":
        # (K, 1): the batch is one unit. A_obj and A_comp are means over all its tokens, so the
        # sums of all captions and processes are added up before they are divided.
        columns = columns.sum(1, keepdim=True)
        columns = all_sum(columns) if all_sum else columns
    # U units: (U,) for each field, where U is B with scope "caption" and otherwise 1.
    sums = CaptionStats(*columns)
    # Detached: in one tensor with the sums, the counts have come onto their graph.
    counts = torch.stack([sums.n_objects, sums.n_composition]).detach()
    # A_obj and A_comp (2, U). An empty unit is 0 / 1: even behind the `where` below, 0 / 0 would
    # make the gradient NaN.
    means = torch.stack([sums.object_sum, sums.composition_sum]) / counts.where(counts > 0, 1)
    hinges, is_valid = _compute_hinges(sums, means, counts, config)
    trained = torch.stack([torch.where(is_valid, hinges, 0).sum(), is_valid.sum()])
    # (2, 3), for the log alone: a row for objects and for composition.
    logged = torch.stack([means.detach().sum(1), (counts > 0).sum(1), counts.sum(1)], dim=1)
    # Each caption has a hinge of its own, so processes add up hinges, not scores, in one call.
    if all_sum and config.scope == "caption":
        totals = all_sum(torch.cat([trained, logged.flatten()]))
        trained, logged = totals[:2], totals[2:].detach().view(2, 3)
    hinge_sum, n_hinges = trained[0], trained[1].detach()
    mean_sums, n_units, n_tokens = logged.T
    object_mean, composition_mean = mean_sums / n_units.clamp(min=1)
    # With scope "word", 1 / n summed over the n tokens of a word is 1 only up to rounding.
    n_objects, n_composition = n_tokens.round().long()
    return AttributionLossOutput(
        # The mean over the units, or roles, that have the words: 0, and not NaN, if there is none.
        loss=hinge_sum / n_hinges.clamp(min=1),
        objects=object_mean,
        composition=composition_mean,
        n_objects=n_objects,
        n_composition=n_composition,
    )


def _compute_hinges(
    sums: CaptionStats, means: Tensor, counts: Tensor, config: AttributionLossConfig
) -> tuple[Tensor, Tensor]:
    """Return the hinges whose mean is the loss, and bool of the same shape: which of them count.

    `sums` has fields `(U,)`; `means` holds A_obj and A_comp `(2, U)`, and `counts` their numbers of
    tokens. The result is `(U,)`, or with hinge "margin" `(2, U)`: attributes and relations.
    """
    if config.hinge == "margin":
        summed: Any = (sums.attribute_hinges, sums.relation_hinges)
        numbers: Any = (sums.n_attributes, sums.n_relations)
        n_hinges = torch.stack(numbers).detach()
        return torch.stack(summed) / n_hinges.where(n_hinges > 0, 1), n_hinges > 0
    # Scores may be 0 or below, where the logarithm is not defined.
    objects, composition = means.clamp(min=LOG_FLOOR).log() if config.hinge == "log" else means
    # With `stop_gradient`, the loss raises composition words without lowering object words.
    gap = (objects.detach() if config.stop_gradient else objects) - composition
    # Without words of both groups there is nothing to compare.
    return F.relu(gap + config.margin), (counts > 0).all(0)


def attribution_gap(stats: Tensor) -> Tensor:
    """Compute A_obj - A_comp, without a hinge, from `per_caption_stats` `(B, K)`."""
    # A group without tokens has the mean 0.
    total = CaptionStats(*stats.sum(0))
    object_mean = total.object_sum / total.n_objects.clamp(min=1)
    return object_mean - total.composition_sum / total.n_composition.clamp(min=1)


def attribution_loss(
    scores: Tensor,
    roles: Tensor,
    config: AttributionLossConfig | None = None,
    words: Tensor | None = None,
) -> AttributionLossOutput:
    """Compute the attribution loss, without its weight, of token scores `(B, T)`.

    Without `config` it is the paper's, with margin 0. Only scope "word" needs `words` `(B, T)`.
    """
    config = config or AttributionLossConfig()
    return reduce_attribution_loss(per_caption_stats(scores, roles, config, words), config)


def _sum_roles(scores: Tensor, token_weight: Tensor, masks: tuple[Tensor, ...]) -> list[Tensor]:
    """Return weighted sums of scores `(B,)` of the tokens of each mask, then sums of weights."""
    # `where` and not a product, since tokens outside of a mask may score NaN.
    sums = [torch.where(mask, scores * token_weight, 0).sum(1) for mask in masks]
    return sums + [(token_weight * mask).sum(1) for mask in masks]


def _sum_by_word(values: Tensor, words: Tensor) -> Tensor:
    """Return for each token the sum of the values `(B, T)` of all tokens of its word."""
    # (B, W + 1): column 0 collects the tokens of no word.
    totals = values.new_zeros(len(words), int(words.max()) + 1)
    return totals.scatter_add(1, words, values).gather(1, words)
