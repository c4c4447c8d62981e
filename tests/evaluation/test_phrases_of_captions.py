"""Cosines of captions to their own phrases and to others', on hand-made vectors."""

from __future__ import annotations

import pytest

from cae_lib.evaluation import phrases, suite
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.phrases import captions_and_phrases, cosines, phrase_similarity

PHRASES = (
    {"object": ("cat",), "attribute": ("red cat", "big cat"), "relation": ()},
    {"object": ("dog",), "attribute": ("red cat",), "relation": ("dog on bed",)},
    {"object": ("dog",), "attribute": (), "relation": ()},
)
VECTORS = {
    "one": (1, 0), "two": (0, 1), "three": (0.6, 0.8), "cat": (1, 0), "dog": (0.6, 0.8),
    "red cat": (0.8, 0.6), "big cat": (0, 1), "dog on bed": (0, -1),
}  # fmt: skip


def test_own_phrases_and_those_of_others(hand_encoder):
    found = cosines(hand_encoder({}, VECTORS), ("one", "two", "three"), PHRASES)
    assert found["object"]["own"] == pytest.approx([1.0, 0.8, 1.0])
    assert found["object"]["other"] == pytest.approx([0.6, 0.0, 0.6])
    assert found["attribute"]["own"] == pytest.approx([0.4, 0.6, None])
    assert found["attribute"]["other"] == [None, 1.0, None]
    assert found["relation"]["own"] == [None, -1.0, None]
    assert found["relation"]["other"] == [None, None, None]
    assert [found[kind]["n_phrases"] for kind in found] == [3, 3, 1]


def test_a_phrase_is_weighed_once_however_often_it_occurs(hand_encoder):
    """ "dog" is in two captions, and counts once among the phrases of others."""
    three = ({"object": ("cat",), "attribute": (), "relation": ()}, *PHRASES[1:])
    found = cosines(hand_encoder({}, VECTORS), ("two", "one", "one"), three)
    assert found["object"]["other"][0] == pytest.approx(0.8)


def test_the_small_world_gives_gold_phrases(smoke_world, monkeypatch, tiny_clip):
    for module in (suite, phrases):
        monkeypatch.setattr(module, "data_root", lambda profile: smoke_world)
    for cached in (suite.retrieval_pairs, captions_and_phrases):
        cached.cache_clear()
    found = phrase_similarity(Encoder(tiny_clip), "smoke")
    assert found["source"] == "gold scene graph"
    assert found["n_used"] == found["n_expected"] == len(found["kinds"]["object"]["own"]) == 120
    assert None not in found["kinds"]["object"]["own"]
    assert all(found["kinds"][kind]["n_phrases"] > 0 for kind in ("attribute", "relation"))
    for cached in (suite.retrieval_pairs, captions_and_phrases):
        cached.cache_clear()
