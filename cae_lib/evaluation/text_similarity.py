"""Cosines of texts: pairs of sentences (Table 4), and captions with their phrases (Figure 3)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd

from cae_lib.data.scene_graphs import CAPTIONS_FILE, GRAPHS_FILE
from cae_lib.data.similarity import SentencePairs
from cae_lib.data.training_set import default_tagger
from cae_lib.evaluation import datasets
from cae_lib.evaluation.encoder import Encoder
from cae_lib.evaluation.retrieval import concat_tables
from cae_lib.profiles import find_profile
from cae_lib.words.phrases import KINDS, Phrases, parsed_phrases, world_phrases


def similarity_table(encoder: Encoder, profile: str) -> pd.DataFrame:
    """Return `pair_similarities` of all sets of a profile."""
    return concat_tables(
        pair_similarities(encoder, pairs) for pairs in datasets.similarity_pairs(profile)
    )


def pair_similarities(encoder: Encoder, pairs: SentencePairs) -> pd.DataFrame:
    """Return the cosine of each pair of sentences beside its human rating.

    Correlate all pairs of a set together, not its parts and then their mean, as is usual since
    SimCSE (Gao et al. 2021).

    Returns:
        A row for each pair: `set`, `part` (the file that it comes from), `pair` (its number in the
        set), `gold` (the rating, 0 to 5; of SICK 1 to 5), and `score` (the cosine).
    """
    encoder.encode_texts([*pairs.first, *pairs.second])
    cosine = (encoder.encode_texts(pairs.first) * encoder.encode_texts(pairs.second)).sum(axis=1)
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
    """Compare COCO's test captions with their own phrases and with phrases of other captions.

    Returns:
        A row for each caption and kind of phrase: `caption` and `picture` (numbers in the retrieval
        set), `kind`, and the columns of `phrase_cosines`.
    """
    pairs = datasets.retrieval_pairs(profile, "coco")
    rows = datasets.evenly_spaced_indices(len(pairs.captions), datasets.SAMPLES["phrases"]).astype(
        np.int32
    )
    captions = [pairs.captions[row] for row in rows]
    image_index = np.asarray(pairs.image_index)[rows].astype(np.int32)
    phrases = caption_phrases(tuple(captions), profile)
    tables = []
    for kind in KINDS:
        cosines = phrase_cosines(encoder, captions, [by_kind[kind] for by_kind in phrases])
        tables.append(
            pd.DataFrame({"caption": rows, "picture": image_index, "kind": kind, **cosines})
        )
    return concat_tables(tables)


@lru_cache(maxsize=2)
def caption_phrases(captions: tuple[str, ...], profile: str) -> list[Phrases]:
    """Return the phrases of captions: ground truth in synthetic scenes, else parsed.

    Args:
        captions: Captions of the profile's retrieval set "coco".
        profile: Name of the profile.
    """
    profile_settings = find_profile(profile)
    if not profile_settings.synthetic:
        return parsed_phrases(default_tagger().graphs(captions))
    root = profile_settings.root
    phrases = world_phrases(root / CAPTIONS_FILE, root / GRAPHS_FILE)
    return [phrases[caption] for caption in captions]


def phrase_cosines(
    encoder: Encoder, captions: Sequence[str], phrases: Sequence[Sequence[str]]
) -> dict[str, np.ndarray]:
    """Compare captions with their own phrases and with phrases of the other captions.

    Returns:
        By caption: `n`, the number of its phrases; `own`, its mean cosine to them; and `other`,
        that to all distinct phrases of the captions that are not its own. NaN where there is
        nothing to compare.
    """
    distinct = list(dict.fromkeys(phrase for of_caption in phrases for phrase in of_caption))
    n = np.array([len(of_caption) for of_caption in phrases], dtype=np.int16)
    own_mean, other_mean = np.full((2, len(phrases)), np.nan, dtype=np.float32)
    if distinct:
        column = {phrase: number for number, phrase in enumerate(distinct)}
        cosines = (encoder.encode_texts(captions) @ encoder.encode_texts(distinct).T).astype(
            np.float64
        )
        for row in np.flatnonzero(n).tolist():
            is_own = np.zeros(len(distinct), dtype=bool)
            is_own[[column[phrase] for phrase in phrases[row]]] = True
            own_mean[row] = cosines[row, is_own].mean()
            if not is_own.all():
                other_mean[row] = cosines[row, ~is_own].mean()
    return {"n": n, "own": own_mean, "other": other_mean}
