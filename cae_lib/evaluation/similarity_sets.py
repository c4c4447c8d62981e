"""Semantic similarity of sentences on every set that a profile has: Table 4 of the paper."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from cae_lib.data.similarity import FOLDER, SentencePairs, load_similarity, present_sets
from cae_lib.data.training_set import data_root
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.similarity import evaluate_similarity


def similarities(encoder: Encoder, profile: str) -> dict[str, Any]:
    """Results of one model by the set's name.

    Raises:
        DataError: No set is there, or one is malformed.
    """
    pairs = similarity_pairs(profile)
    encoder.texts([text for part in pairs for text in (*part.first, *part.second)])
    return {part.name: evaluate_similarity(part, encoder).to_record() for part in pairs}


@lru_cache(maxsize=2)
def similarity_pairs(profile: str) -> tuple[SentencePairs, ...]:
    """The sets of a profile, read once; the paper's have to be whole."""
    root = data_root(profile) / FOLDER
    official = profile == "paper"
    return tuple(load_similarity(name, root, official=official) for name in present_sets(root))
