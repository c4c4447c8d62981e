"""Regions against boxes and drawings, and relevance by region and word on a small world."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from book.studies import heatmaps
from book.studies.heatmaps import ROW, START_LAYERS, heatmap_table
from book.studies.regions import (
    REGIONS,
    VISIBLE,
    contact,
    labelled_scenes,
    region_masks,
    region_shares,
)
from cae_bench.encoder import Encoder
from cae_lab.profiles import load_profile
from cae_lab.scene_graphs import GRAPHS_FILE
from cae_lib.attribution import get_method
from cae_lib.attribution.heatmap import image_relevances
from cae_lib.errors import DataError
from data.recipes.synthetic_scenes.draw import render
from data.recipes.synthetic_scenes.layout import Placement
from data.recipes.synthetic_scenes.scenes import Content, Thing, arrange

LIMIT = 10


@pytest.mark.parametrize(
    ("first", "second", "rows"),
    [
        (Placement(0.125, 0.125, 0.25), Placement(0.625, 0.125, 0.25), 1),  # a gap of one patch
        (Placement(0.25, 0.25, 0.5), Placement(0.5, 0.25, 0.5), 2),  # an overlap of one column
    ],
)
def test_gap_and_overlap_belong_to_the_relation(first, second, rows):
    shares = region_shares((first, second), (4, 4))
    # On the rows of both boxes a column is the subject's, the relation's, the object's, the rest.
    np.testing.assert_array_equal(shares[:, :rows].mean(axis=1), np.eye(4))
    assert shares[3, rows:].all()
    divided = region_shares([Placement(x, 0.25, 0.25) for x in (0.25, 0.75)], (2, 2))
    np.testing.assert_allclose(divided[:2, 0], [[0.25, 0], [0.125, 0.125]])  # by area


@pytest.mark.parametrize("relation", ["chasing", "touching"])
def test_marks_that_a_relation_draws_are_its_own(relation):
    scene = arrange(Content((Thing("cat", "red"), Thing("dog", "blue")), relation), 0)
    bare = tuple(replace(place, motion=0, contact=0) for place in scene.placements)
    images = scene, replace(scene, placements=bare)
    drawn, unmarked = (np.asarray(render(image), dtype=int) for image in images)
    marks = np.abs(drawn - unmarked).max(axis=2) > VISIBLE
    middles = (np.arange(len(marks)) + 0.5) / len(marks)
    assert marks.any() and region_masks(scene.placements[:2], middles, middles)[1, marks].all()


def test_things_are_in_contact_where_their_drawings_meet():
    content = Content((Thing("cat", "red"), Thing("bus", "blue", pattern="striped")), "left of")
    apart = arrange(content, 0)
    left, right = apart.placements
    moved = replace(apart, placements=(left, replace(right, x=left.x + 0.5 * left.scale)))
    assert contact(apart) == 0 < contact(moved)


@pytest.fixture(scope="module")
def table(clip, world_home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heatmaps, "BATCH_SIZE", 4)
        return heatmap_table(Encoder(clip), load_profile("smoke"), limit=LIMIT)


def of(table, measure, **columns):
    rows = table[table.measure == measure]
    for name, value in columns.items():
        rows = rows[rows[name] == value]
    return rows


@pytest.mark.parametrize("row", [0, LIMIT - 1])
def test_scene_on_its_own(table, clip, world_home, row):
    """The first and last scene, computed from the image and the ground truth alone."""
    scenes = labelled_scenes(world_home / GRAPHS_FILE)
    number = [0, 23][row > 0]  # of the smoke world's 24 test pictures
    scene = scenes[name := sorted(scenes)[-24:][number]]
    words = f"the {scene.subject} is {scene.relation} the {scene.obj}"
    with Image.open(world_home / "coco" / "val2014" / name) as file:
        pixels = clip.preprocess(file)[None]
    tokens = clip.tokenizer([words])
    with torch.no_grad():
        texts = clip.model.encode_text(tokens)
        image = F.normalize(clip.model.encode_image(pixels), dim=-1)
    for layer, start in START_LAYERS.items():
        relevance = image_relevances(clip.model, pixels, texts, (start,)).maps[0][0].numpy()
        shares = (region_shares(scene.places, (7, 7)) * relevance).sum(axis=(1, 2))
        for value, region in zip(shares / relevance.sum(), REGIONS, strict=True):
            stored = of(table, "region", method=layer, part=region).iloc[row]
            assert stored.scene == number and stored.relation == scene.relation
            assert stored.value == pytest.approx(value, abs=2e-3)
    scores = get_method("attention")(clip.model, tokens, image).scores[0]
    ends = np.cumsum([1, *(len(clip.tokenizer.encode(word)) for word in words.split())])
    parts = {"subject": (1, 2), "relation": (3, -3), "object": (-2, -1)}  # words from and to
    sums = {part: float(scores[ends[a] : ends[b]].sum()) for part, (a, b) in parts.items()}
    whole = float(scores[1 : ends[-1]].sum())
    for part, value in sums.items():
        stored = of(table, "word share", method="attention", part=part).value.iloc[row]
        assert stored == pytest.approx(value / whole, abs=2e-4)
    stored = of(table, "word score", method="attention", part="relation").value.iloc[row]
    assert stored == pytest.approx(sums["relation"], abs=2e-4)


def test_without_a_small_world_there_is_no_heatmap(clip, home, tmp_path):
    table = heatmap_table(Encoder(clip), load_profile("paper"))
    assert table.empty and list(table) == list(ROW)
    with pytest.raises(DataError, match="data.recipes.synthetic_scenes.build"):
        labelled_scenes(tmp_path / "none.json")
