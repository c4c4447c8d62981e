from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from cae_lib.world.scenes import (
    Content,
    SceneConfig,
    Thing,
    arrange,
    fair,
    generator,
    sample_scene,
    scenes,
    spread,
    text_generator,
)
from cae_lib.world.vocabulary import RELATIONS, admits

CONFIG = SceneConfig()


def test_a_scene_is_a_function_of_configuration_split_and_number():
    assert sample_scene(CONFIG, "train", 7) == sample_scene(CONFIG, "train", 7)
    others = [
        sample_scene(CONFIG, "train", 8),
        sample_scene(CONFIG, "test", 7),
        sample_scene(SceneConfig(seed=1), "train", 7),
    ]
    assert all(other.content != sample_scene(CONFIG, "train", 7).content for other in others)


def test_every_scene_can_be_shown_and_names_each_noun_once(sampled):
    for scene in sampled:
        nouns = [thing.noun for thing in scene.content.things]
        assert 2 <= len(nouns) == len(set(nouns)) == len(scene.placements)
        assert admits(nouns[0], scene.content.relation, nouns[1])
    assert {scene.content.relation for scene in sampled} == set(RELATIONS)


def test_attributes_and_extras_are_as_frequent_as_configured(sampled):
    things = [thing for scene in sampled for thing in scene.content.things]
    assert np.mean([t.size is not None for t in things]) == pytest.approx(CONFIG.sized, abs=0.03)
    patterned = np.mean([t.pattern is not None for t in things])
    assert patterned == pytest.approx(CONFIG.patterned, abs=0.03)
    none = np.mean([len(scene.content.things) == 2 for scene in sampled])
    assert none == pytest.approx(CONFIG.extras[0], abs=0.07)


def test_a_pair_has_a_usual_order_of_arguments():
    config = SceneConfig(natural_order=1.0)
    orders: dict[tuple[frozenset[str], str], set[str]] = {}
    for index in range(600):
        content = sample_scene(config, "orders", index).content
        first, second = (thing.noun for thing in content.things[:2])
        orders.setdefault((frozenset((first, second)), content.relation), set()).add(first)
    assert all(len(firsts) == 1 for firsts in orders.values())
    assert len(orders) < 600


def test_edits_of_a_content():
    cat, dog = Thing("cat", "red", "small", None), Thing("dog", "blue", None, "striped")
    content = Content((cat, dog, Thing("hat", "pink")), "above")
    assert [t.noun for t in content.swapped().things] == ["dog", "cat", "hat"]
    assert content.swapped().relation == "above"
    exchanged = content.colors_exchanged().things
    assert [(t.noun, t.color) for t in exchanged[:2]] == [("cat", "blue"), ("dog", "red")]
    assert exchanged[0].size == "small"
    assert content.with_thing(1, noun="cow").things[1] == Thing("cow", "blue", None, "striped")
    assert dog.attributes == ("striped", "blue")
    assert Thing("cat", "red", "large", "spotted").attributes == ("large", "spotted", "red")


def test_arranging_is_repeatable_and_depends_on_the_seed():
    content = Content((Thing("cat", "red"), Thing("dog", "blue"), Thing("hat", "pink")), "on")
    assert arrange(content, 3) == arrange(content, 3)
    assert arrange(content, 3).placements != arrange(content, 4).placements


def test_spread_gives_every_relation_its_share():
    found = spread(CONFIG, "spread", 60, list(RELATIONS))
    assert set(Counter(scene.content.relation for scene in found).values()) == {5}
    found = spread(CONFIG, "spread", 20, ["on", "never"])  # filled up, as one is too rare
    assert [scene.content.relation for scene in found] == ["on"] * 20
    found = spread(CONFIG, "spread", 20, ["chasing"], swappable=True)
    assert all(scene.content.swappable() for scene in found)


def test_fair_scenes_stand_in_both_orders():
    shown = [(next(scenes(CONFIG, str(i))), i) for i in range(80)]
    changed = [fair(scene, i).content != scene.content for scene, i in shown]
    assert not any(changed[::2])
    assert sum(changed[1::2]) > 20
    for scene, index in shown:
        nouns = [t.noun for t in scene.content.things[:2]]
        assert sorted(t.noun for t in fair(scene, index).content.things[:2]) == sorted(nouns)


def test_texts_have_a_generator_apart_from_the_scene():
    assert text_generator(CONFIG, "a", 1).random() != generator(CONFIG.seed, "a", 1).random()
