"""Loss of similarity when a word is masked, as attribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from cae_lib.attribution.base import Attribution
from cae_lib.attribution.grouping import word_index
from cae_lib.attribution.masking import STAR, mask_vector
from cae_lib.attribution.similarity import matched_similarity
from cae_lib.errors import ConfigError
from cae_lib.models.packing import pack_rows
from cae_lib.models.towers import TextTower, encode_packed, text_tower

REPLACEMENTS = ("mean", "zero", "token", "random")
UNITS = ("word", "token")


@dataclass(frozen=True)
class PerturbationAttribution:
    """Drop of the similarity when a word is masked.

    CAE, perturbation instance: `a_j = S(I, T) - S(I, T with word j masked)`. All variants of all
    captions run as one batch; a variant shares the states before its masked word with its caption.
    How the paper masks a word is not known.

    Attributes:
        replacement: what stands in for a masked token: "mean", the mean token embedding of the
            model as it is now, as a constant: else the loss would move words that are not in the
            batch; "zero"; "token", the token `token_id`; "random", another token of the batch.
        unit: "word" masks all tokens of a word at once, and each of them gets the word's score;
            "token" masks one token at a time.
        clamp: set negative drops to 0.
        temperature: let S include tau^-1.
        token_id: for "token"; as given "*" in CLIP's vocabulary.
        seed: for "random"; the draw depends on the seed and the batch's tokens only.
    """

    reads_words: ClassVar[bool] = True

    replacement: str = "mean"
    unit: str = "word"
    clamp: bool = False
    temperature: bool = False
    token_id: int = STAR
    seed: int = 0

    def __post_init__(self) -> None:
        for value, known in ((self.replacement, REPLACEMENTS), (self.unit, UNITS)):
            if value not in known:
                raise ConfigError(f"{value!r} is not one of {', '.join(known)}.")

    def __call__(
        self,
        model: nn.Module,
        tokens: Tensor,
        image_features: Tensor,
        *,
        create_graph: bool = False,
        words: Tensor | None = None,
    ) -> Attribution:
        """Score every token; see `AttributionMethod`. Tokens of word 0 are not masked: score 0."""
        with torch.set_grad_enabled(create_graph):
            tower = text_tower(model)
            eot = tower.eot(tokens)
            length = int(eot.max()) + 1
            tokens = tokens[:, :length]
            if words is None:
                words = word_index(tokens, eot, tower.token_embedding.num_embeddings)
            position = torch.arange(length, device=tokens.device)
            words = words[:, :length].long().masked_fill(position > eot[:, None], 0)
            if self.unit == "token":
                words = position * (words > 0)
            variants = _variants(words)
            features = self._encode(tower, tokens, eot, variants)
            images = torch.cat([image_features, image_features[variants.caption]])
            similarity = matched_similarity(model, images, features, self.temperature)
            whole, masked = similarity.tensor_split([len(tokens)])
            drop = whole[variants.caption] - masked
            drop = drop.relu() if self.clamp else drop
            scores = drop.new_zeros(words.shape).index_add(
                0, variants.caption, drop.unsqueeze(1) * variants.masked
            )
        return Attribution(scores, features[: len(tokens)])

    def _encode(
        self, tower: TextTower, tokens: Tensor, eot: Tensor, variants: _Variants
    ) -> Tensor:
        """Features `(B + V, E)` of the captions, then of their variants."""
        own = torch.arange(len(tokens), device=tokens.device)
        captions = torch.cat([own, variants.caption])
        packing = pack_rows(
            eot[captions], torch.cat([torch.zeros_like(own), variants.start]), captions
        )
        masked = packing.pack(
            torch.cat([torch.zeros_like(tokens, dtype=torch.bool), variants.masked])
        )
        ids = tokens[captions[packing.rows], packing.positions]
        if self.replacement in ("token", "random"):
            stand_in = self._stand_in_ids(tokens, eot, ids)
            embeddings = tower.token_embedding(torch.where(masked, stand_in, ids))
        else:
            embeddings = tower.token_embedding(ids)
            vector = mask_vector(tower, self.replacement).to(embeddings.dtype)
            embeddings = torch.where(masked.unsqueeze(1), vector, embeddings)
        return encode_packed(tower, embeddings, packing)[0]

    def _stand_in_ids(self, tokens: Tensor, eot: Tensor, ids: Tensor) -> Tensor:
        """Token to put in place of each packed token `(N,)`, were it masked."""
        if self.replacement == "token":
            return torch.full_like(ids, self.token_id)
        position = torch.arange(tokens.shape[1], device=tokens.device)
        known = tokens[(position > 0) & (position < eot[:, None])].unique()
        if len(known) < 2:
            raise ConfigError("replacement 'random' needs a batch with two different words.")
        generator = torch.Generator().manual_seed(self.seed + int(tokens.sum()))
        step = torch.randint(1, len(known), ids.shape, generator=generator).to(ids.device)
        return known[(torch.searchsorted(known, ids) + step) % len(known)]


@dataclass(frozen=True)
class _Variants:
    """Captions with one word masked: `caption (V,)`, `start (V,)` of the word, `masked (V, T)`."""

    caption: Tensor
    start: Tensor
    masked: Tensor


def _variants(words: Tensor) -> _Variants:
    """One variant for each word of each caption, from the words' numbers `(B, T)`."""
    length = words.shape[1]
    position = torch.arange(length, device=words.device).expand_as(words)
    first = torch.full((len(words), int(words.max()) + 1), length, device=words.device)
    first = first.scatter_reduce(1, words, position, "amin")
    caption, number = (first[:, 1:] < length).nonzero(as_tuple=True)
    return _Variants(
        caption=caption,
        start=first[caption, number + 1],
        masked=words[caption] == (number + 1).unsqueeze(1),
    )
