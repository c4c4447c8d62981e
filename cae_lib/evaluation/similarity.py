"""Similarity of sentences: cosines of text features beside human scores.

As in the literature on sentence embeddings since SimCSE (Gao et al. 2021), the number of a set is
the correlation over all of its pairs together, not the mean over its parts.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cae_lib.data.similarity import SentencePairs
from cae_lib.evaluation.embed import Encoder


def similarities(pairs: SentencePairs, encoder: Encoder) -> pd.DataFrame:
    """Cosine of the text features of each pair of a set.

    Returns:
        `set`; `part`, a file of the set; `pair`, number in the set; `gold`, the human score;
        `score`, the cosine.
    """
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
