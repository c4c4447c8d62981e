"""Cosines of pairs of sentences, and of captions with their phrases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cae_bench.encoder import Encoder
from cae_bench.similarity import SentencePairs


def pair_similarities(encoder: Encoder, pairs: SentencePairs) -> pd.DataFrame:
    """Return the cosine and the ground-truth similarity of each pair of sentences.

    Returns:
        A row for each pair: `set`, the name of the dataset; `part`, a key of `pairs.part_sizes`;
        `pair`, its position in `pairs`; `gold`, from 0 to 5 (SICK-R: 1 to 5); and `score`, the
        cosine.
    """
    # Both sides at once, for batches of similar length; the next line looks the vectors up.
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


def phrase_cosines(
    encoder: Encoder, captions: Sequence[str], phrases: Sequence[Sequence[str]]
) -> dict[str, np.ndarray]:
    """Compare captions with their own phrases and with the phrases of the other captions.

    Args:
        encoder: The model.
        captions: The N captions.
        phrases: The distinct phrases of each caption.

    Returns:
        Three arrays `(N,)`: "n", the number of own phrases, int16; "own", the mean cosine to them,
        float32; "other", the mean cosine to the distinct phrases that only other captions have,
        float32. Both are NaN for a caption without own phrases, and "other" if no other is left.
    """
    distinct = list(dict.fromkeys(phrase for of_caption in phrases for phrase in of_caption))
    n = np.array([len(of_caption) for of_caption in phrases], dtype=np.int16)
    own_mean, other_mean = np.full((2, len(phrases)), np.nan, dtype=np.float32)
    if distinct:
        column = {phrase: number for number, phrase in enumerate(distinct)}
        # (captions, distinct phrases), in float64 for the means over thousands of phrases
        cosines = (encoder.encode_texts(captions) @ encoder.encode_texts(distinct).T).astype(
            np.float64
        )
        for row in np.flatnonzero(n).tolist():
            is_own = np.zeros(len(distinct), dtype=bool)
            # A phrase of this caption is no other phrase, even if other captions have it, too.
            is_own[[column[phrase] for phrase in phrases[row]]] = True
            own_mean[row] = cosines[row, is_own].mean()
            if not is_own.all():
                other_mean[row] = cosines[row, ~is_own].mean()
    return {"n": n, "own": own_mean, "other": other_mean}
