from __future__ import annotations

import numpy as np
import pytest

from cae_lib.data.similarity import SentencePairs
from cae_lib.evaluation.similarity import similarities


def test_cosines_of_hand_written_vectors(hand_encoder):
    encoder = hand_encoder({}, {"a": [1.0, 0.0], "b": [0.6, 0.8], "c": [0.0, 1.0]})
    pairs = SentencePairs(
        "SICK-R", ("a", "a", "b"), ("b", "c", "b"), np.array([3.0, 1.0, 5.0]),
        {"one": 1, "two": 2}, 4,
    )
    found = similarities(pairs, encoder)
    assert found.columns.tolist() == ["set", "part", "pair", "gold", "score"]
    np.testing.assert_allclose(found.score, [0.6, 0.0, 1.0], atol=1e-7)
    assert found.gold.tolist() == [3, 1, 5] and found.pair.tolist() == [0, 1, 2]
    assert found.part.tolist() == ["one", "two", "two"] and set(found["set"]) == {"SICK-R"}
    assert found.score.corr(found.gold, method="spearman") == pytest.approx(1)
