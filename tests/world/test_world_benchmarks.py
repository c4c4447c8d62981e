from __future__ import annotations

from itertools import combinations

from cae_lib.world.benchmarks import attribute_pairs, compound
from cae_lib.world.export import Export
from cae_lib.world.scenes import Content, SceneConfig, Thing, generator, scenes
from cae_lib.world.vocabulary import COLORS, PATTERNS, SIZES

CONFIG = SceneConfig()


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
