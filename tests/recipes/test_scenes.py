"""Words and scenes of the synthetic world, their geometry and their drawings."""

from itertools import permutations

import numpy as np
import pytest

from cae_lab import scene_graphs
from data.recipes.synthetic_scenes import scenes as module
from data.recipes.synthetic_scenes import vocabulary
from data.recipes.synthetic_scenes.draw import IMAGE_SIZE, render
from data.recipes.synthetic_scenes.layout import Placement, place
from data.recipes.synthetic_scenes.scenes import (
    Content,
    Scene,
    SceneConfig,
    Thing,
    arrange,
    sample_scenes,
    spread,
)
from data.recipes.synthetic_scenes.vocabulary import KIND_OF, NOUNS, RELATIONS, SIZES, admits

CONFIG = SceneConfig()


def test_every_word_has_one_meaning_and_inverses_are_mutual():
    wordings = [wording for kind in RELATIONS.values() for wording in kind.wordings]
    words = [*NOUNS, *KIND_OF, *wordings, *vocabulary.VAGUE_RELATIONS]
    assert len(words) == len(set(words))
    assert len(set(vocabulary.GLYPHS.values())) == len(NOUNS)
    for name, kind in RELATIONS.items():
        assert kind.wordings[0] == name
        assert kind.inverse is None or RELATIONS[kind.inverse].inverse == name != kind.inverse
        assert any(admits(a, name, b) for a, b in permutations(NOUNS, 2))
    assert (scene_graphs.NOUNS, list(scene_graphs.ADJECTIVES)) == (NOUNS, list(KIND_OF))
    assert list(scene_graphs.RELATIONS) == wordings
    assert scene_graphs.VAGUE_RELATIONS == vocabulary.VAGUE_RELATIONS


def test_scene_is_a_function_of_configuration_split_and_number():
    scene = module.sample_scene(CONFIG, "train", 7)
    assert scene == list(sample_scenes(CONFIG, "train", 8))[7]
    for split, index, seed in (("train", 8, 0), ("test", 7, 0), ("train", 7, 1)):
        assert module.sample_scene(SceneConfig(seed=seed), split, index).content != scene.content
    assert arrange(scene.content, 3) == arrange(scene.content, 3)
    assert arrange(scene.content, 3).placements != arrange(scene.content, 4).placements


def test_scenes_can_be_shown_and_have_what_is_configured(sampled):
    for scene in sampled:
        nouns = [thing.noun for thing in scene.content.things]
        assert 2 <= len(nouns) == len(set(nouns)) == len(scene.placements)
        assert admits(nouns[0], scene.content.relation, nouns[1])
    assert {scene.content.relation for scene in sampled} == set(RELATIONS)
    things = [thing for scene in sampled for thing in scene.content.things]
    for field, share in (("size", CONFIG.sized), ("pattern", CONFIG.patterned)):
        drawn = np.mean([getattr(thing, field) is not None for thing in things])
        assert drawn == pytest.approx(share, abs=0.03)
    n_pairs = np.mean([len(scene.content.things) == 2 for scene in sampled])
    assert n_pairs == pytest.approx(CONFIG.extras[0], abs=0.07)
    relations = [scene.content.relation for scene in spread(CONFIG, "spread", 60, list(RELATIONS))]
    assert {relations.count(name) for name in RELATIONS} == {5}, "each has its share"


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
def test_relation_is_visible_in_one_order_only(relation):
    assert Placement(0.5, 0.5, 0.4).overlap(Placement(0.7, 0.5, 0.4)) == pytest.approx(0.5)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sizes = [(None, *SIZES)[int(rng.integers(3))] for _ in range(2)]
        subject, obj = place(relation, *sizes, rng)
        assert CENTRES[relation](subject, obj) and not CENTRES[relation](obj, subject)
        if relation in ("left of", "right of", "above", "below"):
            assert subject.overlap(obj) == 0
            assert not (subject.motion or obj.motion or subject.contact or obj.contact)


def reddish(*things: tuple[Thing, Placement]) -> np.ndarray:
    """Mask of the pixels in which red exceeds blue and green clearly."""
    content = Content(tuple(thing for thing, _ in things), "left of")
    pixels = np.asarray(render(Scene(content, tuple(where for _, where in things), "plain", 5)))
    return pixels[..., 0].astype(int) - pixels[..., 1:].max(-1) > 40


def test_thing_is_drawn_at_its_place_and_the_nearer_one_hides_the_farther():
    red, blue = Thing("car", "red"), Thing("car", "blue")
    y, x = np.nonzero(reddish((red, Placement(0.25, 0.75, 0.3))))
    assert len(x) > 100
    assert (x.mean() / IMAGE_SIZE, y.mean() / IMAGE_SIZE) == pytest.approx((0.25, 0.75), abs=0.06)
    near, far = Placement(0.5, 0.5, 0.5, depth=0), Placement(0.5, 0.5, 0.5, depth=1)
    assert reddish((red, near), (blue, far)).sum() > 10 * reddish((red, far), (blue, near)).sum()
