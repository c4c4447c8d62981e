"""Regions against boxes and drawings, and relevance by region and word on a small world."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from book.studies import heatmaps
from book.studies.heatmaps import ROW, START_LAYERS, heatmap_table
from book.studies.regions import (
    EXAMPLES,
    REGIONS,
    contact,
    labelled_scenes,
    mark_boxes,
    region_masks,
    region_shares,
)
from cae_bench.encoder import Encoder
from cae_lab.profiles import load_profile
from cae_lab.scene_graphs import GRAPHS_FILE
from cae_lib.attribution import get_method
from cae_lib.attribution.heatmap import image_relevances
from cae_lib.errors import DataError
from cae_lib.methods import PAPER_METHODS
from data.recipes.synthetic_scenes.draw import IMAGE_SIZE, render
from data.recipes.synthetic_scenes.layout import Placement
from data.recipes.synthetic_scenes.scenes import Content, Thing, arrange
from data.recipes.synthetic_scenes.vocabulary import RELATIONS

LIMIT = 10
PIXELS = (np.arange(IMAGE_SIZE) + 0.5) / IMAGE_SIZE


@pytest.mark.parametrize(
    ("first", "second", "rows"),
    [
        (Placement(0.125, 0.125, 0.25), Placement(0.625, 0.125, 0.25), 1),  # a gap of one patch
        (Placement(0.25, 0.25, 0.5), Placement(0.5, 0.25, 0.5), 2),  # an overlap of one column
    ],
)
def test_gap_and_overlap_belong_to_the_relation(first, second, rows):
    found = region_shares((first, second), (4, 4))
    # On the rows of both boxes a column is the subject's, the relation's, the object's, the rest.
    np.testing.assert_array_equal(found[:, :rows].mean(axis=1), np.eye(4))
    assert found[3, rows:].all()
    divided = region_shares([Placement(x, 0.25, 0.25) for x in (0.25, 0.75)], (2, 2))
    np.testing.assert_allclose(divided[:2, 0], [[0.25, 0], [0.125, 0.125]])  # by area


def test_things_are_in_contact_where_their_drawings_meet():
    content = Content((Thing("cat", "red"), Thing("bus", "blue", pattern="striped")), "left of")
    apart = arrange(content, 0)
    left, right = apart.placements
    moved = replace(apart, placements=(left, replace(right, x=left.x + 0.5 * left.scale)))
    assert contact(apart) == 0 < contact(moved)


@pytest.mark.parametrize("relation", RELATIONS)
def test_every_point_lies_in_one_region_and_marks_in_the_relations(relation):
    mark, total = {"chasing": "motion", "touching": "contact"}.get(relation), 0
    for seed in range(6):
        scene = arrange(Content((Thing("cat", "red"), Thing("bus", "blue")), relation), seed)
        masks = region_masks(scene.placements[:2], PIXELS, PIXELS)
        assert (masks.sum(axis=0) == 1).all() and (masks.mean(axis=(1, 2)) > 0).all()
        if mark is not None:
            first = replace(scene.placements[0], **{mark: 0})
            assert mark_boxes(scene.placements[0]) and not mark_boxes(first)
            without = replace(scene, placements=(first, *scene.placements[1:]))
            drawn = (np.asarray(render(scene)) != np.asarray(render(without))).any(axis=-1)
            assert not (drawn & ~masks[1]).any()
            total += drawn.sum()
    assert total > 50 or mark is None


def test_gold_on_disk(smoke_world, tmp_path):
    images = json.loads((smoke_world / GRAPHS_FILE).read_text("utf-8"))["images"]
    scenes = labelled_scenes(smoke_world / GRAPHS_FILE)
    assert len(scenes) == len(images)
    for image in images:
        scene = scenes[image["file_name"]]
        assert [scene.subject, scene.obj] == [thing["noun"] for thing in image["things"][:2]]
        assert [*map(vars, scene.places)] == image["placements"][:2]
        assert scene.relation == image["relation"]
    with pytest.raises(DataError, match="data.recipes.synthetic_scenes.build"):
        labelled_scenes(tmp_path / "none.json")


def test_scenes_need_no_pytorch():
    code = "import sys, book.studies.regions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture(scope="module")
def found(clip, world_home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heatmaps, "BATCH_SIZE", 4)
        return heatmap_table(Encoder(clip), load_profile("smoke"), limit=LIMIT)


def of(found, measure, **columns):
    chosen = found[found.measure == measure]
    for name, value in columns.items():
        chosen = chosen[chosen[name] == value]
    return chosen


def test_one_value_a_scene(found):
    assert list(found) == list(ROW)
    for _, shares in of(found, "region").groupby("method"):
        assert set(shares.part) == set(REGIONS) and (shares.value >= 0).all()
        assert shares.groupby("scene").value.sum().tolist() == pytest.approx([1] * LIMIT)
    assert of(found, "area").value.sum() == pytest.approx(1)
    shares = of(found, "word share")
    assert (shares.groupby(["method", "part"]).size() == LIMIT).all()
    assert shares.groupby("method").part.nunique().to_dict() == dict.fromkeys(PAPER_METHODS, 3)
    assert shares.groupby(["method", "scene"]).value.sum().max() <= 1.001
    assert (of(found, "word score").groupby(["method", "part"]).size() == LIMIT).all()


@pytest.mark.parametrize("row", [0, LIMIT - 1])
def test_a_scene_on_its_own(found, clip, world_home, row):
    """The first and last scene, computed from the picture and the gold alone."""
    gold = labelled_scenes(world_home / GRAPHS_FILE)
    number = [0, 23][row > 0]  # of the smoke world's 24 test pictures
    scene = gold[name := sorted(gold)[-24:][number]]
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
            own = of(found, "region", method=layer, part=region).iloc[row]
            assert own.scene == number and own.relation == scene.relation
            assert own.value == pytest.approx(value, abs=2e-3)
    scores = get_method("attention")(clip.model, tokens, image).scores[0]
    ends = np.cumsum([1, *(len(clip.tokenizer.encode(word)) for word in words.split())])
    parts = {"subject": (1, 2), "relation": (3, -3), "object": (-2, -1)}  # words from and to
    sums = {part: float(scores[ends[a] : ends[b]].sum()) for part, (a, b) in parts.items()}
    whole = float(scores[1 : ends[-1]].sum())
    for part, value in sums.items():
        own = of(found, "word share", method="attention", part=part).value.iloc[row]
        assert own == pytest.approx(value / whole, abs=2e-4)
    own = of(found, "word score", method="attention", part="relation").value.iloc[row]
    assert own == pytest.approx(sums["relation"], abs=2e-4)


def test_examples_bring_what_a_figure_needs(found):
    assert EXAMPLES[0].caption == "the cat is touching the elephant"
    assert of(found, "example cosine").scene.tolist() == list(range(len(EXAMPLES)))
    for method in START_LAYERS:
        first = of(found, "example map", method=method, scene=0)
        assert first.pivot(index="row", columns="column", values="value").shape == (7, 7)
        assert first.value.sum() == pytest.approx(1)
    for method in PAPER_METHODS:
        first = of(found, "example word", method=method, scene=0)
        assert list(zip(first.row, first.part, strict=True)) == list(
            enumerate(EXAMPLES[0].caption.split())
        )


def test_without_a_small_world_there_is_nothing(clip, home):
    found = heatmap_table(Encoder(clip), load_profile("paper"))
    assert found.empty and list(found) == list(ROW)
