"""Loss of similarity when a word is masked, as attribution."""

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
    mask_vector,
    star,
    words_apart,
)
from cae_lib.errors import ConfigError


@dataclass(frozen=True)
class PerturbationAttribution(AttributionMethod):
    """Drop of the similarity when a word is masked.

    CAE, perturbation instance: `a_j = S(I, T) - S(I, T with word j masked)`, both without dropout.
    All variants of all captions run as one batch; tokens of no word score 0. How the paper masks is
    not known.

    Attributes:
        replacement: "mean", the mean token embedding as it is now, a constant: else the loss would
            move words that are not in the batch; "zero"; "token", CLIP's token "*"; "random",
            another token of the batch, drawn by a seed of its tokens.
        unit: "word" masks all tokens of a word at once, which share its score; "token" each alone.
        clamp: set negative drops to 0.
        temperature: let S include tau^-1, as a constant.
    """

    reads_words: ClassVar[bool] = True
    differentiates: ClassVar[bool] = False
    replacement: Literal["mean", "zero", "token", "random"] = "mean"
    unit: Literal["word", "token"] = "word"
    clamp: bool = False
    temperature: bool = False

    @property
    def scores_words(self) -> bool:
        return self.unit == "word"

    def score(self, captions: Captions) -> Attribution:
        tokens = captions.tokens[:, : captions.encoder.columns(captions.tokens)]
        words = captions.words(tokens.shape[1]).long()
        if self.unit == "token":
            words = torch.arange(tokens.shape[1], device=tokens.device) * (words > 0)
        caption, masked = words_apart(words)
        wanted = captions.wants(caption, masked)
        caption, masked = caption[wanted], masked[wanted]
        stand_in = self._stand_in(captions, tokens[caption][masked])
        variants = partial(captions.encoder.encode_variants, tokens, caption, masked, stand_in)
        scores, features = captions.drops(variants, caption, masked, self.temperature)
        return Attribution(scores.relu() if self.clamp else scores, features)

    def _stand_in(self, captions: Captions, masked: Tensor) -> Tensor:
        """What stands in for the masked tokens `(n,)`, an embedding `(D,)` or tokens `(B, C)`."""
        tokens = captions.tokens
        if self.replacement in ("mean", "zero"):
            return mask_vector(captions.encoder, self.replacement)
        if self.replacement == "token":
            return torch.full_like(tokens, star(captions.encoder))
        known = masked.unique()
        if len(known) < 2:
            raise ConfigError("replacement 'random' needs a batch with two different words.")
        generator = torch.Generator().manual_seed(int(tokens.sum()))
        step = torch.randint(1, len(known), tokens.shape, generator=generator).to(tokens.device)
        return known[(torch.searchsorted(known, tokens.contiguous()) + step) % len(known)]
