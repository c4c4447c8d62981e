"""How close a caption's embedding is to those of the phrases in it: Figure 3 of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from cae_lib.config import profile as find_profile
from cae_lib.data.training_set import data_root, default_tagger
from cae_lib.evaluation.embed import Encoder
from cae_lib.words.phrases import KINDS, Phrases, parsed_phrases, world_phrases

CAPTIONS = 500
DIGITS = 5
ANNOTATIONS = "coco/annotations/captions_val2014.json"
GRAPHS = "coco/annotations/scene_graphs_val2014.json"
GOLD, PARSED = "gold scene graph", "parser"


def phrase_similarity(encoder: Encoder, profile: str) -> dict[str, Any]:
    """Cosines between COCO test captions and their phrases, and phrases of other captions.

    Phrases come from the gold scene graphs in the small world, else from the default parser.
    """
    captions, phrases, source, n_expected = captions_and_phrases(profile)
    return {
        "source": source,
        "n_used": len(captions),
        "n_expected": n_expected,
        "kinds": cosines(encoder, captions, phrases),
    }


@lru_cache(maxsize=2)
def captions_and_phrases(profile: str) -> tuple[tuple[str, ...], tuple[Phrases, ...], str, int]:
    """`CAPTIONS` test captions taken evenly, their phrases, the source, the captions asked for."""
    from cae_lib.evaluation.suite import retrieval_pairs

    every = retrieval_pairs(profile, "coco").captions
    rows = np.unique(np.linspace(0, len(every) - 1, min(CAPTIONS, len(every))).astype(int))
    captions = tuple(every[row] for row in rows)
    if find_profile(profile).base is None:
        found = parsed_phrases(default_tagger().graphs(captions))
        return captions, tuple(found), PARSED, len(rows)
    root = data_root(profile)
    gold = world_phrases(root / ANNOTATIONS, root / GRAPHS)
    return captions, tuple(gold[caption] for caption in captions), GOLD, len(rows)


def cosines(
    encoder: Encoder, captions: Sequence[str], phrases: Sequence[Phrases]
) -> dict[str, Any]:
    """For each kind of phrase, the mean cosine of each caption to its own and to others' phrases.

    Returns:
        By kind: `n_phrases`, the phrases in the captions; `own` and `other`, one number a caption
        and None where it has no such phrase. `other` is the mean over all distinct phrases of the
        kind that are not in the caption: what a text has in common with any such phrase.
    """
    vectors = encoder.texts(captions)
    return {kind: _kind(encoder, vectors, [found[kind] for found in phrases]) for kind in KINDS}


def _kind(encoder: Encoder, vectors: np.ndarray, phrases: Sequence[Sequence[str]]) -> dict:
    distinct = list(dict.fromkeys(phrase for found in phrases for phrase in found))
    own: list[float | None] = [None] * len(phrases)
    other: list[float | None] = [None] * len(phrases)
    if distinct:
        place = {phrase: column for column, phrase in enumerate(distinct)}
        table = (vectors @ encoder.texts(distinct).T).astype(np.float64)
        for row, found in enumerate(phrases):
            if found:
                mine = np.zeros(len(distinct), dtype=bool)
                mine[[place[phrase] for phrase in found]] = True
                own[row] = round(float(table[row, mine].mean()), DIGITS)
                if not mine.all():
                    other[row] = round(float(table[row, ~mine].mean()), DIGITS)
    return {"n_phrases": sum(map(len, phrases)), "own": own, "other": other}
