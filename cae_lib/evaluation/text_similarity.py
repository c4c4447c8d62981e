"""Cosines of pairs of sentences (Table 4), and of captions with their phrases (Figure 3)."""

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
from cae_lib.words.phrases import (
    PHRASE_KINDS,
    PhrasesByKind,
    load_ground_truth_phrases,
    parsed_phrases,
)


def similarity_table(encoder: Encoder, profile_name: str) -> pd.DataFrame:
    """Compare the sentence pairs of all similarity datasets; see `pair_similarities`."""
    return concat_tables(
        pair_similarities(encoder, pairs) for pairs in datasets.similarity_sets(profile_name)
    )


def pair_similarities(encoder: Encoder, pairs: SentencePairs) -> pd.DataFrame:
    """Return the cosine and the ground-truth similarity of each pair of sentences.

    Returns:
        A row for each pair: `set`, the name of the dataset; `part`, the part of the dataset, a key
        of `pairs.part_sizes`; `pair`, the position of the pair in `pairs`, which has neither
        unscored pairs nor missing parts; `gold`, the ground-truth similarity, from 0 to 5 (SICK-R:
        1 to 5); and `score`, the cosine.
    """
    encoder.encode_texts([*pairs.first, *pairs.second])
    cosine = (encoder.encode_texts(pairs.first) * encoder.encode_texts(pairs.second)).sum(axis=1)
    return pd.DataFrame(
        {
            "set": pairs.name,
            "part": np.repeat(list(pairs.part_sizes), list(pairs.part_sizes.values())),
            "pair": np.arange(len(cosine), dtype=np.int32),
            "gold": pairs.human_scores.astype(np.float32),
            "score": cosine.astype(np.float32),
        }
    )


def phrase_table(encoder: Encoder, profile_name: str) -> pd.DataFrame:
    """Compare each caption of a sample with its own phrases and with those of the other captions.

    The sample has at most `datasets.SAMPLE_SIZES["phrases"]` of COCO's test captions.

    Returns:
        A row for each caption and kind of phrase: `caption` and `picture`, the positions of the
        caption and its image in the retrieval set; `kind`, one of
        `cae_lib.words.phrases.PHRASE_KINDS`; and `n`, `own` and `other`, see `phrase_cosines`.

    Raises:
        ConfigError: If the captions are not synthetic and no English spaCy model is installed.
        DataError: If COCO or, of synthetic scenes, the scene graphs are missing or malformed.
    """
    pairs = datasets.retrieval_pairs(profile_name, "coco")
    rows = datasets.evenly_spaced_indices(
        len(pairs.captions), datasets.SAMPLE_SIZES["phrases"]
    ).astype(np.int32)
    captions = [pairs.captions[row] for row in rows]
    image_index = np.asarray(pairs.image_index)[rows].astype(np.int32)
    phrases = _caption_phrases(tuple(captions), profile_name)
    tables = []
    for kind in PHRASE_KINDS:
        cosines = phrase_cosines(encoder, captions, [by_kind[kind] for by_kind in phrases])
        tables.append(
            pd.DataFrame({"caption": rows, "picture": image_index, "kind": kind, **cosines})
        )
    return concat_tables(tables)


@lru_cache(maxsize=2)
def _caption_phrases(captions: tuple[str, ...], profile_name: str) -> list[PhrasesByKind]:
    """Return the phrases of captions by kind, from the ground truth or a parser; cached.

    Args:
        captions: Captions of the profile's retrieval set "coco".
        profile_name: Name of the profile. If it is synthetic, the phrases are the ground truth;
            otherwise the paper's parser finds them.
    """
    profile_settings = find_profile(profile_name)
    if not profile_settings.is_synthetic:
        return parsed_phrases(default_tagger().graphs(captions))
    root = profile_settings.root
    phrases = load_ground_truth_phrases(root / CAPTIONS_FILE, root / GRAPHS_FILE)
    return [phrases[caption] for caption in captions]


def phrase_cosines(
    encoder: Encoder, captions: Sequence[str], phrases: Sequence[Sequence[str]]
) -> dict[str, np.ndarray]:
    """Compare captions with their own phrases and with the phrases of the other captions.

    Args:
        encoder: The model.
        captions: The N captions.
        phrases: The distinct phrases of each caption.

    Returns:
        Three arrays `(N,)` with a value for each caption:

        - "n": the number of its own phrases, int16.
        - "own": the mean cosine of the caption to its own phrases, float32; NaN if it has none.
        - "other": the mean cosine of the caption to the distinct phrases that only other captions
          have, float32; NaN if there are none, or if the caption has no phrase of its own.
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
