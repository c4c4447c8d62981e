"""Cosines of sentences, and of captions to their own phrases and others', on hand-made vectors."""

from __future__ import annotations

import numpy as np

from cae_lib.data.similarity import SentencePairs
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.sets import retrieval_pairs
from cae_lib.evaluation.similarity import cosines, phrase_table, similarities

PHRASES = (
    {"object": ("cat",), "attribute": ("red cat", "big cat"), "relation": ()},
    {"object": ("dog",), "attribute": ("red cat",), "relation": ("dog on bed",)},
    {"object": ("dog",), "attribute": (), "relation": ()},
)
VECTORS = {
    "one": (1, 0), "two": (0, 1), "three": (0.6, 0.8), "cat": (1, 0), "dog": (0.6, 0.8),
    "red cat": (0.8, 0.6), "big cat": (0, 1), "dog on bed": (0, -1),
}
NAN = np.nan


def test_sentences(hand_encoder):
    encoder = hand_encoder({}, {"a": [1.0, 0.0], "b": [0.6, 0.8], "c": [0.0, 1.0]})
    gold, sizes = np.array([3.0, 1.0, 5.0]), {"one": 1, "two": 2}
    pairs = SentencePairs("SICK-R", ("a", "a", "b"), ("b", "c", "b"), gold, sizes, 4, {})
    found = similarities(pairs, encoder)
    assert found.columns.tolist() == ["set", "part", "pair", "gold", "score"]
    np.testing.assert_allclose(found.score, [0.6, 0.0, 1.0], atol=1e-7)
    assert found.gold.tolist() == [3, 1, 5] and found.pair.tolist() == [0, 1, 2]
    assert found.part.tolist() == ["one", "two", "two"] and set(found["set"]) == {"SICK-R"}


def test_own_phrases_and_those_of_others_each_weighed_once(hand_encoder):
    found = cosines(hand_encoder({}, VECTORS), ("one", "two", "three"), PHRASES)
    expected = {
        "object": ([1, 1, 1], [1.0, 0.8, 1.0], [0.6, 0.0, 0.6]),
        "attribute": ([2, 1, 0], [0.4, 0.6, NAN], [NAN, 1.0, NAN]),
        "relation": ([0, 1, 0], [NAN, -1.0, NAN], [NAN, NAN, NAN]),
    }
    for kind, columns in expected.items():
        for name, values in zip(("n", "own", "other"), columns, strict=True):
            np.testing.assert_allclose(found[kind][name], values, atol=1e-6, err_msg=kind + name)


def test_the_small_world_gives_gold_phrases(world_home, tiny_clip):
    found = phrase_table(Encoder(tiny_clip), "smoke")
    assert list(found) == ["caption", "picture", "kind", "n", "own", "other"]
    objects = found[found.kind == "object"]
    assert list(objects.caption) == list(range(120)) and objects.own.notna().all()
    assert list(objects.picture) == retrieval_pairs("smoke", "coco").image_index.tolist()
    assert (found.own.notna() == (found.n > 0)).all() and found.groupby("kind").n.sum().min() > 0
