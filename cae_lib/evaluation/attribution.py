"""How much attribution the words of each role get: Figures 1 and 7 of the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cae_lib.attribution import get_method
from cae_lib.data.captions import Pairs
from cae_lib.evaluation.embed import Encoder, ImageRef
from cae_lib.words.alignment import Alignment
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION

ROLES: Mapping[str, int] = {"object": OBJECT, "attribute": ATTRIBUTE, "relation": RELATION}
DIGITS = 6


@dataclass(frozen=True)
class RoleScores:
    """Scores of one method by role.

    Attributes:
        tokens: For each role, the scores of all its tokens `(n,)`.
        captions: For each role, its mean in each caption `(C,)`, NaN where it does not occur.
        n_captions: Captions scored.
    """

    tokens: Mapping[str, np.ndarray]
    captions: Mapping[str, np.ndarray]
    n_captions: int

    def to_record(self) -> dict[str, Any]:
        """For each role n, mean, percentiles 0 to 100, and the means of the captions."""
        return {"n_captions": self.n_captions} | {
            role: {
                "n_tokens": len(scores),
                "mean": float(scores.mean()) if len(scores) else None,
                "percentiles": _rounded(np.percentile(scores, range(101))) if len(scores) else [],
                "captions": [None if np.isnan(v) else round(float(v), DIGITS)
                             for v in self.captions[role]],
            }
            for role, scores in self.tokens.items()
        }  # fmt: skip


def role_scores(
    encoder: Encoder, pairs: Pairs, alignment: Alignment, method: str,
    limit: int | None = 500, batch_size: int = 100, **parameters: Any,
) -> RoleScores:  # fmt: skip
    """Score the words of matched captions by an attribution method.

    Args:
        encoder: Gives the picture features and holds the model.
        pairs: Captions with their pictures.
        alignment: Tokens and roles of these captions.
        method: Name of the attribution method.
        limit: Number of captions, taken evenly over the set; None takes all.
        batch_size: Captions a forward pass.
        **parameters: Parameters of the method.
    """
    total = len(pairs.captions)
    rows = np.unique(np.linspace(0, total - 1, min(limit or total, total)).astype(int))
    scorer, model = get_method(method, **parameters), encoder.clip.model
    images = encoder.images([ImageRef(pairs.image_paths[pairs.image_index[i]]) for i in rows])
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    parts = []
    for start in range(0, len(rows), batch_size):
        tokens = alignment.tokens[torch.from_numpy(rows[start : start + batch_size])].to(device)
        features = torch.from_numpy(images[start : start + batch_size]).to(device)
        parts.append(scorer(model, tokens, features).scores.float())
    model.train(was_training)
    width = max(part.shape[1] for part in parts)
    scores = torch.cat([torch.nn.functional.pad(p, (0, width - p.shape[1])) for p in parts])
    return by_role(scores, alignment.roles[torch.from_numpy(rows), :width])


def by_role(scores: Tensor, roles: Tensor) -> RoleScores:
    """Sort the scores `(C, T)` of tokens by their roles `(C, T)`."""
    scores, roles = scores.cpu(), roles.cpu()
    tokens, captions = {}, {}
    for name, role in ROLES.items():
        chosen = roles == role
        count = chosen.sum(1)
        total = torch.where(chosen, scores, 0).sum(1)
        tokens[name] = scores[chosen].numpy()
        captions[name] = torch.where(count > 0, total / count.clamp(min=1), torch.nan).numpy()
    return RoleScores(tokens, captions, len(scores))


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), DIGITS) for value in values]
