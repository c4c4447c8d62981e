from __future__ import annotations

from itertools import permutations

import pytest

from cae_lib.world.vocabulary import (
    ANIMATE,
    COLORS,
    GLYPHS,
    NOUNS,
    PATTERNS,
    RELATIONS,
    SIZES,
    THINGS,
    VAGUE_RELATIONS,
    VEHICLES,
    admits,
    canonical,
    stated,
)


def test_every_word_has_one_meaning():
    wordings = [wording for kind in RELATIONS.values() for wording in kind.wordings]
    words = [*NOUNS, *COLORS, *SIZES, *PATTERNS, *wordings, *VAGUE_RELATIONS]
    assert len(words) == len(set(words))
    assert len(set(GLYPHS.values())) == len(NOUNS)
    assert ANIMATE | VEHICLES | THINGS == set(NOUNS)
    assert not (ANIMATE & VEHICLES or ANIMATE & THINGS or VEHICLES & THINGS)


def test_inverses_are_mutual():
    for name, kind in RELATIONS.items():
        if kind.inverse is not None:
            assert RELATIONS[kind.inverse].inverse == name != kind.inverse


@pytest.mark.parametrize(
    ("subject", "relation", "obj", "possible"),
    [
        ("cat", "riding", "horse", True),
        ("cat", "riding", "bus", True),
        ("bus", "riding", "cat", False),
        ("cat", "riding", "house", False),
        ("dog", "chasing", "ball", False),
        ("bear", "holding", "umbrella", True),
        ("umbrella", "holding", "bear", False),
        ("bear", "holding", "tree", False),
        ("cup", "touching", "cat", False),
        ("cup", "left of", "cat", True),
        ("cup", "on", "cup", False),
    ],
)
def test_what_the_world_can_show(subject, relation, obj, possible):
    assert admits(subject, relation, obj) is possible


def test_every_relation_has_pairs_and_its_canonical_wording_is_its_name():
    for name in RELATIONS:
        assert canonical(name) == name
        assert any(admits(a, name, b) for a, b in permutations(NOUNS, 2))


def test_what_a_caption_states():
    assert stated("a photo of a small red cat to the left of a dog near a hat on the left") == (
        3,
        2,
        2,
    )
    assert stated("a cat to the left of a dog at the top") == (2, 0, 1)
