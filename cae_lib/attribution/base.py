"""Base class of the attribution methods, their input and output, and the similarity S."""

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
from cae_lib.words.alignment import CLIP_VOCABULARY_SIZE, word_numbers

ReplacementKind = Literal["mean", "zero", "token"]
ASTERISK_TOKEN_ID = 265  # id of "*</w>" in CLIP's vocabulary, the token of the word "*"


@dataclass(frozen=True)
class Attribution:
    """Scores of the tokens of each caption for its matched image.

    Attributes:
        scores: Score of each token `(B, T)`, float32 or wider. In a causal text tower, tokens after
            the position at which the features are read score 0. A method that scores words gives
            each token the score of its whole word. Where `has_score` is False, the score is 0 and
            has no meaning.
        text_features: `(B, E)`, not normalised. In training mode they are computed with dropout,
            even if the method disables dropout when it computes the scores.
        has_score: `(B, T)` bool, which tokens have a score; None if every requested token has one
            (see `Captions.requested`).
    """

    scores: Tensor
    text_features: Tensor
    has_score: Tensor | None = None

    @property
    def sequence_length(self) -> int:
        """T, the number of scored positions, at most the number of columns of the tokens."""
        return self.scores.shape[1]


class AttributionMethod:
    """Base class of attribution methods.

    A subclass implements `score`. It is a frozen dataclass, whose fields are the parameters of the
    method. The constructor raises ConfigError if a parameter has the wrong type or value.

    Attributes:
        scores_words: Whether each token has the score of its whole word; if False, each token has a
            score of its own.
        differentiates: Whether `score` takes derivatives of the similarity. If True, `attribute`
            enables gradients while `score` runs, even if the caller has disabled them. If False,
            `attribute` enables them with `create_graph`, and disables them without it.
        positive_parameters: Names of the parameters that must be at least 1. A parameter whose type
            admits None may also be None.
    """

    scores_words: ClassVar[bool] = False
    differentiates: ClassVar[bool] = True
    positive_parameters: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        for name in self.positive_parameters:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}: expected 1 or more.")

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
        """Check a batch of captions and score every token; see `Captions` for the tensors.

        Args:
            model: A model that `text_encoder` accepts, or a `TextEncoder`.
            tokens: Token ids of B captions in C columns `(B, C)`, on the model's device.
            image_features: Features of the matched images `(B, E)`, not necessarily normalised.
            create_graph: Whether the result can be differentiated; if False, it is detached.
            words: Word number of each token `(B, C)`; None derives them from CLIP's tokens.
            requested: Bool `(B, C)`, the tokens whose scores are needed; None stands for all.
            roles: Role of each token's word `(B, C)`.
            arguments: Arguments of each token's word `(B, C, 2)`.
            swaps: Up to W possible swaps of each caption `(B, W, 5, 2)`.

        Raises:
            ConfigError: If the model is unknown or does not allow the method, a tensor is on
                another device, or the method needs roles or words that are missing.
            DataError: If a tensor has the wrong shape, type or values, such as words or roles that
                do not belong to the tokens, or if a caption has no end-of-text token.
        """
        encoder = text_encoder(model)
        captions = Captions(
            encoder, tokens, image_features, create_graph, words, requested, roles, arguments, swaps
        )
        return self.attribute(captions.validate())

    def attribute(self, captions: Captions) -> Attribution:
        """Score captions that `Captions.validate` has returned.

        The result is detached unless `captions.create_graph` is set.

        Raises:
            ConfigError: If the model does not allow the method, or the method needs roles or words
                that are missing.
            DataError: If image features and text features differ in shape, or a caption has no
                end-of-text token.
        """
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
        """Score every token of each caption; subclasses implement this method.

        Call `attribute` instead: it enables gradients if the method needs them, and detaches the
        result unless `captions.create_graph` is set.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Captions:
    """Captions to score, each with the features of its matched image.

    All tensors are on one device. `words`, `roles`, `arguments` and `swaps` have any integer type.

    Attributes:
        encoder: The model's text encoder.
        tokens: Token ids of B captions in C columns `(B, C)`, on the model's device.
        image_features: `(B, E)`, not necessarily normalised; row i belongs to caption i.
        create_graph: If True, scores and text features can be differentiated with respect to the
            model's parameters, and scores also with respect to the image features, as far as the
            method's formula depends on them. If False, scores and text features are detached.
        words: Word number of each token `(B, C)`, counted from 1 in each caption; 0 stands for no
            word. None derives the numbers from tokens of CLIP's vocabulary.
        requested: `(B, C)` bool, the tokens whose scores are needed; other tokens may score 0. None
            stands for all tokens.
        roles: Role of each token's word `(B, C)`: 0 other, 1 object, 2 attribute, 3 relation.
        arguments: Numbers of the words that each token's word relates or describes `(B, C, 2)`; see
            `Alignment`.
        swaps: Token positions of up to W possible swaps of each caption `(B, W, 5, 2)`; see
            `Alignment`.
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

    def validate(self) -> Captions:
        """Check all tensors and return the captions in the form that `score` expects.

        Tokens become int64, and image features are detached unless `create_graph` is set. Each of
        the two tensors is copied if it was made in inference mode, because autograd cannot save
        such a tensor for the backward pass.

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
        annotations = self.words, self.roles, self.arguments, self.swaps
        check_annotations(self.encoder, tensors["tokens"], *annotations)
        return replace(self, **tensors)

    def word_numbers(self, length: int) -> Tensor:
        """Return the word number of each token in the first `length` columns `(B, length)`.

        Words count from 1 in each caption; 0 stands for no word. The type is that of `words`, or
        int64 if `words` is None.

        Raises:
            ConfigError: If `words` is None and the vocabulary is not CLIP's.
        """
        return resolve_word_numbers(self.words, self.tokens, self.encoder)[:, :length]

    def is_requested(self, caption_rows: Tensor, masks: Tensor) -> Tensor:
        """Return which of V words have a token that `requested` marks, bool `(V,)`.

        Args:
            caption_rows: Row of each word's caption `(V,)`.
            masks: Tokens of each word `(V, T)` bool, as `word_masks` returns them.
        """
        if self.requested is None:
            return torch.ones_like(caption_rows, dtype=torch.bool)
        return (masks & self.requested[caption_rows, : masks.shape[1]]).any(dim=1)

    def embeddings(self) -> Tensor:
        """Return token embeddings `(B, T, D)` that require a gradient, even of a frozen model.

        T is the number of columns that affect the features; see `TextEncoder.n_used_columns`.
        """
        embeddings = self.encoder.embed(self.tokens)
        return embeddings if embeddings.requires_grad else embeddings.requires_grad_()

    def similarity(
        self, text_features: Tensor, use_temperature: bool = False, train_temperature: bool = False
    ) -> Tensor:
        """Return the similarity S `(B,)` of text features `(B, E)` and the matched images.

        See `matched_similarity` for the arguments.
        """
        return matched_similarity(
            self.encoder.model,
            self.image_features,
            text_features,
            use_temperature,
            train_temperature,
        )

    def score_by_variants(
        self, variants: Tensor, caption_rows: Tensor, scored_tokens: Tensor
    ) -> Attribution:
        """Score tokens by the drop in similarity from a caption to modified variants of it.

        The score of a token is the mean drop over the variants that mark it in `scored_tokens`.
        Where no variant marks a token, its score is 0 and `has_score` is False.

        Args:
            variants: Token ids of V variants, in the C columns of the captions `(V, C)`.
            caption_rows: Row of the caption that each variant is made from `(V,)`.
            scored_tokens: Tokens of this caption that the variant scores `(V, C)` bool.

        Returns:
            Scores of the first T columns `(B, T)`, where T is `TextEncoder.n_used_columns`.
        """
        counts = torch.zeros_like(self.tokens).index_add(0, caption_rows, scored_tokens.long())
        drops, features = self.similarity_drops(
            lambda: self._encode_with(variants, caption_rows), caption_rows, scored_tokens
        )
        length = self.encoder.n_used_columns(self.tokens)
        mean = drops / counts.clamp(min=1)
        return Attribution(mean[:, :length], features, (counts > 0)[:, :length])

    def _encode_with(self, variants: Tensor, caption: Tensor) -> Tensor:
        """Return features `(B + V, E)` of B captions, then V variants.

        They are encoded in an order in which a packed encoder computes shared prefixes once.
        """
        columns = self.tokens.shape[1]
        first_change = (variants != self.tokens[caption]).int().argmax(dim=1)
        # Each caption precedes its variants, those with the latest first change in front: each
        # variant then shares all tokens before its first change with the row before it.
        rank = torch.cat([first_change.new_zeros(len(self.tokens)), columns - first_change])
        rows = torch.cat([torch.arange(len(self.tokens), device=caption.device), caption])
        order = (rows * (columns + 1) + rank).argsort()
        texts = torch.cat([self.tokens, variants])[order]
        return self.encoder.encode_features(texts)[order.argsort()]

    def similarity_drops(
        self,
        encode: Callable[[], Tensor],
        caption_rows: Tensor,
        scored_tokens: Tensor,
        use_temperature: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Compute how much the similarity drops from captions to variants, and sum it by token.

        The drop of a variant is the similarity of its caption minus its own, with the same image.
        Dropout is disabled for this comparison: dropout masks differ from row to row, and would
        change the similarity more than a word does. The returned features are computed with dropout
        if the model is in training mode.

        Args:
            encode: Function that returns features `(B + V, E)` of the B captions, then of the V
                variants.
            caption_rows: Row of the caption that each variant is made from `(V,)`.
            scored_tokens: Tokens that receive the drop of each variant `(V, T)` bool.
            use_temperature: Multiply the similarity by 1/tau; see `matched_similarity`.

        Returns:
            Sum of the drops that each token receives `(B, T)`, and the features of the captions
            `(B, E)`.
        """
        with self.encoder.dropout_disabled() as has_dropout:
            features = encode()
        images = torch.cat([self.image_features, self.image_features[caption_rows]])
        similarity = matched_similarity(self.encoder.model, images, features, use_temperature)
        of_captions, of_variants = similarity.tensor_split([len(self.tokens)])
        drop = (of_captions[caption_rows] - of_variants).unsqueeze(1) * scored_tokens
        sums = drop.new_zeros(len(self.tokens), scored_tokens.shape[1]).index_add(
            0, caption_rows, drop
        )
        if has_dropout:
            return sums, self.encoder.encode_features(self.tokens)
        return sums, features[: len(self.tokens)]


def get_method(method: str | AttributionMethod, **parameters: Any) -> AttributionMethod:
    """Return the attribution method of a given name; a method object is returned unchanged.

    Args:
        method: A name in `cae_lib.methods.METHODS`, or an `AttributionMethod` object.
        **parameters: Parameters of the named method, which are the fields of its class.

    Raises:
        ConfigError: If the name or a parameter is unknown, if a value is not allowed, if parameters
            are given together with an object, or if `method` is neither a name nor an
            `AttributionMethod` object.
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
    """Enable gradients in a context, even within `torch.no_grad` or `torch.inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def resolve_word_numbers(words: Tensor | None, tokens: Tensor, encoder: TextEncoder) -> Tensor:
    """Return `words`; if they are None, derive them from tokens of CLIP's vocabulary.

    Args:
        words: Word number of each token `(B, C)`, 0 for no word; or None.
        tokens: Token ids `(B, C)`.
        encoder: Text encoder that the tokens are meant for.

    Raises:
        ConfigError: If `words` is None and the vocabulary is not CLIP's.
    """
    return word_numbers(tokens, encoder.vocabulary_size) if words is None else words


def word_masks(words: Tensor) -> tuple[Tensor, Tensor]:
    """Convert the word numbers of tokens to one mask for each word.

    Args:
        words: Word number of each token `(B, T)`, 0 for no word.

    Returns:
        For each of V words, in the order of the captions: the row of its caption `(V,)`, and which
        tokens of this caption belong to the word `(V, T)` bool.
    """
    numbers = torch.arange(int(words.max()) + 1, device=words.device)
    masks = words.unsqueeze(1) == numbers[1:, None]  # (B, W, T)
    caption, number = masks.any(dim=2).nonzero(as_tuple=True)
    return caption, masks[caption, number]


def matched_similarity(
    model: nn.Module,
    image_features: Tensor,
    text_features: Tensor,
    use_temperature: bool = False,
    train_temperature: bool = False,
) -> Tensor:
    """Return the similarity S(I, T) of matched pairs `(B,)`, float32 or wider.

    S is the cosine of the features of image I and caption T. It is multiplied by the inverse
    temperature 1/tau if `use_temperature` is set.

    Args:
        model: Model whose attribute `logit_scale` is log(1/tau); tau is 1 without this attribute.
        image_features: `(B, E)`, not necessarily normalised; row i belongs to caption i.
        text_features: `(B, E)`, not necessarily normalised.
        use_temperature: Multiply the cosine by 1/tau.
        train_temperature: Let gradients flow into `logit_scale`; without effect unless
            `use_temperature` is set.

    Raises:
        DataError: If the features differ in shape.
    """
    _check_width(image_features, text_features)
    with torch.autocast(text_features.device.type, enabled=False):
        wide = torch.promote_types(text_features.dtype, torch.float32)
        images = F.normalize(image_features.to(wide), dim=-1)
        texts = F.normalize(text_features.to(wide), dim=-1)
        similarity = (images * texts).sum(dim=-1)
        scale = getattr(model, "logit_scale", None)
        if not use_temperature or scale is None:
            return similarity
        return similarity * (scale if train_temperature else scale.detach()).exp()


def _check_width(image_features: Tensor, text_features: Tensor) -> None:
    if image_features.shape != text_features.shape:
        raise DataError(
            f"image features {tuple(image_features.shape)} do not fit text features "
            f"{tuple(text_features.shape)}: expected those of one model."
        )


def mask_embedding(encoder: TextEncoder, replacement: ReplacementKind = "mean") -> Tensor:
    """Return the embedding `(D,)` that replaces a masked token, detached.

    Args:
        encoder: Encoder with the token embeddings.
        replacement: "mean" for the current mean of all token embeddings, "zero" for a vector of
            zeros, or "token" for the embedding of CLIP's token "*".

    Raises:
        ConfigError: If `replacement` is unknown, or is "token" and the vocabulary is not CLIP's.
    """
    check_type("replacement", replacement, ReplacementKind)
    if replacement == "mean":
        return encoder.embedding_table.mean(dim=0)
    if replacement == "token":
        return encoder.embedding_table[asterisk_token_id(encoder)]
    return torch.zeros_like(encoder.embedding_table[0])


def asterisk_token_id(encoder: TextEncoder) -> int:
    """Return the id of the token of the word "*" in CLIP's vocabulary.

    Raises:
        ConfigError: If the encoder has another vocabulary.
    """
    if encoder.vocabulary_size != CLIP_VOCABULARY_SIZE:
        raise ConfigError(
            f"the model has {encoder.vocabulary_size} tokens, not CLIP's, so its '*' is not known: "
            "mask by 'mean' or 'zero', or in perturbation by 'random'."
        )
    return ASTERISK_TOKEN_ID
