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
    matched_similarity,
)
from cae_lib.errors import ConfigError
from cae_lib.models.text_encoder import TextEncoder

REPLACEMENTS = ("mean", "zero", "token", "random")
UNITS = ("word", "token")


@dataclass(frozen=True)
class PerturbationAttribution(AttributionMethod):
    """Drop of the similarity when a word is masked.

    CAE, perturbation instance: `a_j = S(I, T) - S(I, T with word j masked)`. All variants of all
    captions run as one batch; tokens of no word are not masked and score 0. How the paper masks a
    word is not known.

    Attributes:
        replacement: what stands in for a masked token: "mean", the mean token embedding of the
            model as it is now, as a constant: else the loss would move words that are not in the
            batch; "zero"; "token", the token `token_id`; "random", another token of the batch.
        unit: "word" masks all tokens of a word at once, and each of them gets the word's score;
            "token" masks one token at a time.
        temperature: let S include tau^-1, as a constant.
        token_id: for "token"; as given "*" in CLIP's vocabulary.
        seed: for "random"; the draw depends on the seed and the batch's tokens only.
    """

    reads_words: ClassVar[bool] = True
    differentiates: ClassVar[bool] = False

    replacement: str = "mean"
    unit: str = "word"
    temperature: bool = False
    token_id: int = STAR
    seed: int = 0

    def __post_init__(self) -> None:
        for value, known in ((self.replacement, REPLACEMENTS), (self.unit, UNITS)):
            if value not in known:
                raise ConfigError(f"{value!r} is not one of {', '.join(known)}.")

    def score(self, captions: Captions) -> Attribution:
        encoder = captions.encoder
        tokens = captions.tokens[:, : encoder.columns(captions.tokens)]
        words = captions.words(tokens.shape[1]).long()
        if self.unit == "token":
            words = torch.arange(tokens.shape[1], device=tokens.device) * (words > 0)
        if captions.wanted is not None:
            words = _with_wanted(words, captions.wanted[:, : tokens.shape[1]])
        caption, masked = words_apart(words)
        stand_in = self._stand_in(encoder, tokens, words)
        features = encoder.encode_variants(tokens, caption, masked, stand_in)
        images = torch.cat([captions.image_features, captions.image_features[caption]])
        similarity = matched_similarity(encoder.model, images, features, self.temperature)
        whole, without = similarity.tensor_split([len(tokens)])
        drop = whole[caption] - without
        scores = drop.new_zeros(words.shape).index_add(0, caption, drop.unsqueeze(1) * masked)
        return Attribution(scores, features[: len(tokens)])

    def _stand_in(self, encoder: TextEncoder, tokens: Tensor, words: Tensor) -> Tensor:
        """What stands in for masked tokens; see `TextEncoder.encode_variants`."""
        if self.replacement in ("mean", "zero"):
            return mask_vector(encoder, self.replacement)
        if self.replacement == "token":
            return torch.full_like(tokens, self.token_id)
        known = tokens[words > 0].unique()
        if len(known) < 2:
            raise ConfigError("replacement 'random' needs a batch with two different words.")
        generator = torch.Generator().manual_seed(self.seed + int(tokens.sum()))
        step = torch.randint(1, len(known), tokens.shape, generator=generator).to(tokens.device)
        return known[(torch.searchsorted(known, tokens.contiguous()) + step) % len(known)]


def _with_wanted(words: Tensor, wanted: Tensor) -> Tensor:
    """Words `(B, T)` with a wanted token; the others become 0."""
    found = words.new_zeros(len(words), int(words.max()) + 1)
    found = found.scatter_add(1, words, wanted.long())
    return torch.where(found.gather(1, words) > 0, words, 0)


def words_apart(words: Tensor) -> tuple[Tensor, Tensor]:
    """Each word of each caption: the caption's row `(V,)` and the word's tokens `(V, T)` bool."""
    numbers = torch.arange(int(words.max()) + 1, device=words.device)
    inside = words.unsqueeze(1) == numbers[1:, None]  # (B, W, T)
    caption, number = inside.any(dim=2).nonzero(as_tuple=True)
    return caption, inside[caption, number]
