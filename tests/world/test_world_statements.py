from __future__ import annotations

import numpy as np

from cae_lib.world.config import COCO, WEB
from cae_lib.world.grammar import CaptionStyle, describe
from cae_lib.world.scenes import Content, Thing, arrange
from cae_lib.world.statements import Mention, Statement, read, stated

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
    assert stated(CONTENT, copula=False).text == "a cat on an ox"


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
