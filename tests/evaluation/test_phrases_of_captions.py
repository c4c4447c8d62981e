"""Cosines of captions to their own phrases and to others', on hand-made vectors."""

from __future__ import annotations

import numpy as np
import pytest

from cae_lib.evaluation import phrases, sets
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.phrases import captions_and_phrases, cosines, phrase_table

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


def test_own_phrases_and_those_of_others(hand_encoder):
    found = cosines(hand_encoder({}, VECTORS), ("one", "two", "three"), PHRASES)
    expected = {
        "object": ([1, 1, 1], [1.0, 0.8, 1.0], [0.6, 0.0, 0.6]),
        "attribute": ([2, 1, 0], [0.4, 0.6, NAN], [NAN, 1.0, NAN]),
        "relation": ([0, 1, 0], [NAN, -1.0, NAN], [NAN, NAN, NAN]),
    }
    for kind, columns in expected.items():
        for name, values in zip(("n", "own", "other"), columns, strict=True):
            np.testing.assert_allclose(found[kind][name], values, atol=1e-6, err_msg=kind + name)


def test_a_phrase_is_weighed_once_however_often_it_occurs(hand_encoder):
    """ "dog" is in two captions, and counts once among the phrases of others."""
    three = ({"object": ("cat",), "attribute": (), "relation": ()}, *PHRASES[1:])
    found = cosines(hand_encoder({}, VECTORS), ("two", "one", "one"), three)
    assert found["object"]["other"][0] == pytest.approx(0.8)


def test_the_small_world_gives_gold_phrases(smoke_world, monkeypatch, tiny_clip):
    for module in (sets, phrases):
        monkeypatch.setattr(module, "data_root", lambda profile: smoke_world)
    cached = (sets.retrieval_pairs, captions_and_phrases)
    for function in cached:
        function.cache_clear()
    found = phrase_table(Encoder(tiny_clip), "smoke")
    pictures = sets.retrieval_pairs("smoke", "coco").image_index
    for function in cached:
        function.cache_clear()
    assert list(found) == ["caption", "picture", "kind", "n", "own", "other"]
    objects = found[found.kind == "object"]
    assert list(objects.caption) == list(range(120)) and objects.own.notna().all()
    assert list(objects.picture) == pictures.tolist()
    assert (found.own.notna() == (found.n > 0)).all() and found.groupby("kind").n.sum().min() > 0
