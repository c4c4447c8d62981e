"""What every attribution method takes and gives, and the score S that they explain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.attribution.grouping import check_tensors, check_words, words_or_own
from cae_lib.errors import ConfigError, DataError, check_fields, check_type
from cae_lib.models.text_encoder import TextEncoder, text_encoder
from cae_lib.models.text_tower import CLIP_VOCABULARY

Mask = Literal["mean", "zero", "token"]
STAR = 265  # the token "*" in CLIP's vocabulary


@dataclass(frozen=True)
class Attribution:
    """Scores of the tokens of each caption, for its matched image.

    Attributes:
        scores: a_j `(B, T)`, float32 or wider; in a causal tower 0 after the end of the text.
        text_features: `(B, E)`, not normalised, from the same pass.
        scored: `(B, T)` bool, the tokens that have a score; None if all that were wanted have.
    """

    scores: Tensor
    text_features: Tensor
    scored: Tensor | None = None

    @property
    def length(self) -> int:
        """T, the number of positions scored; at most the number of columns of the tokens."""
        return self.scores.shape[1]


@dataclass(frozen=True)
class Captions:
    """The arguments of `AttributionMethod`, with the model's encoder."""

    encoder: TextEncoder
    tokens: Tensor
    image_features: Tensor
    create_graph: bool
    given_words: Tensor | None
    wanted: Tensor | None
    roles: Tensor | None
    arguments: Tensor | None = None
    swaps: Tensor | None = None

    def words(self, length: int) -> Tensor:
        """Number of the word each of the first tokens belongs to `(B, length)`, 0 for none."""
        return words_or_own(self.given_words, self.tokens, self.encoder)[:, :length]

    def wants(self, caption: Tensor, inside: Tensor) -> Tensor:
        """Which of V words of `words_apart` have a wanted token `(V,)`."""
        if self.wanted is None:
            return torch.ones_like(caption, dtype=torch.bool)
        return (inside & self.wanted[caption, : inside.shape[1]]).any(dim=1)

    def embeddings(self) -> Tensor:
        """Token embeddings `(B, S, D)` that a gradient can be taken at, even of a frozen model."""
        embeddings = self.encoder.embed(self.tokens)
        return embeddings if embeddings.requires_grad else embeddings.requires_grad_()

    def similarity(self, features: Tensor, *temperature: bool) -> Tensor:
        """S `(B,)` of text features `(B, E)` and their images; see `matched_similarity`."""
        return matched_similarity(self.encoder.model, self.image_features, features, *temperature)

    def score_variants(self, variants: Tensor, caption: Tensor, inside: Tensor) -> Attribution:
        """Scores of the tokens `inside (V, C)`: how far S of each variant `(V, C)` of the captions
        `caption (V,)` lies below that of the caption, the mean over the variants of a token."""

        def encode() -> Tensor:
            return self._encode_with(variants, caption)

        often = torch.zeros_like(self.tokens).index_add(0, caption, inside.long())
        scores, features = self.drops(encode, caption, inside)
        length = self.encoder.columns(self.tokens)
        mean = scores / often.clamp(min=1)
        return Attribution(mean[:, :length], features, (often > 0)[:, :length])

    def _encode_with(self, variants: Tensor, caption: Tensor) -> Tensor:
        """Features `(B + V, E)` of captions and variants, which share what they begin with."""
        columns = self.tokens.shape[1]
        first = (variants != self.tokens[caption]).int().argmax(dim=1)
        # Each caption is followed by its variants, the latest change first: all begin as it does.
        after = torch.cat([first.new_zeros(len(self.tokens)), columns - first])
        rows = torch.cat([torch.arange(len(self.tokens), device=caption.device), caption])
        order = (rows * (columns + 1) + after).argsort()
        both = torch.cat([self.tokens, variants])[order]
        return self.encoder.encode_many(both)[order.argsort()]

    def drops(
        self,
        encode: Callable[[], Tensor],
        caption: Tensor,
        inside: Tensor,
        temperature: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """`S - S of a variant` on the tokens that it changes, `inside (V, T)`, summed to `(B, T)`,
        and the captions' features `(B, E)`. `encode` gives features `(B + V, E)` of captions, then
        of variants, whose rows are `caption`; it runs without dropout, whose masks would differ
        from row to row by more than a word is worth. The captions' own features have it."""
        with self.encoder.steady() as dropout:
            features = encode()
        images = torch.cat([self.image_features, self.image_features[caption]])
        similarity = matched_similarity(self.encoder.model, images, features, temperature)
        whole, without = similarity.tensor_split([len(self.tokens)])
        drop = (whole[caption] - without).unsqueeze(1) * inside
        scores = drop.new_zeros(len(self.tokens), inside.shape[1]).index_add(0, caption, drop)
        own = self.encoder.encode_many(self.tokens) if dropout else features[: len(self.tokens)]
        return scores, own


class AttributionMethod:
    """A method is an object that can be called; ours are frozen dataclasses of their parameters.

    Another one need not be of this class if it has `reads_words` and is called likewise; it gets
    `roles` only if it also has `reads_roles = True`, and so for `arguments` and `swaps`.

    Attributes:
        reads_words: whether `words` changes the scores.
        scores_words: whether each token has the score of its whole word, not a share of it.
        differentiates: whether `score` takes derivatives of S, and so needs a graph at all times.
        counts: parameters that are 1 or more, or None for no limit.
    """

    reads_words: ClassVar[bool] = False
    scores_words: ClassVar[bool] = False
    differentiates: ClassVar[bool] = True
    counts: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        for name in self.counts:
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name} is {value}: expected 1 or more, or None for all.")

    def __call__(
        self,
        model: nn.Module | TextEncoder,
        tokens: Tensor,
        image_features: Tensor,
        *,
        create_graph: bool = False,
        words: Tensor | None = None,
        wanted: Tensor | None = None,
        roles: Tensor | None = None,
        arguments: Tensor | None = None,
        swaps: Tensor | None = None,
    ) -> Attribution:
        """Score every token of each caption; ConfigError for an unknown model or another device,
        DataError for arguments of other shapes or types, for words, roles and arguments that are
        not those of the tokens (`check_words`), or a caption without its end.

        Args:
            model: one that `text_encoder` knows, or an encoder.
            tokens: ids `(B, C)`, on the model's device.
            image_features: `(B, E)`, of any length; row i belongs to caption i.
            create_graph: make scores and features differentiable in the parameters, and scores in
                the image features; else all are constants.
            words: number of each token's word `(B, C)`, 0 for none; None: by CLIP's tokens.
            wanted: `(B, C)` bool, tokens whose scores are used; others may be 0. None: all.
            roles: `(B, C)`, 0 other, 1 object, 2 attribute, 3 relation.
            arguments: `(B, C, 2)`, words that a token's word is said of, see `Alignment`.
            swaps: `(B, W, 5, 2)`, what can be swapped in each caption, see `Alignment`.
        """
        with gradients() if self.differentiates else torch.set_grad_enabled(create_graph):
            encoder = text_encoder(model)
            check_tensors(
                tokens,
                image_features,
                words=words,
                wanted=wanted,
                roles=roles,
                arguments=arguments,
                swaps=swaps,
            )
            images = image_features if create_graph else image_features.detach()
            inputs = _checked(encoder, tokens=tokens.long(), image_features=images)
            check_words(encoder, tokens, words, roles, arguments)
            found = self.score(
                Captions(encoder, *inputs, create_graph, words, wanted, roles, arguments, swaps)
            )
            _check_width(image_features, found.text_features)
        if create_graph:
            return found
        return Attribution(found.scores.detach(), found.text_features.detach(), found.scored)

    def score(self, captions: Captions) -> Attribution:
        """What a call returns, before it is detached."""
        raise NotImplementedError


def words_apart(words: Tensor) -> tuple[Tensor, Tensor]:
    """Row of each word's caption `(V,)` and its tokens `(V, T)` bool, from numbers `(B, T)`."""
    numbers = torch.arange(int(words.max()) + 1, device=words.device)
    inside = words.unsqueeze(1) == numbers[1:, None]  # (B, W, T)
    caption, number = inside.any(dim=2).nonzero(as_tuple=True)
    return caption, inside[caption, number]


def matched_similarity(
    model: nn.Module,
    image_features: Tensor,
    text_features: Tensor,
    temperature: bool = False,
    train_temperature: bool = False,
) -> Tensor:
    """S(I, T) of matched pairs `(B,)`, of features `(B, E)` of any length; float32 or wider. With
    `temperature` the cosine is multiplied by tau^-1, the exponential of the model's `logit_scale`
    (1 without one), into which gradients flow with `train_temperature`. DataError if E differs."""
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


def mask_vector(encoder: TextEncoder, mask: Mask = "mean") -> Tensor:
    """Embedding `(D,)` in the place of a masked token, as a constant: the mean of all tokens as
    they are now, zero, or that of the token "*"; a ConfigError for another mask."""
    check_type("mask", mask, Mask)
    if mask == "mean":
        return encoder.table.mean(dim=0)
    return encoder.table[star(encoder)] if mask == "token" else torch.zeros_like(encoder.table[0])


def star(encoder: TextEncoder) -> int:
    """The token "*" of CLIP's vocabulary; a ConfigError for another vocabulary."""
    if encoder.vocabulary_size != CLIP_VOCABULARY:
        raise ConfigError(
            f"the model has {encoder.vocabulary_size} tokens, not CLIP's, so its '*' is not known: "
            "mask by 'mean' or 'zero', or in perturbation by 'random'."
        )
    return STAR


@contextmanager
def gradients() -> Iterator[None]:
    """Record gradients, also for a caller under `no_grad` or `inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _check_width(image_features: Tensor, text_features: Tensor) -> None:
    if image_features.shape != text_features.shape:
        raise DataError(
            f"image features {tuple(image_features.shape)} do not fit text features "
            f"{tuple(text_features.shape)}: expected those of one model."
        )


def _checked(encoder: TextEncoder, **inputs: Tensor) -> list[Tensor]:
    """The inputs on the model's device, as tensors that autograd may keep."""
    device = next(encoder.model.parameters()).device
    for name, value in inputs.items():
        if value.device != device:
            raise ConfigError(
                f"{name} are on {value.device}, the model is on {device}: move one of them."
            )
    return [value.clone() if value.is_inference() else value for value in inputs.values()]
