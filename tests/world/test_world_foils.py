from __future__ import annotations

import numpy as np
import pytest

from cae_lib.world.config import COCO
from cae_lib.world.foils import (
    FOILS,
    absent_nouns,
    attribute_exchanges,
    attributes_added,
    attributes_exchanged,
    attributes_replaced,
    certainly_false,
    exchanges,
    foil,
    mention_added,
    negations,
    nouns_exchanged,
    nouns_replaced,
    phrases_exchanged,
    plausible,
    relations_like,
    relations_replaced,
)
from cae_lib.world.grammar import describe
from cae_lib.world.scenes import Content, Thing, arrange
from cae_lib.world.statements import Mention, Statement, read, stated
from cae_lib.world.vocabulary import NOUNS

CONTENT = Content((Thing("cat", "red", "small"), Thing("dog", "blue", None, "striped")), "chasing")
SCENE = arrange(CONTENT, 1)
TRUE = stated(CONTENT, [("small", "red"), ("blue",)])


def texts(statements):
    return [statement.text for statement in statements]


def test_exchanges_by_hand():
    assert TRUE.text == "a small red cat is chasing a blue dog"
    assert nouns_exchanged(TRUE, 0, 1).text == "a small red dog is chasing a blue cat"
    assert phrases_exchanged(TRUE, 0, 1).text == "a blue dog is chasing a small red cat"
    assert attributes_exchanged(TRUE, 0, 1).text == "a blue cat is chasing a small red dog"
    assert attributes_exchanged(TRUE, 0, 1, ("color",)).text == (
        "a small blue cat is chasing a red dog"
    )
    assert texts(attribute_exchanges(TRUE)) == [
        "a blue cat is chasing a small red dog",
        "a red cat is chasing a small blue dog",
        "a small blue cat is chasing a red dog",
    ]


def test_only_false_exchanges_are_kept_each_text_once():
    kept = texts(certainly_false(exchanges(TRUE), SCENE, TRUE.text))
    assert "a blue cat is chasing a small red dog" in kept
    assert "a red cat is chasing a small blue dog" not in kept  # the dog has no notable size
    assert len(kept) == len(set(kept)) == 4
    assert (
        certainly_false(exchanges(TRUE), SCENE, TRUE.text, 2)
        == (certainly_false(exchanges(TRUE), SCENE, TRUE.text)[:2])
    )


def test_a_list_of_things_has_no_false_order():
    both = Statement((Mention("cat"), Mention("dog")), ("", "and", ""))
    assert certainly_false(exchanges(both), SCENE, both.text) == []


def test_replaced_parts():
    assert set(absent_nouns(SCENE)) == set(NOUNS) - {"cat", "dog"}
    nouns = {statement.mentions[0].noun for statement in nouns_replaced(TRUE, 0, SCENE)}
    assert "house" not in nouns and "bear" in nouns
    replaced = texts(attributes_replaced(TRUE, SCENE))
    assert len(replaced) == 1 + 7 + 7
    assert "a large red cat is chasing a blue dog" in replaced
    relations = {statement.relation[1] for statement in relations_replaced(TRUE, SCENE)}
    assert relations == {"riding", "touching", "holding", "above", "below", "on", "under"} - {
        "holding"
    } | ({"left of"} if SCENE.placements[0].x > SCENE.placements[1].x else {"right of"})
    alike = {statement.relation[1] for statement in relations_like(TRUE, SCENE)}
    assert alike == {"riding", "touching"}


@pytest.mark.parametrize("kind", FOILS)
def test_a_foil_is_false_and_can_be_shown(kind, sampled):
    found = 0
    for index, scene in enumerate(sampled[:100]):
        rng = np.random.default_rng(index)
        true = read(describe(scene, COCO, rng), scene.content)
        if len(true.mentions) > 1:
            false = foil(kind, true, scene, rng)
            found += false is not None
            assert false is None or (plausible(false) and not false.may_be_true(scene))
    assert found > 10


def test_added_parts():
    added = texts(attributes_added(TRUE, SCENE))
    assert "a small striped red cat is chasing a blue dog" in added
    assert "a small red cat is chasing a spotted blue dog" in added
    assert not any("striped blue dog" in text for text in added)
    assert not any("large" in text for text in added)
    assert mention_added(TRUE, Mention("hat", ("pink",))).text == f"{TRUE.text} and a pink hat"


def test_negations_deny_each_part():
    assert negations(TRUE) == [
        "it is not true that a small red cat is chasing a blue dog",
        "no small red cat is chasing a blue dog",
        "a red cat that is not small is chasing a blue dog",
        "a small cat that is not red is chasing a blue dog",
        "a small red cat is chasing no blue dog",
        "a small red cat is chasing a dog that is not blue",
        "a small red cat is not chasing a blue dog",
    ]


def test_plausible_statements_can_be_shown():
    ride = Content((Thing("cat", "red"), Thing("bus", "blue")), "riding")
    assert plausible(stated(ride))
    assert not plausible(phrases_exchanged(stated(ride), 0, 1))
    assert plausible(Statement((Mention("bus"), Mention("cat")), ("", "and", "")))
