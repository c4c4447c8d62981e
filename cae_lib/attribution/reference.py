"""References by captum, computed at the token embeddings: independent of CAE's own methods.

Token ids have no gradient, so everything is taken at the embeddings, before the position is added.
Start and end token keep their embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from captum.attr import IntegratedGradients, Saliency
from torch import Tensor, nn

from cae_lib.attribution.masking import mask_vector
from cae_lib.attribution.similarity import matched_similarity
from cae_lib.models.text_encoder import text_encoder

STEPS = 8
MOST_STEPS = 256
TOLERANCE = 0.01
ROWS_AT_ONCE = 128


@dataclass(frozen=True)
class Integrated:
    """Integrated gradients of S for each token.

    Attributes:
        scores: `(B, T)`; over a caption they sum to S(I, T) - S(I, T with every word masked), up to
            `delta`.
        delta: Convergence delta `(B,)`: the sum minus that difference.
        steps: Steps of the integral `(B,)`.
    """

    scores: Tensor
    delta: Tensor
    steps: Tensor


def integrated_gradients(
    model: nn.Module,
    tokens: Tensor,
    image_features: Tensor,
    words: Tensor,
    *,
    steps: int = STEPS,
    most_steps: int = MOST_STEPS,
    tolerance: float = TOLERANCE,
) -> Integrated:
    """Integrated gradients (Sundararajan et al., 2017) of S, from a caption of masked words.

    The baseline has the mean token embedding in the place of every word, as perturbation has it in
    the place of one. Captions whose convergence delta is larger than `tolerance` are computed again
    with twice the steps, up to `most_steps`; what is left of the delta is returned.

    Args:
        model: a model that `text_encoder` knows.
        tokens: `(B, context_length)`.
        image_features: `(B, E)`, normalised; row i belongs to caption i.
        words: `(B, T)` number of the word each token belongs to, 0 for none.
        steps: Points of the Gauss-Legendre rule to begin with.
        most_steps: At most this many.
        tolerance: Largest delta that is accepted, in units of the cosine.
    """
    embeddings, baselines = _inputs(model, tokens, words)
    scores = embeddings.new_zeros(embeddings.shape[:2])
    delta = embeddings.new_full((len(tokens),), float("inf"))
    used = torch.zeros(len(tokens), dtype=torch.long)
    while True:
        rows = (delta.abs() > tolerance).nonzero().squeeze(1)
        if not len(rows) or steps > most_steps:
            return Integrated(scores, delta, used)
        for part in rows.split(max(1, ROWS_AT_ONCE // steps)):
            scores[part], delta[part] = _integrate(
                model, tokens[part], image_features[part], embeddings[part], baselines[part], steps
            )
        used[rows.cpu()] = steps
        steps *= 2


def _integrate(
    model: nn.Module,
    tokens: Tensor,
    image_features: Tensor,
    embeddings: Tensor,
    baselines: Tensor,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """Scores `(B, T)` and delta `(B,)` of a few captions, cut to their longest."""
    length = text_encoder(model).columns(tokens)
    shares, delta = IntegratedGradients(_similarity(model)).attribute(
        embeddings[:, :length],
        baselines[:, :length],
        additional_forward_args=(tokens, image_features),
        n_steps=steps,
        method="gausslegendre",
        return_convergence_delta=True,
    )
    missing = embeddings.shape[1] - length
    return nn.functional.pad(shares.sum(dim=-1).detach(), (0, missing)), delta.to(shares.dtype)


def saliency(model: nn.Module, tokens: Tensor, image_features: Tensor) -> Tensor:
    """Norm `(B, T)` of the gradient of S at each token embedding, by captum's Saliency."""
    embeddings, _ = _inputs(model, tokens, None)
    gradient = Saliency(_similarity(model)).attribute(
        embeddings.requires_grad_(), abs=False, additional_forward_args=(tokens, image_features)
    )
    return torch.linalg.vector_norm(gradient, dim=-1).detach()


def _inputs(model: nn.Module, tokens: Tensor, words: Tensor | None) -> tuple[Tensor, Tensor]:
    """Embeddings `(B, T, D)` and the same with every word masked."""
    encoder = text_encoder(model)
    with torch.no_grad():
        embeddings = encoder.embed(tokens)
        if words is None:
            return embeddings, embeddings
        inside = (words[:, : embeddings.shape[1]] > 0).unsqueeze(-1)
        return embeddings, torch.where(inside, mask_vector(encoder), embeddings)


def _similarity(model: nn.Module) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """S without the temperature, as a function of embeddings, tokens and image features."""

    def similarity(embeddings: Tensor, tokens: Tensor, image_features: Tensor) -> Tensor:
        output = text_encoder(model).encode(tokens, embeddings=embeddings, second_order=True)
        return matched_similarity(model, image_features, output.features, temperature=False)

    return similarity
