"""Regions of a scene against boxes by hand and against the drawing itself."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cae_lib.errors import DataError
from cae_lib.evaluation.scenes import (
    EXAMPLES,
    GRAPHS,
    REGIONS,
    gold_scenes,
    mark_boxes,
    region_masks,
    region_shares,
)
from cae_lib.world.draw import IMAGE_SIZE, render
from cae_lib.world.layout import Placement
from cae_lib.world.scenes import Content, Thing, arrange
from cae_lib.world.vocabulary import RELATIONS

PIXELS = (np.arange(IMAGE_SIZE) + 0.5) / IMAGE_SIZE


def by_name(places, grid):
    return dict(zip(REGIONS, region_shares(places, grid), strict=True))


def cat_and_bus(relation, seed):
    return arrange(Content((Thing("cat", "red"), Thing("bus", "blue")), relation), seed)


def test_gap_between_two_things():
    # Boxes [0, .25] x [.25, .5] and [.5, .75] x [.25, .5] on a grid of 4: one patch each.
    found = by_name((Placement(0.125, 0.375, 0.25), Placement(0.625, 0.375, 0.25)), (4, 4))
    for name, patch in (("subject", (1, 0)), ("relation", (1, 1)), ("object", (1, 2))):
        expected = np.zeros((4, 4))
        expected[patch] = 1
        assert np.array_equal(found[name], expected), name
    assert found["rest"].sum() == 13


def test_overlap_belongs_to_the_relation():
    # Boxes [0, .5] x [0, .5] and [.25, .75] x [0, .5].
    found = by_name((Placement(0.25, 0.25, 0.5), Placement(0.5, 0.25, 0.5)), (4, 4))
    columns = {name: found[name][:2].mean(axis=0).tolist() for name in REGIONS}
    assert columns == {"subject": [1, 0, 0, 0], "relation": [0, 1, 0, 0],
                       "object": [0, 0, 1, 0], "rest": [0, 0, 0, 1]}
    assert found["rest"][2:].all()


def test_patches_are_divided_by_area():
    found = by_name((Placement(0.25, 0.25, 0.25), Placement(0.75, 0.25, 0.25)), (2, 2))
    assert found["subject"][0, 0] == pytest.approx(0.25)
    assert found["relation"][0].tolist() == pytest.approx([0.125, 0.125])


@pytest.mark.parametrize("relation", RELATIONS)
def test_every_point_lies_in_one_region(relation):
    masks = region_masks(cat_and_bus(relation, 3).placements[:2], PIXELS, PIXELS)
    assert (masks.sum(axis=0) == 1).all() and (masks.mean(axis=(1, 2)) > 0).all()


@pytest.mark.parametrize("relation, change", [("chasing", {"motion": 0}),
                                              ("touching", {"contact": 0})])
def test_marks_of_the_drawing_lie_in_the_relation(relation, change):
    total = 0
    for seed in range(6):
        scene = cat_and_bus(relation, seed)
        first = replace(scene.placements[0], **change)
        assert mark_boxes(scene.placements[0]) and not mark_boxes(first)
        without = replace(scene, placements=(first, *scene.placements[1:]))
        drawn = (np.asarray(render(scene)) != np.asarray(render(without))).any(axis=-1)
        relation_mask = region_masks(scene.placements[:2], PIXELS, PIXELS)[1]
        assert (drawn & relation_mask).sum() == drawn.sum()
        total += drawn.sum()
    assert total > 50


def test_boxes_hold_what_is_drawn():
    scene = arrange(Content((Thing("dog", "red"), Thing("ball", "blue")), "left of"), 2)
    picture = np.asarray(render(scene)).astype(int)
    things = np.ptp(picture, axis=-1) > 60  # the background has soft colours
    subject, _, obj, _ = region_masks(scene.placements[:2], PIXELS, PIXELS)
    for mask, color, other in ((subject, 0, 2), (obj, 2, 0)):
        drawn = things & (picture[..., color] > picture[..., other])
        assert (drawn & mask).sum() > 0.95 * drawn.sum() > 100


def test_gold_on_disk_gives_the_regions_of_the_picture_on_disk(smoke_world, tmp_path):
    gold = gold_scenes(smoke_world / GRAPHS)
    entries = json.loads((smoke_world / "coco" / "coco_karpathy_test.json").read_text())
    for entry in entries[:6]:
        path = smoke_world / "coco" / entry["image"]
        rest = region_masks(gold[path.name].places, PIXELS, PIXELS)[3]
        with Image.open(path) as file:
            edges = np.asarray(file.convert("RGB")).astype(int)
        colourful = np.ptp(edges, axis=-1) > 60
        assert colourful[~rest].mean() > 1.5 * colourful[rest].mean()
    with pytest.raises(DataError, match="cae world build"):
        gold_scenes(tmp_path / "none.json")


def test_example_pictures_are_always_the_same_and_need_no_pytorch():
    first, again = (np.asarray(render(EXAMPLES[0].scene)) for _ in range(2))
    assert np.array_equal(first, again)
    code = "import sys, cae_lib.evaluation.scenes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
