from __future__ import annotations

from collections import Counter
from itertools import combinations

from cae_lib.world.benchmarks import attribute_pairs, compound
from cae_lib.world.export import Export
from cae_lib.world.scenes import (
    Content,
    SceneConfig,
    Thing,
    fair,
    generator,
    scenes,
    spread,
    text_generator,
)
from cae_lib.world.vocabulary import COLORS, PATTERNS, RELATIONS, SIZES

CONFIG = SceneConfig()


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


def test_attribute_pairs_are_each_in_one_order():
    pairs = attribute_pairs(CONFIG)
    unordered = [{a, b} for kind in (COLORS, PATTERNS, SIZES) for a, b in combinations(kind, 2)]
    assert [set(pair) for pair in pairs] == unordered
    assert 0.2 < sum(a < b for a, b in pairs) / len(pairs) < 0.8


def test_two_scenes_share_a_picture():
    drawn = [next(scenes(CONFIG, str(i))) for i in range(3)]
    export = Export("x")
    places = export.show_pairs(drawn, "x/{}.jpg")
    pictures = export.pictures
    assert [picture.path for picture in pictures] == ["x/1.jpg", "x/2.jpg"]
    assert pictures[1].scenes == (drawn[2], drawn[0])
    boxes = [(picture.path, *box[:2]) for picture, box in places]
    assert boxes == [("x/1.jpg", 0, 0), ("x/1.jpg", 112, 0), ("x/2.jpg", 0, 0)]
    assert pictures[1].box(1) == (0, 112, 112, 112)


def test_compound_captions_have_the_atoms_asked_for():
    things = (
        Thing("cat", "red", "small", "striped"),
        Thing("dog", "blue", "large"),
        Thing("hat", "pink"),
        Thing("key", "green", None, "spotted"),
    )
    content = Content(things, "on")
    for n in range(4, 13):
        statement = compound(content, n, generator(0, n))
        assert statement.n_atoms == n
        words = statement.text.split()
        assert words.count("there") == len(statement.mentions) - 2
    assert compound(content, 99, generator(0)).n_atoms == 4 + 1 + 8
