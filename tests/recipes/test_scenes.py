"""Words, scenes, their geometry and their drawing."""

from collections import Counter
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from PIL import ImageDraw

from cae_lab import scene_graphs
from data.recipes.synthetic_scenes import scenes as module
from data.recipes.synthetic_scenes import vocabulary
from data.recipes.synthetic_scenes.draw import IMAGE_SIZE, glyph, render
from data.recipes.synthetic_scenes.layout import Placement, place, place_extra
from data.recipes.synthetic_scenes.scenes import (
    Content,
    Scene,
    SceneConfig,
    Thing,
    arrange,
    fair_order,
    sample_scenes,
    spread,
)
from data.recipes.synthetic_scenes.vocabulary import NOUNS, RELATIONS, SIZES, admits

CONFIG = SceneConfig()


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


def test_the_library_knows_the_words():
    assert scene_graphs.NOUNS == NOUNS
    assert list(scene_graphs.ADJECTIVES) == list(vocabulary.KIND_OF)
    wordings = [wording for kind in RELATIONS.values() for wording in kind.wordings]
    assert list(scene_graphs.RELATIONS) == wordings
    assert scene_graphs.VAGUE_RELATIONS == vocabulary.VAGUE_RELATIONS


@pytest.mark.parametrize(
    ("statement", "possible"),
    [
        ("cat riding horse", True),
        ("cat riding bus", True),
        ("bus riding cat", False),
        ("cat riding house", False),
        ("dog chasing ball", False),
        ("bear holding umbrella", True),
        ("umbrella holding bear", False),
        ("bear holding tree", False),
        ("cup touching cat", False),
        ("cup left of cat", True),
        ("cup on cup", False),
    ],
)
def test_what_the_world_can_show(statement, possible):
    subject, *relation, obj = statement.split()
    assert admits(subject, " ".join(relation), obj) is possible


def test_a_scene_is_a_function_of_configuration_split_and_number():
    scene = module.sample_scene(CONFIG, "train", 7)
    assert scene == list(sample_scenes(CONFIG, "train", 8))[7]
    for split, index, seed in (("train", 8, 0), ("test", 7, 0), ("train", 7, 1)):
        assert module.sample_scene(SceneConfig(seed=seed), split, index).content != scene.content
    assert arrange(scene.content, 3) == arrange(scene.content, 3)
    assert arrange(scene.content, 3).placements != arrange(scene.content, 4).placements


def test_every_scene_can_be_shown_and_has_what_is_configured(sampled):
    for scene in sampled:
        nouns = [thing.noun for thing in scene.content.things]
        assert 2 <= len(nouns) == len(set(nouns)) == len(scene.placements)
        assert admits(nouns[0], scene.content.relation, nouns[1])
        for p in scene.placements[2:]:
            assert all(p.scale / 2 <= centre <= 1 - p.scale / 2 for centre in (p.x, p.y))
    assert {scene.content.relation for scene in sampled} == set(RELATIONS)
    things = [thing for scene in sampled for thing in scene.content.things]
    for field, share in (("size", CONFIG.sized), ("pattern", CONFIG.patterned)):
        found = np.mean([getattr(thing, field) is not None for thing in things])
        assert found == pytest.approx(share, abs=0.03)
    colors = {noun: Counter(t.color for t in things if t.noun == noun) for noun in NOUNS}
    usual = sum(max(found.values()) for found in colors.values()) / len(things)
    assert usual == pytest.approx(0.6 + 0.4 / 8, abs=0.05), "the others are of any colour"
    none = np.mean([len(scene.content.things) == 2 for scene in sampled])
    assert none == pytest.approx(CONFIG.extras[0], abs=0.07)


def test_edits_of_a_content():
    cat, dog, hat = Thing("cat", "red", "small"), Thing("dog", "blue"), Thing("hat", "pink")
    content = Content((cat, dog, hat), "above")
    assert content.swapped() == Content((dog, cat, hat), "above")
    swapped = content.swapped("color").things
    assert swapped == (replace(cat, color="blue"), replace(dog, color="red"), hat)
    assert content.with_thing(1, noun="cow").things == (cat, replace(dog, noun="cow"), hat)
    assert Thing("cat", "red", "large", "spotted").attributes == ("large", "spotted", "red")


def test_spread_gives_every_relation_its_share():
    found = spread(CONFIG, "spread", 60, list(RELATIONS))
    assert set(Counter(scene.content.relation for scene in found).values()) == {5}
    found = spread(CONFIG, "spread", 20, ["on", "never"])  # filled up, as one is too rare
    assert [scene.content.relation for scene in found] == ["on"] * 20
    found = spread(CONFIG, "spread", 20, ["chasing"], swappable=True)
    assert [fair_order(s, 1).content for s in found] == [s.content.swapped() for s in found]
    assert [fair_order(scene, 2) for scene in found] == found
    assert all(module.rearranged(s, s.content).placements != s.placements for s in found)


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
        for axis in "xy":
            spans = [(getattr(p, axis), p.scale / 2) for p in (subject, obj)]
            low, high = min(c - half for c, half in spans), max(c + half for c, half in spans)
            whole = low > -1e-9 and high < 1 + 1e-9
            assert whole if high - low <= 1 else low + high == pytest.approx(1)
        if relation in ("left of", "right of", "above", "below"):
            assert subject.overlap(obj) == 0
            assert not (subject.motion or obj.motion or subject.contact or obj.contact)


def test_a_further_thing_finds_room():
    main = Placement(0.5, 0.25, 0.5)
    for seed in range(30):
        extra = place_extra([main], None, np.random.default_rng(seed))
        assert extra.overlap(main) < 0.2 and 0.28 < extra.scale < 0.35 and extra.depth == 2


@pytest.mark.parametrize(("x", "scale", "share"), [(0.7, 0.4, 0.5), (0.5, 0.2, 1), (0.95, 0.4, 0)])
def test_overlap_on_hand_worked_squares(x, scale, share):
    found = Placement(0.5, 0.5, 0.4).overlap(Placement(x, 0.5, scale))
    assert found == pytest.approx(share)


def pixels(*things: tuple[Thing, Placement]) -> np.ndarray:
    content = Content(tuple(thing for thing, _ in things), "left of")
    scene = Scene(content, tuple(where for _, where in things), "plain", 5)
    return np.asarray(render(scene)).astype(int)


def reddish(*things: tuple[Thing, Placement]) -> np.ndarray:
    """Mask of the pixels in which red exceeds blue and green clearly."""
    found = pixels(*things)
    return (found[..., 0] - found[..., 1:].max(-1)) > 40


def test_the_same_scene_gives_the_same_pixels_and_another_seed_or_style_others():
    scene = arrange(Content((Thing("cat", "red"), Thing("dog", "blue")), "riding"), 1)
    first = np.asarray(render(scene))
    assert first.shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
    assert np.array_equal(first, np.asarray(render(scene)))
    assert not np.array_equal(first, np.asarray(render(replace(scene, seed=9))))
    assert first.mean() > np.asarray(render(replace(scene, style="poster"))).mean() + 20


def test_a_thing_is_drawn_at_its_place_and_the_nearer_one_hides_the_farther():
    red, blue = Thing("car", "red"), Thing("car", "blue")
    y, x = np.nonzero(reddish((red, Placement(0.25, 0.75, 0.3))))
    assert len(x) > 100
    assert (x.mean() / IMAGE_SIZE, y.mean() / IMAGE_SIZE) == pytest.approx((0.25, 0.75), abs=0.06)
    moving = pixels((red, Placement(0.5, 0.5, 0.3, motion=1)))
    assert (moving[56, 33] == 70).all() and (moving[56, 80] > 200).all(), "lines behind it"
    first, second = (reddish((red, Placement(0.5, 0.5, 0.6, flip=flip))) for flip in (False, True))
    assert (second != first[:, ::-1]).mean() < (second != first).mean() / 2
    near, far = Placement(0.5, 0.5, 0.5, depth=0), Placement(0.5, 0.5, 0.5, depth=1)
    assert reddish((red, near), (blue, far)).sum() > 10 * reddish((red, far), (blue, near)).sum()


@pytest.mark.parametrize("noun", ["bicycle", "umbrella"])
def test_a_silhouette_is_what_a_fill_from_the_corner_does_not_reach(noun):
    silhouette, outline = glyph(noun, 450)
    filled = outline.point(lambda value: 255 if value > 90 else 0)
    ImageDraw.floodfill(filled, (0, 0), 128)
    assert np.array_equal(np.asarray(silhouette) == 0, np.asarray(filled) == 128)
    assert (np.asarray(silhouette) > np.asarray(filled)).any(), "it has an inside"


def test_every_noun_has_a_shape_of_its_own_and_patterns_change_its_inside():
    shapes = [np.asarray(glyph(noun, 450)[0]) > 0 for noun in NOUNS]
    assert all(0.1 < shape.mean() < 0.95 for shape in shapes)
    for i, shape in enumerate(shapes):
        assert all((shape != other).mean() > 0.02 for other in shapes[:i])
    things = [Thing("car", "red", pattern=pattern) for pattern in (None, *vocabulary.PATTERNS)]
    plain, *others = (pixels((thing, Placement(0.5, 0.5, 0.6))) for thing in things)
    assert all(np.mean(np.abs(other - plain).sum(-1) > 30) > 0.02 for other in others)
