"""Cosines of texts: pairs of sentences (Table 4), and captions with their phrases (Figure 3)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd

from cae_lib.data.similarity import SentencePairs
from cae_lib.data.training_set import default_tagger
from cae_lib.evaluation import datasets
from cae_lib.evaluation.encoder import Encoder
from cae_lib.evaluation.tables import joined
from cae_lib.profiles import find_profile
from cae_lib.words.phrases import KINDS, Phrases, parsed_phrases, world_phrases
from cae_lib.world.files import CAPTIONS, GRAPHS


def similarity_table(encoder: Encoder, profile: str) -> pd.DataFrame:
    """`similarities` of all sets of a profile."""
    return joined(similarities(pairs, encoder) for pairs in datasets.similarity_pairs(profile))


def similarities(pairs: SentencePairs, encoder: Encoder) -> pd.DataFrame:
    """Cosine of the text features of each pair of a set, and the human score `gold`. As in the
    literature since SimCSE (Gao et al. 2021), the number of a set is the correlation over all of
    its pairs together, not the mean over its parts, which are its files."""
    encoder.texts([*pairs.first, *pairs.second])
    cosine = (encoder.texts(pairs.first) * encoder.texts(pairs.second)).sum(axis=1)
    return pd.DataFrame(
        {
            "set": pairs.name,
            "part": np.repeat(list(pairs.sizes), list(pairs.sizes.values())),
            "pair": np.arange(len(cosine), dtype=np.int32),
            "gold": pairs.gold.astype(np.float32),
            "score": cosine.astype(np.float32),
        }
    )


def phrase_table(encoder: Encoder, profile: str) -> pd.DataFrame:
    """Cosines between COCO test captions and their phrases, and phrases of other captions: a row
    for each caption and kind of phrase, with caption and picture (numbers in the retrieval set),
    kind, n (phrases in the caption), own and other, see `cosines`."""
    pairs = datasets.retrieval_pairs(profile, "coco")
    rows = datasets.evenly_spaced_indices(len(pairs.captions), datasets.SAMPLES["phrases"]).astype(
        np.int32
    )
    texts = [pairs.captions[row] for row in rows]
    where = {"caption": rows, "picture": np.asarray(pairs.image_index)[rows].astype(np.int32)}
    phrases = phrases_of(tuple(texts), profile)
    return joined(
        pd.DataFrame(
            where | {"kind": kind} | cosines(encoder, texts, [own[kind] for own in phrases])
        )
        for kind in KINDS
    )


@lru_cache(maxsize=2)
def phrases_of(texts: tuple[str, ...], profile: str) -> list[Phrases]:
    """The phrases of COCO test captions, gold in the small world, else by the default parser."""
    known = find_profile(profile)
    if not known.gold:
        return parsed_phrases(default_tagger().graphs(texts))
    gold = world_phrases(known.root / CAPTIONS, known.root / GRAPHS)
    return [gold[text] for text in texts]


def cosines(
    encoder: Encoder, captions: Sequence[str], phrases: Sequence[Sequence[str]]
) -> dict[str, np.ndarray]:
    """By caption: `n`, its phrases; `own`, its mean cosine to them; and `other`, that to all
    distinct phrases of the captions that are not in it. NaN where there is nothing to compare."""
    distinct = list(dict.fromkeys(phrase for own in phrases for phrase in own))
    n = np.array([len(own) for own in phrases], dtype=np.int16)
    own, other = np.full((2, len(phrases)), np.nan, dtype=np.float32)
    if distinct:
        place = {phrase: column for column, phrase in enumerate(distinct)}
        table = (encoder.texts(captions) @ encoder.texts(distinct).T).astype(np.float64)
        for row in np.flatnonzero(n):
            mine = np.zeros(len(distinct), dtype=bool)
            mine[[place[phrase] for phrase in phrases[row]]] = True
            own[row] = table[row, mine].mean()
            if not mine.all():
                other[row] = table[row, ~mine].mean()
    return {"n": n, "own": own, "other": other}
