"""Attribute similarity to words by the drop in similarity when a word is masked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from cae_lib.attribution.base import (
    Attribution,
    AttributionMethod,
    Captions,
    asterisk_token_id,
    mask_embedding,
    word_masks,
)
from cae_lib.errors import ConfigError


@dataclass(frozen=True)
class PerturbationAttribution(AttributionMethod):
    """Attribution by the drop in similarity when a word is masked (CAE, perturbation instance).

    The score is `a_j = S(I, T) - S(I, T with word j masked)`, where S(I, T) is the cosine
    similarity of image I and caption T. Both terms are computed with dropout disabled. All masked
    captions are encoded as one batch. Tokens of no word score 0. The paper does not say how it
    masks a word.

    Attributes:
        replacement: What replaces the embedding of a masked token.
            "mean": The current mean of all token embeddings. It is a constant, so that the loss
            does not train the embeddings of tokens outside the batch.
            "zero": A vector of zeros.
            "token": The embedding of CLIP's token "*".
            "random": The embedding of another token that is masked in the batch, with a different
            id. The seed of the draw depends only on the tokens of the batch.
        unit: "word" masks all tokens of a word at once and gives each of them the drop; "token"
            masks each token alone.
        clamp: Set negative drops to 0.
        use_temperature: Multiply S by 1/tau, the inverse temperature of the contrastive loss. The
            loss on the scores does not train tau.
    """

    differentiates: ClassVar[bool] = False
    replacement: Literal["mean", "zero", "token", "random"] = "mean"
    unit: Literal["word", "token"] = "word"
    clamp: bool = False
    use_temperature: bool = False

    @property
    def scores_words(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether each token has the score of its whole word."""
        return self.unit == "word"

    def score(self, captions: Captions) -> Attribution:
        """Mask each word in turn and compute by how much the similarity drops."""
        # To mask a token on which no feature depends would change nothing.
        tokens = captions.tokens[:, : captions.encoder.n_used_columns(captions.tokens)]
        words = captions.word_numbers(tokens.shape[1]).long()
        if self.unit == "token":
            # Each token of a word becomes a word of its own, with its position as number.
            words = torch.arange(1, tokens.shape[1] + 1, device=tokens.device) * (words > 0)
        caption_rows, masks = word_masks(words)
        # (V,) and (V, T) for V words; those that are not requested are not encoded.
        is_requested = captions.is_requested(caption_rows, masks)
        caption_rows, masks = caption_rows[is_requested], masks[is_requested]
        replacement = self._replacement(captions, tokens[caption_rows][masks])
        encode = partial(captions.encoder.encode_variants, tokens, caption_rows, masks, replacement)
        # Each token is masked once, so the sum over its variants is its one drop.
        scores, features = captions.similarity_drops(
            encode, caption_rows, masks, self.use_temperature
        )
        return Attribution(scores.relu() if self.clamp else scores, features)

    def _replacement(self, captions: Captions, masked_ids: Tensor) -> Tensor:
        """Return what replaces the masked tokens, whose ids are `masked_ids` `(n,)`.

        It is one embedding `(D,)` for all of them, or an id for each position `(B, C)`, which has
        no meaning where no token is masked.
        """
        tokens = captions.tokens
        if self.replacement == "mean" or self.replacement == "zero":
            return mask_embedding(captions.encoder, self.replacement)
        if self.replacement == "token":
            return torch.full_like(tokens, asterisk_token_id(captions.encoder))
        if len(masked_ids) == 0:
            return tokens
        candidates = masked_ids.unique()
        if len(candidates) < 2:
            raise ConfigError("replacement 'random' needs a batch with two different words.")
        # Drawn for all C columns, so that both text encoders draw the same words. A generator of
        # its own leaves the random numbers of the training as they are.
        generator = torch.Generator().manual_seed(int(tokens.sum()))
        n = len(candidates)
        # A step of 1 to n - 1 around the circle of n candidates never ends where it began.
        step = torch.randint(1, n, tokens.shape, generator=generator).to(tokens.device)
        # `unique` has sorted the candidates. `searchsorted` warns if its input is not contiguous.
        return candidates[(torch.searchsorted(candidates, tokens.contiguous()) + step) % n]
