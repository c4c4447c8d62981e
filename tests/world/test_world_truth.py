from __future__ import annotations

import pytest

from cae_lib.world.layout import Placement
from cae_lib.world.scenes import Content, Scene, Thing, arrange
from cae_lib.world.statements import false_attributes, may_have, may_hold
from cae_lib.world.vocabulary import KIND_OF, RELATIONS

# What a viewer may read into `cat RELATION dog` beside the relation itself, worked out by hand.
READ_INTO = {
    "left of": set(),
    "right of": set(),
    "above": {"on", "riding"},
    "below": {"under"},
    "on": {"above", "riding", "holding", "touching"},
    "under": {"below", "holding", "touching"},
    "riding": {"above", "on", "holding", "touching"},
    "touching": {"holding"},
    "chasing": set(),
}


def scene(relation: str, seed: int = 0) -> Scene:
    return arrange(Content((Thing("cat", "red"), Thing("dog", "blue")), relation), seed)


@pytest.mark.parametrize("relation", RELATIONS)
def test_the_relation_shown_holds_in_one_order_only(relation):
    for seed in range(20):
        assert may_hold(scene(relation, seed), 0, relation, 1)
        assert not may_hold(scene(relation, seed), 1, relation, 0)


@pytest.mark.parametrize("relation", [n for n, kind in RELATIONS.items() if kind.inverse])
def test_the_inverse_holds_in_the_other_order(relation):
    inverse = RELATIONS[relation].inverse
    for seed in range(20):
        assert may_hold(scene(relation, seed), 1, inverse, 0)
        assert not may_hold(scene(relation, seed), 0, inverse, 1)


@pytest.mark.parametrize("relation", READ_INTO)
def test_other_readings_count_as_possible(relation):
    shown = scene(relation)
    others = set(RELATIONS) - {relation, "in front of", "behind", "left of", "right of"}
    assert {name for name in others if may_hold(shown, 0, name, 1)} == READ_INTO[relation] - {
        relation
    }


@pytest.mark.parametrize("relation", ["in front of", "behind"])
def test_depth_is_denied_only_by_its_inverse(relation):
    for seed in range(20):
        certain = {n for n in RELATIONS if not may_hold(scene(relation, seed), 0, n, 1)}
        positions = {n for n in certain if not RELATIONS[n].action}
        assert positions == {RELATIONS[relation].inverse}
        assert may_hold(scene("left of", seed), 0, relation, 1)


def test_further_things_are_judged_by_their_place():
    things = Thing("cat", "red"), Thing("dog", "blue"), Thing("hat", "pink")
    places = Placement(0.3, 0.5, 0.2), Placement(0.7, 0.5, 0.2), Placement(0.3, 0.1, 0.2)
    shown = Scene(Content(things, "left of"), places, "plain", 0)
    assert may_hold(shown, 2, "above", 0) and not may_hold(shown, 2, "below", 0)
    assert may_hold(shown, 2, "on", 0) and not may_hold(shown, 2, "on", 1)
    assert may_hold(shown, 2, "left of", 1) and not may_hold(shown, 2, "left of", 0)
    assert not may_hold(shown, 2, "chasing", 0) and not may_hold(shown, 2, "touching", 0)


def test_adjectives():
    cat = Thing("cat", "red", None, "striped")
    assert may_have(cat, "red") and not may_have(cat, "blue")
    assert may_have(cat, "striped") and not may_have(cat, "spotted")
    assert may_have(cat, "small") and may_have(cat, "large")
    assert false_attributes(cat, "size") == []
    assert false_attributes(Thing("cat", "red", "small"), "size") == ["large"]
    assert false_attributes(cat, "pattern") == ["spotted", "checkered"]
    assert "red" not in false_attributes(cat, "color") and len(false_attributes(cat, "color")) == 7
    assert [KIND_OF[word] for word in ("red", "spotted", "large")] == ["color", "pattern", "size"]
