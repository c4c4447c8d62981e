"""The contrastive loss and the attribution loss, as functions on tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cae_lib.errors import ConfigError, check_fields

SCOPES = ("batch", "caption", "word")
HINGES = ("difference", "log", "margin")
# Least attribution that hinge "log" tells from 0.
FLOOR = 1e-6


def contrastive_loss(
    image_features: Tensor, text_features: Tensor, logit_scale: Tensor,
    negatives: Tensor | None = None,
) -> Tensor:
    """Symmetric cross-entropy over the batch, `(L_i2t + L_t2i) / 2` (CLIP).

    Args:
        image_features, text_features: `(M, E)`, normalised; row i belongs to caption i.
        logit_scale: inverse temperature, already exponentiated.
        negatives: false captions `(K, E)`, normalised, in any order, K >= 0, that the images have
            to tell from theirs as well (NegCLIP, Yuksekgonul et al. 2023).
    """
    texts = text_features if negatives is None else torch.cat([text_features, negatives])
    logits = logit_scale * image_features @ texts.T
    labels = torch.arange(len(logits), device=logits.device)
    captions = logits[:, : len(labels)]
    return (F.cross_entropy(logits, labels) + F.cross_entropy(captions.T, labels)) / 2


@dataclass(frozen=True)
class Hinge:
    """How far object words may lead over composition words: the settings of the attribution loss.

    Kind "margin", a mean over the batch without A_obj, takes a margin above 0 (no other method than
    perturbation and counterfactual has scores below 0), and neither scope "caption" nor
    `stop_gradient`: a ConfigError.

    Attributes:
        kind: "difference", the paper's `max(0, A_obj - A_comp + eps)`; "log", the same of the
            logarithms, which no scale of the scores changes, each A at least `FLOOR`; "margin",
            `max(0, eps - a_j)` of each composition token, its mean over attributes and that over
            relations, and the mean of the two that occur.
        margin: eps.
        scope: "batch", the paper's, averages over all tokens of the batch. Ours: "caption" takes
            means and hinge within each caption, then the mean over captions; "word" first averages
            the tokens of each word, so that a word of many tokens counts once.
        stop_gradient: treat A_obj as a constant, so that only A_comp is moved.
        complete_captions: let a caption without object word or without composition word add
            nothing; scope "caption" always does, kind "margin" never, which compares no two groups.
    """
    kind: str = "difference"
    margin: float = 0.0
    scope: str = "batch"
    stop_gradient: bool = False
    complete_captions: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        for name, value, known in (("scope", self.scope, SCOPES), ("hinge", self.kind, HINGES)):
            if value not in known:
                raise ConfigError(f"unknown {name} {value!r}: expected one of {', '.join(known)}.")
        alone = self.scope != "caption" and not self.stop_gradient and self.margin > 0
        if self.kind == "margin" and not alone:
            raise ConfigError(
                "hinge 'margin' holds each composition word against eps, not against the objects "
                "of its caption: it takes a margin above 0, scope 'batch' or 'word', and no "
                "stop_gradient."
            )

    def groups(self, roles: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens `(B, T)` that A_obj and A_comp are over, by roles `(B, T)`."""
        objects, composition = roles == 1, roles >= 2
        if self.kind != "margin" and (self.complete_captions or self.scope == "caption"):
            complete = (objects.any(1) & composition.any(1)).unsqueeze(1)
            return objects & complete, composition & complete
        return objects, composition


@dataclass(frozen=True)
class AttributionLoss:
    """The attribution loss, 0 when a group is empty, and its parts, detached; all 0-dimensional.

    `objects` is A_obj, the mean attribution of the object words used (0 if there are none), and
    `composition` A_comp, that of attribute and relation words; `n_objects` and `n_composition`
    count the tokens (scope "word": words) behind them.
    """
    loss: Tensor
    objects: Tensor
    composition: Tensor
    n_objects: Tensor
    n_composition: Tensor


def attribution_loss(
    scores: Tensor, roles: Tensor, hinge: Hinge | None = None, words: Tensor | None = None,
    all_sum: Callable[[Tensor], Tensor] | None = None,
) -> AttributionLoss:
    """Hinge on how far object words lead over composition words (CAE, section 3).

    Args:
        scores: attribution of each token `(B, T)`.
        roles: `(B, T)`, 0 other, 1 object, 2 attribute, 3 relation; 2 and 3 form the composition.
        hinge: settings; None takes the paper's, with eps 0.
        words: `(B, T)` number of each token's word; scope "word" without is a ConfigError.
        all_sum: adds up a tensor over the processes of a batch that is spread over several.
    """
    hinge = hinge or Hinge()
    return hinge_of_sums(caption_sums(scores, roles, hinge, words), hinge, all_sum)


def caption_sums(
    scores: Tensor, roles: Tensor, hinge: Hinge, words: Tensor | None = None
) -> Tensor:
    """What `attribution_loss` needs of each caption, `(B, 4)`, or `(B, 8)` of kind "margin".

    The columns are the sums of the scores of its object words and of its composition words, and how
    many tokens (scope "word": words) each of them is over. Of kind "margin" the hinges of its
    attribute words and of its relation words follow, summed and counted likewise.
    """
    weight = torch.ones_like(scores)
    if hinge.scope == "word":
        if words is None:
            raise ConfigError("scope 'word' needs words (B, T): the word each token belongs to.")
        words = words.long()
        weight = 1 / _per_word(weight, words)
    objects, composition = hinge.groups(roles)
    sums = _sums(scores, weight, (objects, composition))
    if hinge.kind == "margin":
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
    those of several parts of a batch may be concatenated."""
    groups = sums.T.contiguous()  # (4 or 8, G)
    if hinge.scope != "caption":
        groups = groups.sum(1, keepdim=True)
        groups = all_sum(groups) if all_sum else groups
    counts = groups[2:4].detach()
    means = groups[:2] / counts.where(counts > 0, 1)
    hinges, valid = _hinges(groups, means, hinge)
    parts = torch.cat([
        torch.stack([torch.where(valid, hinges, 0).sum(), valid.sum()]),
        means.detach().sum(1), (counts > 0).sum(1), counts.sum(1),
    ])
    if all_sum and hinge.scope == "caption":
        parts = all_sum(parts)
    loss, known = parts[0], parts[1:].detach()
    n_valid, present = known[0].clamp(min=1), known[3:5].clamp(min=1)
    return AttributionLoss(loss / n_valid, *(known[1:3] / present), *known[5:].round().long())


def _hinges(groups: Tensor, means: Tensor, hinge: Hinge) -> tuple[Tensor, Tensor]:
    """What the loss is the mean of, and which of it there is; `means` are A_obj, A_comp (2, G)."""
    if hinge.kind == "margin":
        counts = groups[6:].detach()
        return groups[4:6] / counts.where(counts > 0, 1), counts > 0
    objects, composition = means.clamp(min=FLOOR).log() if hinge.kind == "log" else means
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
