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

    A subclass implements `score` alone: `__call__` checks a batch and calls `attribute`, which
    enables or disables gradients and calls `score`. It is a frozen dataclass, whose fields are the
    parameters of the method. The constructor raises ConfigError if a parameter has the wrong type
    or value.

    Attributes:
        scores_words: Whether each token has the score of its whole word; if False, each token has a
            score of its own.
        scores_objects: Whether object words have a score; if False, `CAELoss` compares attributes
            and relations with its margin instead.
        differentiates: Whether `score` takes derivatives of the similarity. If True, `attribute`
            enables gradients while `score` runs, even if the caller has disabled them. If False,
            `attribute` enables them with `create_graph`, and disables them without it.
        positive_parameters: Names of the parameters that must be at least 1. A parameter whose type
            admits None may also be None.
    """

    scores_words: ClassVar[bool] = False
    scores_objects: ClassVar[bool] = True
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
        # A method that differentiates needs a graph also in evaluation, where the caller has
        # disabled gradients. Another one must not build a graph that nobody uses.
        needs_gradients = self.differentiates or graph
        with enable_gradients() if needs_gradients else torch.set_grad_enabled(False):
            attribution = self.score(captions)
        # Attention never compares the two, and would accept the features of another model.
        _check_same_shape(captions.image_features, attribution.text_features)
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
    """Captions to score, each with the features of its matched image; all tensors on one device.

    `words`, `roles`, `arguments` and `swaps` have any integer type.

    Attributes:
        encoder: The model's text encoder.
        tokens: Token ids of B captions in C columns `(B, C)`.
        image_features: `(B, E)`, not necessarily normalised; row i belongs to caption i.
        create_graph: If True, scores and text features can be differentiated with respect to the
            model's parameters, and scores also with respect to the image features, as far as the
            method's formula depends on them. If False, scores and text features are detached.
        words: Word number of each token `(B, C)`, counted from 1 in each caption; 0 stands for no
            word. None derives the numbers from tokens of CLIP's vocabulary.
        requested: `(B, C)` bool, the tokens whose scores are needed; other tokens may score 0. None
            stands for all tokens.
        roles: Role of each token's word `(B, C)`: 0 other, 1 object, 2 attribute, 3 relation.
        arguments: Words that each token's word relates or describes `(B, C, 2)`; see `Alignment`.
        swaps: Up to W possible swaps of each caption `(B, W, 5, 2)`; see `Alignment`.
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
        """Check all tensors and return the captions in the form that `score` expects."""
        check_tensors(
            self.tokens,
            self.image_features,
            words=self.words,
            requested=self.requested,
            roles=self.roles,
            arguments=self.arguments,
            swaps=self.swaps,
        )
        # If the scores are not trained, no derivative has to reach the image tower.
        images = self.image_features if self.create_graph else self.image_features.detach()
        tensors = {"tokens": self.tokens.long(), "image_features": images}
        device = next(self.encoder.model.parameters()).device
        for name, tensor in tensors.items():
            if tensor.device != device:
                raise ConfigError(
                    f"{name} are on {tensor.device}, the model is on {device}: move one of them."
                )
            # Autograd cannot save a tensor of inference mode for the backward pass; a clone made
            # outside this mode is an ordinary tensor.
            if tensor.is_inference():
                with torch.inference_mode(False):
                    tensors[name] = tensor.clone()
        annotations = self.words, self.roles, self.arguments, self.swaps
        check_annotations(self.encoder, tensors["tokens"], *annotations)
        return replace(self, **tensors)

    def word_numbers(self, length: int) -> Tensor:
        """Return the word number of each token in the first `length` columns `(B, length)`."""
        return resolve_word_numbers(self.words, self.tokens, self.encoder)[:, :length]

    def is_requested(self, caption_rows: Tensor, masks: Tensor) -> Tensor:
        """Return which of V words `(V,)` have a requested token; see `word_masks`."""
        if self.requested is None:
            return torch.ones_like(caption_rows, dtype=torch.bool)
        # (V, T): masks may end before the C columns, because no feature depends on the rest.
        return (masks & self.requested[caption_rows, : masks.shape[1]]).any(dim=1)

    def embeddings(self) -> Tensor:
        """Return token embeddings `(B, T, D)` that require a gradient; T is `n_used_columns`."""
        embeddings = self.encoder.embed(self.tokens)
        # The embeddings of a frozen model are a leaf, which can be told to require a gradient.
        return embeddings if embeddings.requires_grad else embeddings.requires_grad_()

    def similarity(
        self, text_features: Tensor, use_temperature: bool = False, train_temperature: bool = False
    ) -> Tensor:
        """Return the similarity S `(B,)` of text features `(B, E)` and the matched images."""
        return matched_similarity(
            self.encoder.model,
            self.image_features,
            text_features,
            use_temperature,
            train_temperature,
        )

    def score_by_variants(
        self, caption_rows: Tensor, scored_tokens: Tensor, variants: Tensor
    ) -> Attribution:
        """Score tokens by the drop in similarity from a caption to variants of it.

        Variant i is made from caption `caption_rows[i]`, scores its tokens `scored_tokens[i]`
        `(V, C)` bool, and has the tokens `variants[i]` `(V, C)`. A token's score is the mean over
        its variants; a token without one has no score.
        """
        # (B, C), the number of variants that score each token
        counts = torch.zeros_like(self.tokens).index_add(0, caption_rows, scored_tokens.long())
        drops, features = self.similarity_drops(
            lambda: self._encode_with_variants(caption_rows, variants), caption_rows, scored_tokens
        )
        length = self.encoder.n_used_columns(self.tokens)
        mean = drops / counts.clamp(min=1)
        return Attribution(mean[:, :length], features, (counts > 0)[:, :length])

    def _encode_with_variants(self, caption_rows: Tensor, variants: Tensor) -> Tensor:
        """Return features `(B + V, E)` of B captions, then of V variants."""
        columns = self.tokens.shape[1]
        # argmax returns the first of equal maxima: the first column that differs.
        first_change = (variants != self.tokens[caption_rows]).int().argmax(dim=1)
        # A packed encoder computes the states of a prefix once for consecutive rows that share it.
        # Each caption precedes its variants, those with the latest first change in front: each
        # variant then shares all tokens before its first change with the row before it.
        rank = torch.cat([first_change.new_zeros(len(self.tokens)), columns - first_change])
        rows = torch.cat([torch.arange(len(self.tokens), device=caption_rows.device), caption_rows])
        # Caption 0, its variants that change at 7 and at 3, caption 1, its variants, and so on. No
        # rank exceeds the number of columns, so this key sorts by caption first, then by rank.
        order = (rows * (columns + 1) + rank).argsort()
        texts = torch.cat([self.tokens, variants])[order]
        # The argsort of a permutation is its inverse: captions come first again.
        return self.encoder.encode_features(texts)[order.argsort()]

    def similarity_drops(
        self,
        encode: Callable[[], Tensor],
        caption_rows: Tensor,
        scored_tokens: Tensor,
        use_temperature: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Sum, for each token, the drops in similarity of the variants that score it.

        `encode` returns features `(B + V, E)` of the B captions, then of the V variants; it is a
        function because it has to run without dropout. Where dropout is on, the captions are
        encoded once more for the features that are returned. Variant i is made from caption
        `caption_rows[i]`, and scores its tokens `scored_tokens[i]` `(V, T)`. Returns the sums
        `(B, T)` and the features of the captions `(B, E)`.
        """
        # Dropout masks differ from row to row, and would change S more than a word does.
        with self.encoder.dropout_disabled() as has_dropout:
            features = encode()
        # (B + V, E): a variant is compared with the image of its caption.
        images = torch.cat([self.image_features, self.image_features[caption_rows]])
        similarity = matched_similarity(self.encoder.model, images, features, use_temperature)
        of_captions, of_variants = similarity.tensor_split([len(self.tokens)])
        # (V, T): each scored token of a variant receives the variant's drop.
        drop = (of_captions[caption_rows] - of_variants).unsqueeze(1) * scored_tokens
        sums = drop.new_zeros(len(self.tokens), scored_tokens.shape[1]).index_add(
            0, caption_rows, drop
        )
        # The contrastive loss is trained with dropout, and needs features that have it.
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
    # In inference mode, `enable_grad` alone records no graph.
    with torch.inference_mode(False), torch.enable_grad():
        yield


def resolve_word_numbers(words: Tensor | None, tokens: Tensor, encoder: TextEncoder) -> Tensor:
    """Return `words`; if they are None, derive them from tokens of CLIP's vocabulary."""
    return word_numbers(tokens, encoder.vocabulary_size) if words is None else words


def word_masks(words: Tensor) -> tuple[Tensor, Tensor]:
    """Return the caption row `(V,)` and the token mask `(V, T)` bool of each word, in order.

    `words` `(B, T)` has the word number of each token; 0 is no word.
    """
    numbers = torch.arange(int(words.max()) + 1, device=words.device)
    # Number 0 is left out, since it stands for no word.
    masks = words.unsqueeze(1) == numbers[1:, None]  # (B, W, T)
    # A number above those of its caption marks no token, and is no word.
    caption_rows, number = masks.any(dim=2).nonzero(as_tuple=True)
    return caption_rows, masks[caption_rows, number]


def matched_similarity(
    model: nn.Module,
    image_features: Tensor,
    text_features: Tensor,
    use_temperature: bool = False,
    train_temperature: bool = False,
) -> Tensor:
    """Return the similarity S `(B,)` of matched pairs, float32 or wider: their cosine.

    With `use_temperature` it is multiplied by 1/tau, the exponential of `model.logit_scale`, or by
    1 if the model has no such attribute.
    """
    _check_same_shape(image_features, text_features)
    # Scores are small differences of S, which half precision would round away.
    with torch.autocast(text_features.device.type, enabled=False):
        wide = torch.promote_types(text_features.dtype, torch.float32)
        images = F.normalize(image_features.to(wide), dim=-1)
        texts = F.normalize(text_features.to(wide), dim=-1)
        similarity = (images * texts).sum(dim=-1)
        scale = getattr(model, "logit_scale", None)
        if not use_temperature or scale is None:
            return similarity
        # A smaller 1/tau would lower every score, and so the loss: by default tau is constant.
        return similarity * (scale if train_temperature else scale.detach()).exp()


def _check_same_shape(image_features: Tensor, text_features: Tensor) -> None:
    if image_features.shape != text_features.shape:
        raise DataError(
            f"image features {tuple(image_features.shape)} do not fit text features "
            f"{tuple(text_features.shape)}: expected those of one model."
        )


def mask_embedding(encoder: TextEncoder, replacement: ReplacementKind = "mean") -> Tensor:
    """Return the embedding `(D,)` that replaces a masked token, detached."""
    check_type("replacement", replacement, ReplacementKind)
    if replacement == "mean":
        # The table is detached; else the loss would train the embeddings of the whole vocabulary.
        return encoder.embedding_table.mean(dim=0)
    if replacement == "token":
        return encoder.embedding_table[asterisk_token_id(encoder)]
    return torch.zeros_like(encoder.embedding_table[0])


def asterisk_token_id(encoder: TextEncoder) -> int:
    """Return the id of the word "*"; raise ConfigError if the vocabulary is not CLIP's."""
    if encoder.vocabulary_size != CLIP_VOCABULARY_SIZE:
        raise ConfigError(
            f"the model has {encoder.vocabulary_size} tokens, not CLIP's, so its '*' is not known: "
            "mask by 'mean' or 'zero', or in perturbation by 'random'."
        )
    return ASTERISK_TOKEN_ID
