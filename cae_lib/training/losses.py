"""The contrastive loss and the attribution loss, as functions on tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cae_lib.errors import ConfigError

SCOPES = ("batch", "caption", "word")


def contrastive_loss(image_features: Tensor, text_features: Tensor, logit_scale: Tensor) -> Tensor:
    """Symmetric cross-entropy over the batch, `(L_i2t + L_t2i) / 2` (CLIP).

    Args:
        image_features: `(B, E)`, normalised; row i belongs to caption i.
        text_features: `(B, E)`, normalised.
        logit_scale: inverse temperature, already exponentiated.
    """
    logits = logit_scale * image_features @ text_features.T
    labels = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


@dataclass(frozen=True)
class AttributionLoss:
    """The attribution loss and its parts, all 0-dimensional tensors.

    Attributes:
        loss: L_attr; 0 when one of the two groups is empty.
        objects: A_obj, mean attribution of the object words used (0 if there are none).
        composition: A_comp, mean attribution of the relation and attribute words used.
        n_objects: tokens (scope "word": words) behind A_obj.
        n_composition: tokens (scope "word": words) behind A_comp.
    """

    loss: Tensor
    objects: Tensor
    composition: Tensor
    n_objects: Tensor
    n_composition: Tensor


def attribution_loss(
    scores: Tensor,
    roles: Tensor,
    margin: float = 0.0,
    scope: str = "batch",
    stop_gradient: bool = False,
    *,
    words: Tensor | None = None,
    complete_captions: bool = True,
    all_sum: Callable[[Tensor], Tensor] | None = None,
) -> AttributionLoss:
    """Hinge on how far object words lead over composition words, `max(0, A_obj - A_comp + eps)`.

    The paper averages over all tokens of the batch (scope "batch"). The other scopes are ours:
    "caption" takes means and hinge within each caption, then the mean over captions; "word" first
    averages the tokens of each word, so that a word of many tokens counts once.

    Args:
        scores: attribution of each token `(B, T)`.
        roles: `(B, T)`, 0 other, 1 object, 2 attribute, 3 relation; 2 and 3 form the composition.
        margin: eps.
        scope: "batch", "caption" or "word".
        stop_gradient: treat A_obj as a constant, so that only A_comp is moved.
        words: `(B, T)` number of the word each token belongs to; needed by scope "word".
        complete_captions: let a caption without object word or without composition word add
            nothing. False counts every such word of the batch.
        all_sum: adds up a tensor over the processes of a batch that is spread over several.

    Raises:
        ConfigError: for an unknown scope, or scope "word" without `words`.
    """
    sums = caption_sums(scores, roles, scope, words=words, complete_captions=complete_captions)
    return hinge_of_sums(sums, margin, scope, stop_gradient, all_sum=all_sum)


def caption_sums(
    scores: Tensor,
    roles: Tensor,
    scope: str = "batch",
    *,
    words: Tensor | None = None,
    complete_captions: bool = True,
) -> Tensor:
    """What the attribution loss needs of each caption, `(B, 4)`.

    The columns are the sum of the scores of its object words, that of its composition words, and
    how many tokens (scope "word": words) each of them is over. Arguments and errors are those of
    `attribution_loss`.
    """
    if scope not in SCOPES:
        raise ConfigError(f"unknown scope {scope!r}: expected one of {', '.join(SCOPES)}.")
    if complete_captions or scope == "caption":
        groups = complete_groups(roles)
    else:
        groups = roles == 1, roles >= 2
    weight = torch.ones_like(scores)
    if scope == "word":
        if words is None:
            raise ConfigError("scope 'word' needs words (B, T): the word each token belongs to.")
        weight = _token_share(words, scores.dtype)
    sums = [_total(scores, weight, group) for group in groups]
    sums += [(weight * group).sum(1) for group in groups]
    return torch.stack(sums, dim=1)


def hinge_of_sums(
    sums: Tensor,
    margin: float = 0.0,
    scope: str = "batch",
    stop_gradient: bool = False,
    *,
    all_sum: Callable[[Tensor], Tensor] | None = None,
) -> AttributionLoss:
    """The attribution loss of captions by their sums `(B, 4)`; see `caption_sums`.

    Rows of several parts of a batch may be concatenated. The scope is the one they were made for.
    """
    groups, total = sums.T.contiguous(), all_sum or _alone
    if scope == "caption":
        return _hinge(groups, margin, stop_gradient, total)
    return _hinge(total(groups.sum(1, keepdim=True)), margin, stop_gradient, _alone)


def complete_groups(roles: Tensor) -> tuple[Tensor, Tensor]:
    """Object tokens and composition tokens `(B, T)` of the captions that have both."""
    objects, composition = roles == 1, roles >= 2
    complete = (objects.any(1) & composition.any(1)).unsqueeze(1)
    return objects & complete, composition & complete


def _total(scores: Tensor, weight: Tensor, group: Tensor) -> Tensor:
    """Weighted sum of a group's scores in each caption `(B,)`."""
    return torch.where(group, scores * weight, 0).sum(1)


def _token_share(words: Tensor, dtype: torch.dtype) -> Tensor:
    """Share `(B, T)` of each token in its word: 1 over the word's number of tokens."""
    words = words.long()
    sizes = torch.zeros(len(words), int(words.max()) + 1, dtype=dtype, device=words.device)
    sizes.scatter_add_(1, words, torch.ones_like(words, dtype=dtype))
    return 1 / sizes.gather(1, words)


def _alone(values: Tensor) -> Tensor:
    return values


def _hinge(
    groups: Tensor, margin: float, stop_gradient: bool, total: Callable[[Tensor], Tensor]
) -> AttributionLoss:
    """Mean hinge over the G groups that have both kinds of words.

    Args:
        groups: totals of objects and composition, then their counts `(4, G)`.
        margin: eps.
        stop_gradient: treat A_obj as a constant.
        total: adds up what other processes know of their own groups.
    """
    counts = groups[2:].detach()
    objects, composition = groups[:2] / counts.clamp(min=1)
    valid = (counts > 0).all(0)
    lead = (objects.detach() if stop_gradient else objects) - composition
    hinges = torch.where(valid, F.relu(lead + margin), 0)
    means = torch.stack([objects, composition]).detach()
    parts = total(torch.cat([
        torch.stack([hinges.sum(), valid.sum()]),
        means.sum(1), (counts > 0).sum(1), counts.sum(1),
    ]))
    hinge, n_valid, *rest = parts.unbind()
    sums, present, n_tokens = rest[:2], rest[2:4], rest[4:]
    objects, composition = (
        s.detach() / n.detach().clamp(min=1) for s, n in zip(sums, present, strict=True)
    )
    return AttributionLoss(
        loss=hinge / n_valid.detach().clamp(min=1),
        objects=objects,
        composition=composition,
        n_objects=n_tokens[0].detach().round().long(),
        n_composition=n_tokens[1].detach().round().long(),
    )
