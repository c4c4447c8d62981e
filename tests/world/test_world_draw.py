from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cae_lib.world.draw import IMAGE_SIZE, glyph, render
from cae_lib.world.layout import Placement
from cae_lib.world.scenes import Content, Scene, Thing, arrange
from cae_lib.world.vocabulary import NOUNS


def scene_of(*things: tuple[Thing, Placement], style: str = "plain") -> Scene:
    content = Content(tuple(thing for thing, _ in things), "left of")
    return Scene(content, tuple(place for _, place in things), style, 5)


def reddish(scene: Scene) -> np.ndarray:
    """Mask of the pixels in which red exceeds blue and green clearly."""
    pixels = np.asarray(render(scene)).astype(int)
    return (pixels[..., 0] - pixels[..., 1:].max(-1)) > 40


def test_the_same_scene_gives_the_same_pixels_and_another_seed_others():
    scene = arrange(Content((Thing("cat", "red"), Thing("dog", "blue")), "riding"), 1)
    first = np.asarray(render(scene))
    assert first.shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
    assert np.array_equal(first, np.asarray(render(scene)))
    assert not np.array_equal(first, np.asarray(render(replace(scene, seed=9))))


def test_a_thing_is_drawn_at_its_place():
    scene = scene_of((Thing("car", "red"), Placement(0.25, 0.75, 0.3)))
    y, x = np.nonzero(reddish(scene))
    assert len(x) > 100
    assert x.mean() / IMAGE_SIZE == pytest.approx(0.25, abs=0.04)
    assert y.mean() / IMAGE_SIZE == pytest.approx(0.75, abs=0.06)


def test_the_nearer_thing_hides_the_farther_one():
    red, blue = Thing("car", "red"), Thing("car", "blue")
    places = Placement(0.5, 0.5, 0.5, depth=0), Placement(0.5, 0.5, 0.5, depth=1)
    near = reddish(scene_of((red, places[0]), (blue, places[1]))).sum()
    far = reddish(scene_of((red, places[1]), (blue, places[0]))).sum()
    assert near > 10 * max(far, 1)


@pytest.mark.parametrize("pattern", ["striped", "spotted", "checkered"])
def test_a_pattern_changes_the_inside(pattern):
    place = Placement(0.5, 0.5, 0.6)
    plain = np.asarray(render(scene_of((Thing("car", "red"), place)))).astype(int)
    other = np.asarray(render(scene_of((Thing("car", "red", pattern=pattern), place))))
    assert np.mean(np.abs(other - plain).sum(-1) > 30) > 0.02


def test_the_poster_style_is_another_style():
    scene = arrange(Content((Thing("cat", "red"), Thing("dog", "blue")), "left of"), 1)
    poster = np.asarray(render(replace(scene, style="poster"))).astype(float)
    assert np.asarray(render(scene)).mean() > poster.mean() + 20


def test_every_noun_has_a_shape_of_its_own():
    shapes = [np.asarray(glyph(noun, 450)[0]) > 0 for noun in NOUNS]
    assert all(0.1 < shape.mean() < 0.95 for shape in shapes)
    for i, shape in enumerate(shapes):
        assert all((shape != other).mean() > 0.02 for other in shapes[:i])
