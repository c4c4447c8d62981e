"""Words, scenes, their geometry and their drawing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from cae_lib.world import vocabulary
from cae_lib.world.draw import IMAGE_SIZE, glyph, render
from cae_lib.world.layout import Placement, place, place_extra
from cae_lib.world.scenes import (
    Content,
    Scene,
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
from cae_lib.world.vocabulary import NOUNS, RELATIONS, SIZES, admits

CONFIG = SceneConfig()
CAT, DOG, HAT = Thing("cat", "red"), Thing("dog", "blue"), Thing("hat", "pink")


def test_every_word_has_one_meaning_and_inverses_are_mutual():
    wordings = [wording for kind in RELATIONS.values() for wording in kind.wordings]
    words = [*NOUNS, *vocabulary.KIND_OF, *wordings, *vocabulary.VAGUE_RELATIONS]
    assert len(words) == len(set(words))
    assert len(set(vocabulary.GLYPHS.values())) == len(NOUNS)
    groups = vocabulary.ANIMATE, vocabulary.VEHICLES, vocabulary.THINGS
    assert sorted(noun for group in groups for noun in group) == sorted(NOUNS)
    for name, kind in RELATIONS.items():
        assert kind.wordings[0] == name
        assert kind.inverse is None or RELATIONS[kind.inverse].inverse == name != kind.inverse
        assert any(admits(a, name, b) for a, b in permutations(NOUNS, 2))


@pytest.mark.parametrize(("statement", "possible"), [
    ("cat riding horse", True), ("cat riding bus", True), ("bus riding cat", False),
    ("cat riding house", False), ("dog chasing ball", False), ("bear holding umbrella", True),
    ("umbrella holding bear", False), ("bear holding tree", False), ("cup touching cat", False),
    ("cup left of cat", True), ("cup on cup", False),
])
def test_what_the_world_can_show(statement, possible):
    subject, *relation, obj = statement.split()
    assert admits(subject, " ".join(relation), obj) is possible


@pytest.mark.parametrize(("caption", "counts"), [
    ("a photo of a small red cat to the left of a dog near a hat on the left", (3, 2, 2)),
    ("a cat to the left of a dog at the top", (2, 0, 1)),
])
def test_what_a_caption_states(caption, counts):
    assert vocabulary.stated(caption) == counts


def test_a_scene_is_a_function_of_configuration_split_and_number():
    scene = sample_scene(CONFIG, "train", 7)
    assert scene == sample_scene(CONFIG, "train", 7) == list(scenes(CONFIG, "train", 8))[7]
    others = [("train", 8, 0), ("test", 7, 0), ("train", 7, 1)]
    for split, index, seed in others:
        assert sample_scene(SceneConfig(seed=seed), split, index).content != scene.content
    assert arrange(scene.content, 3) == arrange(scene.content, 3)
    assert arrange(scene.content, 3).placements != arrange(scene.content, 4).placements
    assert text_generator(CONFIG, "a", 1).random() != generator(CONFIG.seed, "a", 1).random()


def test_every_scene_can_be_shown_and_has_what_is_configured(sampled):
    for scene in sampled:
        nouns = [thing.noun for thing in scene.content.things]
        assert 2 <= len(nouns) == len(set(nouns)) == len(scene.placements)
        assert admits(nouns[0], scene.content.relation, nouns[1])
    assert {scene.content.relation for scene in sampled} == set(RELATIONS)
    things = [thing for scene in sampled for thing in scene.content.things]
    for field, share in (("size", CONFIG.sized), ("pattern", CONFIG.patterned)):
        found = np.mean([getattr(thing, field) is not None for thing in things])
        assert found == pytest.approx(share, abs=0.03)
    none = np.mean([len(scene.content.things) == 2 for scene in sampled])
    assert none == pytest.approx(CONFIG.extras[0], abs=0.07)


def test_a_pair_has_a_usual_order_of_arguments():
    orders: dict[tuple[frozenset[str], str], set[str]] = {}
    for scene in scenes(SceneConfig(natural_order=1.0), "orders", 600):
        first, second = (thing.noun for thing in scene.content.things[:2])
        orders.setdefault((frozenset((first, second)), scene.content.relation), set()).add(first)
    assert all(len(firsts) == 1 for firsts in orders.values())
    assert len(orders) < 600


def test_edits_of_a_content():
    cat, dog = Thing("cat", "red", "small"), Thing("dog", "blue", None, "striped")
    content = Content((cat, dog, HAT), "above")
    assert content.exchanged() == Content((dog, cat, HAT), "above")
    exchanged = content.exchanged("color").things
    assert exchanged == (replace(cat, color="blue"), replace(dog, color="red"), HAT)
    assert content.with_thing(1, noun="cow").things[1] == replace(dog, noun="cow")
    assert Thing("cat", "red", "large", "spotted").attributes == ("large", "spotted", "red")


def test_spread_gives_every_relation_its_share():
    found = spread(CONFIG, "spread", 60, list(RELATIONS))
    assert set(Counter(scene.content.relation for scene in found).values()) == {5}
    found = spread(CONFIG, "spread", 20, ["on", "never"])  # filled up, as one is too rare
    assert [scene.content.relation for scene in found] == ["on"] * 20
    found = spread(CONFIG, "spread", 20, ["chasing"], swappable=True)
    assert all(scene.content.swappable() for scene in found)


def test_fair_scenes_stand_in_both_orders(sampled):
    turned = [fair(scene, index) for index, scene in enumerate(sampled[:80])]
    pairs = list(zip(sampled, turned, strict=False))
    assert all(scene == other for scene, other in pairs[::2])
    assert sum(scene.content.exchanged() == other.content for scene, other in pairs[1::2]) > 20


# Each relation can be seen in the geometry, and no other reading of its pair is as good.
CENTRES = {
    "left of": lambda s, o: s.x < o.x - 0.1,
    "right of": lambda s, o: s.x > o.x + 0.1,
    "above": lambda s, o: s.y < o.y - 0.1,
    "below": lambda s, o: s.y > o.y + 0.1,
    "on": lambda s, o: s.y < o.y - 0.1 and s.overlap(o) > 0,
    "under": lambda s, o: s.y > o.y + 0.1 and s.overlap(o) > 0,
    "in front of": lambda s, o: s.overlap(o) > 0.1 and s.depth < o.depth and s.y > o.y,
    "behind": lambda s, o: s.overlap(o) > 0.1 and s.depth > o.depth and s.y < o.y,
    "riding": lambda s, o: s.y < o.y - 0.1 and s.overlap(o) > 0 and o.motion != 0,
    "holding": lambda s, o: s.overlap(o) > 0 and s.depth > o.depth,
    "chasing": lambda s, o: (o.x - s.x) * s.motion > 0.1 and o.motion == 0,
    "touching": lambda s, o: (o.x - s.x) * s.contact > 0.1 and s.overlap(o) > 0,
}


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_relation_is_visible_in_one_order_only(relation):
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sizes = [(None, *SIZES)[int(rng.integers(3))] for _ in range(2)]
        subject, obj = place(relation, *sizes, rng)
        assert CENTRES[relation](subject, obj) and not CENTRES[relation](obj, subject)
        assert all(0 < centre < 1 for p in (subject, obj) for centre in (p.x, p.y))
        if relation in ("left of", "right of", "above", "below"):
            assert subject.overlap(obj) == 0
            assert not (subject.motion or obj.motion or subject.contact or obj.contact)


def test_overlap_on_hand_worked_squares():
    square = Placement(0.5, 0.5, 0.4)
    assert square.overlap(Placement(0.7, 0.5, 0.4)) == pytest.approx(0.5)
    assert square.overlap(Placement(0.5, 0.5, 0.2)) == pytest.approx(1.0)
    assert square.overlap(Placement(0.95, 0.5, 0.4)) == 0


def test_extras_stay_inside_and_keep_clear_where_there_is_room():
    others = [Placement(0.2, 0.5, 0.3), Placement(0.5, 0.5, 0.3)]
    extras = [place_extra(others, None, np.random.default_rng(i)) for i in range(60)]
    assert all(p.scale / 2 <= p.x <= 1 - p.scale / 2 for p in extras)
    overlaps = [max(p.overlap(other) for other in others) for p in extras]
    assert np.mean([overlap < 0.2 for overlap in overlaps]) > 0.8


def pixels(*things: tuple[Thing, Placement]) -> np.ndarray:
    content = Content(tuple(thing for thing, _ in things), "left of")
    scene = Scene(content, tuple(where for _, where in things), "plain", 5)
    return np.asarray(render(scene)).astype(int)


def reddish(*things: tuple[Thing, Placement]) -> np.ndarray:
    """Mask of the pixels in which red exceeds blue and green clearly."""
    found = pixels(*things)
    return (found[..., 0] - found[..., 1:].max(-1)) > 40


def test_the_same_scene_gives_the_same_pixels_and_another_seed_or_style_others():
    scene = arrange(Content((CAT, DOG), "riding"), 1)
    first = np.asarray(render(scene))
    assert first.shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
    assert np.array_equal(first, np.asarray(render(scene)))
    assert not np.array_equal(first, np.asarray(render(replace(scene, seed=9))))
    assert first.mean() > np.asarray(render(replace(scene, style="poster"))).mean() + 20


def test_a_thing_is_drawn_at_its_place_and_the_nearer_one_hides_the_farther():
    red, blue = Thing("car", "red"), Thing("car", "blue")
    y, x = np.nonzero(reddish((red, Placement(0.25, 0.75, 0.3))))
    assert len(x) > 100
    assert x.mean() / IMAGE_SIZE == pytest.approx(0.25, abs=0.04)
    assert y.mean() / IMAGE_SIZE == pytest.approx(0.75, abs=0.06)
    near, far = Placement(0.5, 0.5, 0.5, depth=0), Placement(0.5, 0.5, 0.5, depth=1)
    assert reddish((red, near), (blue, far)).sum() > 10 * reddish((red, far), (blue, near)).sum()


@pytest.mark.parametrize("pattern", vocabulary.PATTERNS)
def test_a_pattern_changes_the_inside(pattern):
    where = Placement(0.5, 0.5, 0.6)
    plain, other = (pixels((Thing("car", "red", pattern=p), where)) for p in (None, pattern))
    assert np.mean(np.abs(other - plain).sum(-1) > 30) > 0.02


def test_every_noun_has_a_shape_of_its_own():
    shapes = [np.asarray(glyph(noun, 450)[0]) > 0 for noun in NOUNS]
    assert all(0.1 < shape.mean() < 0.95 for shape in shapes)
    for i, shape in enumerate(shapes):
        assert all((shape != other).mean() > 0.02 for other in shapes[:i])
