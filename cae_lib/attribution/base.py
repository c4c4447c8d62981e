"""Base of the attribution methods, and the similarity S that they explain."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.attribution.checks import check_annotations, check_tensors
from cae_lib.errors import ConfigError, DataError, check_fields, check_type
from cae_lib.methods import METHODS
from cae_lib.models.text_encoder import TextEncoder, text_encoder
from cae_lib.words.alignment import CLIP_VOCABULARY_SIZE, word_index

MaskKind = Literal["mean", "zero", "token"]
ASTERISK_TOKEN = 265  # in CLIP's vocabulary


@dataclass(frozen=True)
class Attribution:
    """Scores of the tokens of each caption, for its matched image.

    Attributes:
        scores: a_j `(B, T)`, float32 or wider; a causal tower gives 0 after the end of the text.
            A method that scores words gives each token the score of its whole word. Where
            `has_score` is False, the score is 0 and means nothing.
        text_features: `(B, E)`, not normalised, from the forward pass that gave the scores.
        has_score: `(B, T)` bool, which tokens have a score; None if all requested tokens do.
    """

    scores: Tensor
    text_features: Tensor
    has_score: Tensor | None = None

    @property
    def length(self) -> int:
        """T, the number of positions scored; at most the number of columns of the tokens."""
        return self.scores.shape[1]


class AttributionMethod:
    """Base class of attribution methods, which are frozen dataclasses of their parameters.

    A subclass implements `score`.

    Attributes:
        scores_words: Whether each token has the score of its whole word instead of a share of it.
        differentiates: Whether `score` takes derivatives of S and so always needs a graph.
        positive_parameters: Names of parameters that must be at least 1, or None for no limit.
    """

    scores_words: ClassVar[bool] = False
    differentiates: ClassVar[bool] = True
    positive_parameters: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        for name in self.positive_parameters:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}: expected 1 or more, or None for all.")

    def __call__(
        self,
        model: nn.Module | TextEncoder,
        tokens: Tensor,
        image_features: Tensor,
        *,
        create_graph: bool = False,
        words: Tensor | None = None,
        requested: Tensor | None = None,
        roles: Tensor | None = None,
        arguments: Tensor | None = None,
        swaps: Tensor | None = None,
    ) -> Attribution:
        """Score every token of each caption.

        The model is one that `text_encoder` knows, or an encoder. The other arguments are the
        fields of `Captions`.

        Raises:
            ConfigError: The model is unknown, or the tensors are on another device.
            DataError: A tensor has another shape or type; words, roles or arguments are not those
                of the tokens; or a caption has no end.
        """
        encoder = text_encoder(model)
        captions = Captions(
            encoder, tokens, image_features, create_graph, words, requested, roles, arguments, swaps
        )
        return self.attribute(captions.checked())

    def attribute(self, captions: Captions) -> Attribution:
        """Score captions that have been checked; see `__call__`."""
        graph = captions.create_graph
        with enable_gradients() if self.differentiates else torch.set_grad_enabled(graph):
            attribution = self.score(captions)
        _check_width(captions.image_features, attribution.text_features)
        if graph:
            return attribution
        return replace(
            attribution,
            scores=attribution.scores.detach(),
            text_features=attribution.text_features.detach(),
        )

    def score(self, captions: Captions) -> Attribution:
        """Score every token of each caption."""
        raise NotImplementedError


@dataclass(frozen=True)
class Captions:
    """Captions to score, with the images that they are matched with.

    Attributes:
        encoder: The model's text encoder.
        tokens: Ids `(B, C)`, on the model's device.
        image_features: `(B, E)`, of any length; row i belongs to caption i.
        create_graph: Make scores and features differentiable in the parameters, and scores in the
            image features; otherwise all are constants.
        words: Number of each token's word `(B, C)`, 0 for none; None: by CLIP's tokens.
        requested: `(B, C)` bool, tokens whose scores are used; others may be 0. None: all.
        roles: `(B, C)`, 0 other, 1 object, 2 attribute, 3 relation.
        arguments: `(B, C, 2)`, words that a token's word is said of, see `Alignment`.
        swaps: `(B, W, 5, 2)`, what can be swapped in each caption, see `Alignment`.
    """

    encoder: TextEncoder
    tokens: Tensor
    image_features: Tensor
    create_graph: bool = False
    words: Tensor | None = None
    requested: Tensor | None = None
    roles: Tensor | None = None
    arguments: Tensor | None = None
    swaps: Tensor | None = None

    def checked(self) -> Captions:
        """Check all tensors, and return the captions as methods use them.

        Tokens become int64, and image features are detached unless `create_graph`. Either of them
        is copied if it was made in inference mode, since autograd cannot save such a tensor.

        Raises:
            ConfigError: If a tensor is on another device than the model.
            DataError: If a tensor has the wrong type, shape or values.
        """
        check_tensors(
            self.tokens,
            self.image_features,
            words=self.words,
            requested=self.requested,
            roles=self.roles,
            arguments=self.arguments,
            swaps=self.swaps,
        )
        images = self.image_features if self.create_graph else self.image_features.detach()
        tensors = {"tokens": self.tokens.long(), "image_features": images}
        device = next(self.encoder.model.parameters()).device
        for name, tensor in tensors.items():
            if tensor.device != device:
                raise ConfigError(
                    f"{name} are on {tensor.device}, the model is on {device}: move one of them."
                )
            if tensor.is_inference():
                with torch.inference_mode(False):
                    tensors[name] = tensor.clone()
        check_annotations(self.encoder, tensors["tokens"], self.words, self.roles, self.arguments)
        return replace(self, **tensors)

    def word_numbers(self, length: int) -> Tensor:
        """Return the number of each token's word `(B, length)`, 0 for none."""
        return resolve_words(self.words, self.tokens, self.encoder)[:, :length]

    def is_requested(self, caption: Tensor, masks: Tensor) -> Tensor:
        """Return which of V words have a requested token `(V,)`; see `word_masks`."""
        if self.requested is None:
            return torch.ones_like(caption, dtype=torch.bool)
        return (masks & self.requested[caption, : masks.shape[1]]).any(dim=1)

    def embeddings(self) -> Tensor:
        """Return token embeddings `(B, S, D)` that require a gradient, even of a frozen model."""
        embeddings = self.encoder.embed(self.tokens)
        return embeddings if embeddings.requires_grad else embeddings.requires_grad_()

    def similarity(
        self, features: Tensor, temperature: bool = False, train_temperature: bool = False
    ) -> Tensor:
        """Return S `(B,)` of text features `(B, E)` and the images; see `matched_similarity`."""
        return matched_similarity(
            self.encoder.model, self.image_features, features, temperature, train_temperature
        )

    def score_variants(self, variants: Tensor, caption: Tensor, changed: Tensor) -> Attribution:
        """Score each token by the drop of S, averaged over the variants that stand for it.

        Args:
            variants: Ids of the variants `(V, C)`.
            caption: Row of each variant's caption `(V,)`.
            changed: Tokens of the caption that each variant stands for `(V, C)` bool.
        """
        counts = torch.zeros_like(self.tokens).index_add(0, caption, changed.long())
        drops, features = self.similarity_drops(
            lambda: self._encode_with(variants, caption), caption, changed
        )
        length = self.encoder.used_columns(self.tokens)
        mean = drops / counts.clamp(min=1)
        return Attribution(mean[:, :length], features, (counts > 0)[:, :length])

    def _encode_with(self, variants: Tensor, caption: Tensor) -> Tensor:
        """Return features `(B + V, E)` of captions and variants, which share prefixes."""
        columns = self.tokens.shape[1]
        first_change = (variants != self.tokens[caption]).int().argmax(dim=1)
        # Each caption is followed by its variants, the latest change first: all share its prefix.
        rank = torch.cat([first_change.new_zeros(len(self.tokens)), columns - first_change])
        rows = torch.cat([torch.arange(len(self.tokens), device=caption.device), caption])
        order = (rows * (columns + 1) + rank).argsort()
        texts = torch.cat([self.tokens, variants])[order]
        return self.encoder.encode_many(texts)[order.argsort()]

    def similarity_drops(
        self,
        encode: Callable[[], Tensor],
        caption: Tensor,
        changed: Tensor,
        temperature: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Compute the drop S(I, T) - S(I, T') of each variant T' and add it to its changed tokens.

        Dropout is disabled for this comparison, because its masks differ from row to row, which
        changes S more than a word does. The returned features are computed with dropout.

        Args:
            encode: Returns features `(B + V, E)` of the captions, then of the variants.
            caption: Row of each variant's caption `(V,)`.
            changed: Tokens that each variant changes `(V, T)` bool.
            temperature: Let S include the temperature.

        Returns:
            Drops summed by token `(B, T)`, and the features of the captions `(B, E)`.
        """
        with self.encoder.dropout_disabled() as has_dropout:
            features = encode()
        images = torch.cat([self.image_features, self.image_features[caption]])
        similarity = matched_similarity(self.encoder.model, images, features, temperature)
        of_captions, of_variants = similarity.tensor_split([len(self.tokens)])
        drop = (of_captions[caption] - of_variants).unsqueeze(1) * changed
        sums = drop.new_zeros(len(self.tokens), changed.shape[1]).index_add(0, caption, drop)
        if has_dropout:
            return sums, self.encoder.encode_many(self.tokens)
        return sums, features[: len(self.tokens)]


def get_method(method: str | AttributionMethod, **parameters: Any) -> AttributionMethod:
    """Return the attribution method with a name; a method object is returned unchanged.

    Args:
        method: A name of `cae_lib.methods.METHODS`, or an `AttributionMethod`.
        **parameters: Fields of the named method.

    Raises:
        ConfigError: The name or a parameter is unknown, a value is not allowed, parameters are
            given for an object, or `method` is a class.
    """
    if isinstance(method, type):
        raise ConfigError(
            f"{method.__name__} is a class: expected the name of a method, or an object of the "
            f"class, {method.__name__}()."
        )
    if not isinstance(method, str):
        if parameters or not isinstance(method, AttributionMethod):
            raise ConfigError(
                f"{type(method).__name__} is not usable as a method here: expected a name with its "
                "parameters, or an AttributionMethod without them."
            )
        return method
    if method not in METHODS:
        names = ", ".join(METHODS)
        raise ConfigError(f"unknown attribution method {method!r}: expected {names}.")
    module = import_module(f"cae_lib.attribution.{method}")
    method_class = getattr(module, METHODS[method].class_name)
    names = [field.name for field in dataclasses.fields(method_class)]
    if unknown := sorted(parameters.keys() - set(names)):
        raise ConfigError(
            f"{method} has no parameter {', '.join(unknown)}; it has {', '.join(names)}."
        )
    return method_class(**parameters)


@contextmanager
def enable_gradients() -> Iterator[None]:
    """Record gradients, even if the caller runs under `no_grad` or `inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def resolve_words(words: Tensor | None, tokens: Tensor, encoder: TextEncoder) -> Tensor:
    """Return `words` `(B, C)`; if they are None, find them from tokens of CLIP's vocabulary."""
    return word_index(tokens, encoder.vocabulary_size) if words is None else words


def word_masks(words: Tensor) -> tuple[Tensor, Tensor]:
    """Turn numbers of words `(B, T)` into one mask for each word.

    Returns:
        The row of each word's caption `(V,)`, and its tokens `(V, T)` bool.
    """
    numbers = torch.arange(int(words.max()) + 1, device=words.device)
    masks = words.unsqueeze(1) == numbers[1:, None]  # (B, W, T)
    caption, number = masks.any(dim=2).nonzero(as_tuple=True)
    return caption, masks[caption, number]


def matched_similarity(
    model: nn.Module,
    image_features: Tensor,
    text_features: Tensor,
    temperature: bool = False,
    train_temperature: bool = False,
) -> Tensor:
    """Return S(I, T) of matched pairs `(B,)`, float32 or wider.

    Args:
        model: Model with the temperature tau, as tau^-1 = exp(logit_scale); 1 without one.
        image_features: `(B, E)`, of any length.
        text_features: `(B, E)`, of any length.
        temperature: Multiply the cosine by tau^-1.
        train_temperature: Let gradients flow into tau.

    Raises:
        DataError: The features differ in shape.
    """
    _check_width(image_features, text_features)
    with torch.autocast(text_features.device.type, enabled=False):
        wide = torch.promote_types(text_features.dtype, torch.float32)
        images = F.normalize(image_features.to(wide), dim=-1)
        texts = F.normalize(text_features.to(wide), dim=-1)
        similarity = (images * texts).sum(dim=-1)
        scale = getattr(model, "logit_scale", None)
        if not temperature or scale is None:
            return similarity
        return similarity * (scale if train_temperature else scale.detach()).exp()


def _check_width(image_features: Tensor, text_features: Tensor) -> None:
    if image_features.shape != text_features.shape:
        raise DataError(
            f"image features {tuple(image_features.shape)} do not fit text features "
            f"{tuple(text_features.shape)}: expected those of one model."
        )


def mask_vector(encoder: TextEncoder, mask: MaskKind = "mean") -> Tensor:
    """Return the embedding `(D,)` that replaces a masked token, as a constant.

    Args:
        encoder: Encoder with the token embeddings.
        mask: "mean" for the current mean of all token embeddings, "zero", or "token" for the
            embedding of CLIP's token "*".
    """
    check_type("mask", mask, MaskKind)
    if mask == "mean":
        return encoder.embedding_table.mean(dim=0)
    if mask == "token":
        return encoder.embedding_table[asterisk_token_id(encoder)]
    return torch.zeros_like(encoder.embedding_table[0])


def asterisk_token_id(encoder: TextEncoder) -> int:
    """Return the id of "*" in CLIP's vocabulary; ConfigError for another vocabulary."""
    if encoder.vocabulary_size != CLIP_VOCABULARY_SIZE:
        raise ConfigError(
            f"the model has {encoder.vocabulary_size} tokens, not CLIP's, so its '*' is not known: "
            "mask by 'mean' or 'zero', or in perturbation by 'random'."
        )
    return ASTERISK_TOKEN
