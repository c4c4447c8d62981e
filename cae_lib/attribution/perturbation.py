"""Loss of similarity when a word is masked, as attribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cae_lib.attribution.base import (
    STAR,
    Attribution,
    AttributionMethod,
    Captions,
    mask_vector,
    words_apart,
)
from cae_lib.errors import ConfigError
from cae_lib.models.text_encoder import TextEncoder

REPLACEMENTS = ("mean", "zero", "token", "random")
UNITS = ("word", "token")


@dataclass(frozen=True)
class PerturbationAttribution(AttributionMethod):
    """Drop of the similarity when a word is masked.

    CAE, perturbation instance: `a_j = S(I, T) - S(I, T with word j masked)`. All variants of all
    captions run as one batch; tokens of no word score 0. How the paper masks is not known.

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
    replacement: str = "mean"
    unit: str = "word"
    clamp: bool = False
    temperature: bool = False

    def __post_init__(self) -> None:
        for value, known in ((self.replacement, REPLACEMENTS), (self.unit, UNITS)):
            if value not in known:
                raise ConfigError(f"{value!r} is not one of {', '.join(known)}.")

    def score(self, captions: Captions) -> Attribution:
        tokens = captions.tokens[:, : captions.encoder.columns(captions.tokens)]
        words = captions.words(tokens.shape[1]).long()
        if self.unit == "token":
            words = torch.arange(tokens.shape[1], device=tokens.device) * (words > 0)
        caption, masked = words_apart(words)
        wanted = captions.wants(caption, masked)
        caption, masked = caption[wanted], masked[wanted]
        stand_in = self._stand_in(captions.encoder, tokens, tokens[caption][masked])
        features = captions.encoder.encode_variants(tokens, caption, masked, stand_in)
        scores = captions.drops(features, caption, masked, self.temperature)
        return Attribution(scores.relu() if self.clamp else scores, features[: len(tokens)])

    def _stand_in(self, encoder: TextEncoder, tokens: Tensor, masked: Tensor) -> Tensor:
        """What stands in for the masked tokens `(n,)`; see `TextEncoder.encode_variants`."""
        if self.replacement in ("mean", "zero"):
            return mask_vector(encoder, self.replacement)
        if self.replacement == "token":
            return torch.full_like(tokens, STAR)
        known = masked.unique()
        if len(known) < 2:
            raise ConfigError("replacement 'random' needs a batch with two different words.")
        generator = torch.Generator().manual_seed(int(tokens.sum()))
        step = torch.randint(1, len(known), tokens.shape, generator=generator).to(tokens.device)
        return known[(torch.searchsorted(known, tokens.contiguous()) + step) % len(known)]
