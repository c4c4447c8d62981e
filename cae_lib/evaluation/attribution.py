"""How much attribution the words of each role get: Figures 1 and 7 of the paper."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from cae_lib.attribution import METHODS
from cae_lib.data.captions import Pairs
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.word_sample import evaluating, word_sample
from cae_lib.words.alignment import Alignment
from cae_lib.words.roles import ROLE_NAMES

CAPTIONS = 500


def attribution_table(
    encoder: Encoder,
    pairs: Pairs,
    alignment: Alignment,
    methods: Iterable[str] = METHODS,
    limit: int | None = CAPTIONS,
    batch_size: int = 100,
    **parameters: Any,
) -> pd.DataFrame:
    """Score the words of matched captions by attribution methods.

    Args:
        encoder: Gives the picture features and holds the model.
        pairs: Captions with their pictures.
        alignment: Tokens and roles of these captions.
        methods: Names of the attribution methods.
        limit: Number of captions, taken evenly over the set; None takes all.
        batch_size: Captions a forward pass.
        **parameters: Parameters of the methods.

    Returns:
        A row for each method and each token that belongs to a word: method, caption and picture
        (numbers in `pairs`), position of the token, word and role (texts), score.
    """
    sample, model = word_sample(encoder, pairs, alignment, limit), encoder.clip.model
    words = sample.words.cpu().numpy()
    place, position = np.nonzero(words)
    texts = [sample.word_texts(i, encoder.clip.tokenizer) for i in range(len(words))]
    tokens = {
        "caption": sample.captions[place],
        "picture": sample.pictures[place],
        "position": position.astype(np.int16),
        "word": [texts[i][n - 1] for i, n in zip(place, words[place, position], strict=True)],
        "role": np.array(ROLE_NAMES)[sample.roles.cpu().numpy()[place, position]],
    }
    parts = []
    with evaluating(model):
        for method in methods:
            scores = sample.token_scores(model, method, batch_size, **parameters).cpu().numpy()
            scored = {"method": method, **tokens, "score": scores[place, position]}
            parts.append(pd.DataFrame(scored))
    return pd.concat(parts, ignore_index=True)
