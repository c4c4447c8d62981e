"""The contrastive loss and the attribution loss, as functions on tensors, and the latter as a
module for any training loop, this library's own included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.attribution import AttributionMethod, get_method
from cae_lib.attribution.grouping import check_tensors, check_words, is_integer
from cae_lib.config import Hinge
from cae_lib.errors import ConfigError, DataError, check_type
from cae_lib.models.text_encoder import EncoderPath, TextEncoder, text_encoder
from cae_lib.models.text_tower import CLIP_VOCABULARY
from cae_lib.words.alignment import word_index

# Least attribution that hinge "log" tells from 0.
FLOOR = 1e-6


def contrastive_loss(
    image_features: Tensor,
    text_features: Tensor,
    logit_scale: Tensor,
    negatives: Tensor | None = None,
) -> Tensor:
    """Symmetric cross-entropy over the batch, `(L_i2t + L_t2i) / 2` (CLIP).

    Args:
        image_features, text_features: `(M, E)`, normalised; row i belongs to caption i.
        logit_scale: inverse temperature, already exponentiated.
        negatives: false captions `(K, E)`, normalised, in any order, K >= 0, that the images have
            to tell from theirs as well (NegCLIP, Yuksekgonul et al. 2023).

    Raises:
        DataError: another number of captions than of images, none, or features of other widths.
    """
    rows = tuple(image_features.shape)
    others = rows if negatives is None else tuple(negatives.shape)
    if (
        len(rows) != 2
        or not rows[0]
        or tuple(text_features.shape) != rows
        or len(others) != 2
        or others[1] != rows[1]
    ):
        raise DataError(
            "expected features of images and of their captions (M, E), M of 1 or more, and of "
            f"negatives (K, E); found images {rows}, captions {tuple(text_features.shape)}"
            f"{'' if negatives is None else f', negatives {others}'}."
        )
    texts = text_features if negatives is None else torch.cat([text_features, negatives])
    logits = logit_scale * image_features @ texts.T
    labels = torch.arange(len(logits), device=logits.device)
    captions = logits[:, : len(labels)]
    return (F.cross_entropy(logits, labels) + F.cross_entropy(captions.T, labels)) / 2


@dataclass(frozen=True)
class AttributionLoss:
    """The attribution loss, 0 when a group is empty, and its parts, detached; all 0-dimensional.

    `objects` is A_obj, the mean attribution of the object words used (0 if there are none), and
    `composition` A_comp, that of attribute and relation words; `n_objects` and `n_composition`
    count the tokens (scope "word": words) behind them. From `CAELoss`, `loss` is
    weight * L_attr, and `text_features (B, E)`, normalised, are those of the contrastive loss.
    """

    loss: Tensor
    objects: Tensor
    composition: Tensor
    n_objects: Tensor
    n_composition: Tensor
    text_features: Tensor | None = None


class CAELoss(nn.Module):
    """Encode a batch of captions once, for its features and for `lambda * L_attr` (CAE, section 3).

    The model is used, not owned: `parameters()` and `state_dict()` of this module are empty; a deep
    copy or a pickle holds a copy of it, one and the same where both are copied together. `eval()`
    changes no gradient; under `torch.no_grad` the same numbers come without a graph. Text features
    have the dtype that the model gives them, loss and attributions are float32 or wider.
    ConfigError for what `text_encoder`, `get_method` or `Hinge` refuses.

    Args:
        model: one that `text_encoder` knows, of open_clip or Hugging Face, or an encoder.
        method: a name, or an `AttributionMethod` of your own.
        weight: lambda; the paper does not print its values.
        image_gradient: let L_attr train the image tower too: S depends on both features, and no
            formula of the paper holds one of them. False: image features are a constant in it.
        all_sum: adds up a tensor, with gradient, over the processes that share a batch; A_obj and
            A_comp are then those of the whole batch.
        path: "packed", "reference", or "auto"; see `text_encoder`.
        settings: those of `Hinge`, such as `margin`, and those of the named method.
    """

    def __init__(
        self,
        model: nn.Module | TextEncoder,
        method: str | AttributionMethod = "attention",
        weight: float = 1.0,
        *,
        image_gradient: bool = True,
        all_sum: Callable[[Tensor], Tensor] | None = None,
        path: EncoderPath = "auto",
        **settings: Any,
    ) -> None:
        super().__init__()
        text_encoder(model, path)
        self._model = (model,)  # in a tuple, so that it is not registered as a submodule
        names = {field.name for field in fields(Hinge)} & settings.keys()
        self.hinge = Hinge(**{name: settings.pop(name) for name in names})
        self.method = get_method(method, **settings)
        check_type("image_gradient", image_gradient, bool)
        check_type("weight", weight, float)
        if weight < 0:
            raise ConfigError(f"weight is {weight}: expected 0 or more.")
        if all_sum is not None and not callable(all_sum):
            raise ConfigError(
                f"all_sum is {all_sum!r}: expected a function that adds up a tensor over the "
                "processes, such as `Ranks.sum`, or None."
            )
        self.weight, self.all_sum, self.path = weight, all_sum, path
        self.image_gradient = image_gradient

    @property
    def model(self) -> nn.Module | TextEncoder:
        """The model whose captions are scored."""
        return self._model[0]

    def forward(
        self,
        image_features: Tensor,
        tokens: Tensor,
        roles: Tensor,
        words: Tensor | None = None,
        arguments: Tensor | None = None,
        swaps: Tensor | None = None,
    ) -> AttributionLoss:
        """Score the captions against their images; a DataError for arguments that do not fit.

        Args:
            image_features: `(B, E)`, of any length.
            tokens: ids `(B, C)`.
            roles: `(B, C)` int8, 0 other, 1 object, 2 attribute, 3 relation; 0 where no word is.
            words: number of each token's word `(B, C)`, 0 for none; None: by CLIP's tokens. Pass
                those of the rows of roles: with CLIP's vocabulary they have to be the words of the
                tokens, so that the roles of a shuffled batch are refused.
            arguments: words that a token's word is said of `(B, C, 2)`, as `token_roles` gives
                them, for the method "binding"; None: the nearest object words.
            swaps: What can be swapped in each caption `(B, W, 5, 2)`, as `token_roles` gives it
                with the dependency tagger, for the method "binding"; None: what roles say.
        """
        text_features, sums = self.rows(image_features, tokens, roles, words, arguments, swaps)
        output = hinge_of_sums(sums, self.hinge, self.all_sum)
        return replace(output, loss=self.weight * output.loss, text_features=text_features)

    def rows(
        self,
        image_features: Tensor,
        tokens: Tensor,
        roles: Tensor,
        words: Tensor | None = None,
        arguments: Tensor | None = None,
        swaps: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Normalised text features `(B, E)`, and each caption's sums `(B, K)` (`caption_sums`), for
        loops that take the hinge elsewhere; see `forward`."""
        if roles is None:
            raise DataError("roles are None: expected those of `token_roles`, a tensor (B, C).")
        check_tensors(
            tokens, image_features, words=words, roles=roles, arguments=arguments, swaps=swaps
        )
        encoder = text_encoder(self.model, self.path)
        checks_words = type(self.method).__call__ is AttributionMethod.__call__
        if not checks_words:  # else the method looks at them, once
            check_words(encoder, tokens, words, roles, arguments)
        reads_words = self.method.reads_words or self.hinge.scope == "word"
        if words is None and (reads_words or encoder.vocabulary_size == CLIP_VOCABULARY):
            words = word_index(tokens, encoder.vocabulary_size)
        objects, composition = role_groups(roles, self.hinge)
        beside = {
            name: value
            for name, value in (("roles", roles), ("arguments", arguments), ("swaps", swaps))
            if checks_words or getattr(self.method, f"reads_{name}", False)
        }
        attribution = self.method(
            encoder,
            tokens,
            image_features if self.image_gradient else image_features.detach(),
            create_graph=torch.is_grad_enabled(),
            words=words,
            wanted=objects | composition,
            **beside,
        )
        roles = roles[:, : attribution.length]
        if attribution.scored is not None:
            roles = roles * attribution.scored
        words = None if words is None else words[:, : attribution.length]
        sums = caption_sums(attribution.scores, roles, self.hinge, words)
        return F.normalize(attribution.text_features, dim=-1), sums

    def extra_repr(self) -> str:
        return (
            f"{self.method}, weight={self.weight}, {self.hinge}, path={self.path}, "
            f"image_gradient={self.image_gradient}"
        )


def attribution_loss(
    scores: Tensor, roles: Tensor, hinge: Hinge | None = None, words: Tensor | None = None
) -> AttributionLoss:
    """The attribution loss of scores `(B, T)`, with roles and numbers of words as
    `CAELoss` takes them; `hinge` None takes the paper's, with eps 0."""
    hinge = hinge or Hinge()
    return hinge_of_sums(caption_sums(scores, roles, hinge, words), hinge)


def role_groups(roles: Tensor, hinge: Hinge) -> tuple[Tensor, Tensor]:
    """Tokens `(B, T)` that A_obj and A_comp are over, by roles `(B, T)`; a DataError for roles that
    are no integers."""
    if not is_integer(roles):
        raise DataError(f"roles are of type {roles.dtype}: expected integers, such as int8.")
    objects, composition = roles == 1, roles >= 2
    if hinge.hinge != "margin" and (hinge.complete_captions or hinge.scope == "caption"):
        complete = (objects.any(1) & composition.any(1)).unsqueeze(1)
        return objects & complete, composition & complete
    return objects, composition


def caption_sums(
    scores: Tensor, roles: Tensor, hinge: Hinge, words: Tensor | None = None
) -> Tensor:
    """What the attribution loss needs of each caption, `(B, 4)`, or `(B, 8)` of hinge "margin".

    Scores, roles and numbers of words are `(B, T)`; a ConfigError for scope "word" without words.
    The columns are the sums of the scores of its object words and of its composition words, and how
    many tokens (scope "word": words) each of them is over. Of hinge "margin" the hinges of its
    attribute words and of its relation words follow, summed and counted likewise.
    """
    weight = torch.ones_like(scores)
    if hinge.scope == "word":
        if words is None:
            raise ConfigError("scope 'word' needs words (B, T): the word each token belongs to.")
        words = words.long()
        weight = 1 / _per_word(weight, words)
    objects, composition = role_groups(roles, hinge)
    sums = _sums(scores, weight, (objects, composition))
    if hinge.hinge == "margin":
        if hinge.scope == "word":
            own = torch.where(composition, scores, 0)
            scores = _per_word(own, words) / _per_word(composition.to(own), words).clamp(min=1)
        roles_of = (composition & (roles == 2), composition & (roles == 3))
        sums += _sums(F.relu(hinge.margin - scores), weight, roles_of)
    return torch.stack(sums, dim=1)


def hinge_of_sums(
    sums: Tensor, hinge: Hinge, all_sum: Callable[[Tensor], Tensor] | None = None
) -> AttributionLoss:
    """The attribution loss of captions by their sums, as `caption_sums` made them for this hinge;
    those of several parts of a batch may be concatenated. `all_sum` adds up a tensor over the
    processes of a batch that is spread over several."""
    groups = sums.T.contiguous()  # (4 or 8, G)
    if hinge.scope != "caption":
        groups = groups.sum(1, keepdim=True)
        groups = all_sum(groups) if all_sum else groups
    counts = groups[2:4].detach()
    means = groups[:2] / counts.where(counts > 0, 1)
    hinges, valid = _hinges(groups, means, hinge)
    totals = torch.cat(
        [
            torch.stack([torch.where(valid, hinges, 0).sum(), valid.sum()]),
            means.detach().sum(1),
            (counts > 0).sum(1),
            counts.sum(1),
        ]
    )
    if all_sum and hinge.scope == "caption":
        totals = all_sum(totals)
    loss, rest = totals[0], totals[1:].detach()
    n_valid, present = rest[0].clamp(min=1), rest[3:5].clamp(min=1)
    return AttributionLoss(loss / n_valid, *(rest[1:3] / present), *rest[5:].round().long())


def _hinges(groups: Tensor, means: Tensor, hinge: Hinge) -> tuple[Tensor, Tensor]:
    """What the loss is the mean of, and which of it there is; `means` are A_obj, A_comp (2, G)."""
    if hinge.hinge == "margin":
        counts = groups[6:].detach()
        return groups[4:6] / counts.where(counts > 0, 1), counts > 0
    objects, composition = means.clamp(min=FLOOR).log() if hinge.hinge == "log" else means
    lead = (objects.detach() if hinge.stop_gradient else objects) - composition
    return F.relu(lead + hinge.margin), (groups[2:4].detach() > 0).all(0)


def _sums(scores: Tensor, weight: Tensor, groups: tuple[Tensor, ...]) -> list[Tensor]:
    """Weighted sum of each group's scores in each caption `(B,)`, then sum of its weights."""
    sums = [torch.where(group, scores * weight, 0).sum(1) for group in groups]
    return sums + [(weight * group).sum(1) for group in groups]


def _per_word(values: Tensor, words: Tensor) -> Tensor:
    """For each token the sum of the values `(B, T)` of all tokens of its word."""
    totals = values.new_zeros(len(words), int(words.max()) + 1)
    return totals.scatter_add(1, words, values).gather(1, words)
