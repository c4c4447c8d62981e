from __future__ import annotations

import numpy as np
import pytest

from cae_lib.world.config import COCO, WEB
from cae_lib.world.grammar import CaptionStyle, describe
from cae_lib.world.layout import Placement
from cae_lib.world.scenes import Content, Scene, Thing, arrange
from cae_lib.world.statements import (
    Mention,
    Statement,
    false_attributes,
    may_have,
    may_hold,
    read,
    stated,
)
from cae_lib.world.vocabulary import KIND_OF, RELATIONS

CONTENT = Content((Thing("cat", "red", "small"), Thing("ox", "blue"), Thing("hat", "pink")), "on")
FULL = CaptionStyle(attribute=1, second=1, relation=1, extra=1, position=1, prefix=1, copula=0)


def test_text_of_a_statement():
    mentions = Mention("cat", ("red", "small")), Mention("apple")
    statement = Statement(mentions, ("we see", "is on", "at the top"), (0, "on", 1))
    assert statement.text == "we see a small red cat is on an apple at the top"
    assert statement.n_atoms == 5
    assert statement.with_relation("under").text == (
        "we see a small red cat is under an apple at the top"
    )
    assert statement.with_relation("under").relation == (0, "under", 1)
    changed = statement.with_mention(1, Mention("dog", ("orange",), "the"))
    assert changed.text == "we see a small red cat is on the orange dog at the top"


def test_the_main_pair_stated():
    assert stated(CONTENT).text == "a cat is on an ox"
    assert stated(CONTENT, [("red",), ()], article="the").text == "the red cat is on the ox"


def test_a_caption_read_in_parts():
    scene = arrange(CONTENT, 2)
    caption = describe(scene, FULL, np.random.default_rng(0))
    statement = read(caption, CONTENT)
    assert [m.noun for m in statement.mentions] == ["cat", "ox", "hat"]
    assert [m.attributes for m in statement.mentions] == [("small", "red"), ("blue",), ("pink",)]
    assert statement.relation == (0, "on", 1)
    assert statement.pieces[1] in ("on", "on top of") and statement.pieces[2] == "and"


def test_reading_keeps_the_text_and_every_caption_may_be_true(sampled):
    for index, scene in enumerate(sampled[:300]):
        for style in (WEB, COCO):
            caption = describe(scene, style, np.random.default_rng(index))
            statement = read(caption, scene.content)
            assert statement.text == caption.text
            assert statement.may_be_true(scene)
            assert (statement.relation is not None) == bool(caption.relations)


def test_what_makes_a_statement_false():
    scene = arrange(CONTENT, 0)
    true = stated(CONTENT, [("red",), ("blue",)])
    assert true.may_be_true(scene)
    assert not true.with_mention(0, Mention("dog")).may_be_true(scene)
    assert not true.with_mention(0, Mention("cat", ("blue",))).may_be_true(scene)
    assert not true.with_mention(0, Mention("cat", ("large",))).may_be_true(scene)
    assert true.with_mention(1, Mention("ox", ("large",))).may_be_true(scene)
    assert not true.with_relation("under").may_be_true(scene)
    assert true.with_relation("above").may_be_true(scene)
    swapped = true.with_mention(0, true.mentions[1]).with_mention(1, true.mentions[0])
    assert not swapped.may_be_true(scene)
    assert Statement(swapped.mentions, ("", "and", "")).may_be_true(scene)


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


def pair_in(relation: str, seed: int = 0) -> Scene:
    return arrange(Content((Thing("cat", "red"), Thing("dog", "blue")), relation), seed)


@pytest.mark.parametrize("relation", RELATIONS)
def test_the_relation_shown_holds_in_one_order_only(relation):
    for seed in range(20):
        assert may_hold(pair_in(relation, seed), 0, relation, 1)
        assert not may_hold(pair_in(relation, seed), 1, relation, 0)


@pytest.mark.parametrize("relation", [n for n, kind in RELATIONS.items() if kind.inverse])
def test_the_inverse_holds_in_the_other_order(relation):
    inverse = RELATIONS[relation].inverse
    for seed in range(20):
        assert may_hold(pair_in(relation, seed), 1, inverse, 0)
        assert not may_hold(pair_in(relation, seed), 0, inverse, 1)


@pytest.mark.parametrize("relation", READ_INTO)
def test_other_readings_count_as_possible(relation):
    shown = pair_in(relation)
    others = set(RELATIONS) - {relation, "in front of", "behind", "left of", "right of"}
    assert {name for name in others if may_hold(shown, 0, name, 1)} == READ_INTO[relation] - {
        relation
    }


@pytest.mark.parametrize("relation", ["in front of", "behind"])
def test_depth_is_denied_only_by_its_inverse(relation):
    for seed in range(20):
        certain = {n for n in RELATIONS if not may_hold(pair_in(relation, seed), 0, n, 1)}
        positions = {n for n in certain if not RELATIONS[n].action}
        assert positions == {RELATIONS[relation].inverse}
        assert may_hold(pair_in("left of", seed), 0, relation, 1)


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


def test_a_denied_noun():
    none = Statement((Mention("cat", (), "no"),), ("there is", ""))
    assert none.text == "there is no cat" and not none.may_be_true(pair_in("above"))
    assert none.changed(0, noun="hat").may_be_true(pair_in("above"))
