from __future__ import annotations

from collections import Counter
from itertools import combinations

from cae_lib.data.world.export.aro import attribute_pairs
from cae_lib.data.world.export.crepe import compound
from cae_lib.data.world.export.files import paired
from cae_lib.data.world.export.sampling import fair, scenes, spread, text_generator
from cae_lib.data.world.scenes import Content, SceneConfig, Thing, generator
from cae_lib.data.world.vocabulary import COLORS, PATTERNS, RELATIONS, SIZES

CONFIG = SceneConfig()


def test_spread_gives_every_group_its_share():
    found = spread(scenes(CONFIG, "spread"), 60, lambda content: content.relation, list(RELATIONS))
    assert set(Counter(scene.content.relation for scene in found).values()) == {5}


def test_spread_fills_up_when_a_group_is_too_rare():
    found = spread(
        scenes(CONFIG, "spread"), 20,
        lambda content: "on" if content.relation == "on" else None, ["on", "never"],
    )  # fmt: skip
    assert len(found) == 20
    assert {scene.content.relation for scene in found} == {"on"}


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
    pictures, places = paired(drawn, "x/{}.jpg")
    assert [picture.path for picture in pictures] == ["x/1.jpg", "x/2.jpg"]
    assert pictures[1].scenes == (drawn[2], drawn[0])
    boxes = [(path, box["x"], box["y"]) for path, box in places]
    assert boxes == [("x/1.jpg", 0, 0), ("x/1.jpg", 112, 0), ("x/2.jpg", 0, 0)]
    assert pictures[1].box(1) == {"x": 0, "y": 112, "width": 112, "height": 112}


def test_compound_captions_have_the_atoms_asked_for():
    things = (
        Thing("cat", "red", "small", "striped"), Thing("dog", "blue", "large"),
        Thing("hat", "pink"), Thing("key", "green", None, "spotted"),
    )  # fmt: skip
    content = Content(things, "on")
    for n in range(4, 13):
        statement = compound(content, n, generator(0, n))
        assert statement.n_atoms == n
        words = statement.text.split()
        assert words.count("there") == len(statement.mentions) - 2
    assert compound(content, 99, generator(0)).n_atoms == 4 + 1 + 8
