"""How close a caption's embedding is to those of the phrases in it: Figure 3 of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from cae_lib.config import profile as find_profile
from cae_lib.data.training_set import data_root, default_tagger
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.sets import retrieval_pairs
from cae_lib.evaluation.word_sample import even_rows
from cae_lib.words.phrases import KINDS, Phrases, parsed_phrases, world_phrases

CAPTIONS = 500
ANNOTATIONS = "coco/annotations/captions_val2014.json"
GRAPHS = "coco/annotations/scene_graphs_val2014.json"


class CaptionPhrases(NamedTuple):
    """Captions of a retrieval set with their phrases; `captions` and `pictures` are numbers."""

    captions: np.ndarray
    pictures: np.ndarray
    texts: Sequence[str]
    phrases: Sequence[Phrases]


def phrase_table(encoder: Encoder, profile: str) -> pd.DataFrame:
    """Cosines between COCO test captions and their phrases, and phrases of other captions.

    Phrases come from the gold scene graphs in the small world, else from the default parser.

    Returns:
        A row for each caption and kind of phrase: caption and picture (numbers in the retrieval
        set), kind, n (phrases in the caption), own and other (mean cosines, see `cosines`).
    """
    captions, pictures, texts, phrases = captions_and_phrases(profile)
    frames = [
        pd.DataFrame({"caption": captions, "picture": pictures, "kind": kind, **found})
        for kind, found in cosines(encoder, texts, phrases).items()
    ]
    return pd.concat(frames, ignore_index=True)


@lru_cache(maxsize=2)
def captions_and_phrases(profile: str) -> CaptionPhrases:
    """`CAPTIONS` test captions taken evenly, with their phrases."""
    pairs = retrieval_pairs(profile, "coco")
    rows = even_rows(len(pairs.captions), CAPTIONS)
    texts = [pairs.captions[row] for row in rows]
    if find_profile(profile).base is None:
        phrases = parsed_phrases(default_tagger().graphs(texts))
    else:
        root = data_root(profile)
        gold = world_phrases(root / ANNOTATIONS, root / GRAPHS)
        phrases = [gold[text] for text in texts]
    pictures = np.asarray(pairs.image_index)[rows].astype(np.int32)
    return CaptionPhrases(rows.astype(np.int32), pictures, texts, phrases)


def cosines(
    encoder: Encoder, captions: Sequence[str], phrases: Sequence[Phrases]
) -> dict[str, dict[str, np.ndarray]]:
    """For each kind of phrase, the mean cosine of each caption to its own and to others' phrases.

    Returns:
        By kind `n`, the phrases in the caption, `own` and `other`, NaN where there is nothing to
        compare; one number a caption. `other` is the mean over all distinct phrases of the kind
        that are not in the caption: what a text has in common with any such phrase.
    """
    vectors = encoder.texts(captions)
    return {kind: _kind(encoder, vectors, [found[kind] for found in phrases]) for kind in KINDS}


def _kind(
    encoder: Encoder, vectors: np.ndarray, phrases: Sequence[Sequence[str]]
) -> dict[str, np.ndarray]:
    distinct = list(dict.fromkeys(phrase for found in phrases for phrase in found))
    n = np.array([len(found) for found in phrases], dtype=np.int16)
    own, other = np.full((2, len(phrases)), np.nan, dtype=np.float32)
    if distinct:
        place = {phrase: column for column, phrase in enumerate(distinct)}
        table = (vectors @ encoder.texts(distinct).T).astype(np.float64)
        for row in np.flatnonzero(n):
            mine = np.zeros(len(distinct), dtype=bool)
            mine[[place[phrase] for phrase in phrases[row]]] = True
            own[row] = table[row, mine].mean()
            if not mine.all():
                other[row] = table[row, ~mine].mean()
    return {"n": n, "own": own, "other": other}
