"""The measurement of relevance by region and word, on the smoke world."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from cae_lib.attribution import METHODS, get_method
from cae_lib.attribution.heatmap import image_relevances
from cae_lib.evaluation import heatmaps
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.heatmaps import ROW, START_LAYERS, heatmap_table
from cae_lib.evaluation.scenes import EXAMPLES, GRAPHS, REGIONS, gold_scenes, region_shares
from cae_lib.models.clip import load_clip

LIMIT = 10


@pytest.fixture(scope="module")
def clip():
    clip = load_clip("clip-mini", seed=0)
    with torch.no_grad():
        clip.model.token_embedding.weight.mul_(20)
    return clip


@pytest.fixture(scope="module")
def found(clip, world_home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heatmaps, "BATCH", 4)
        return heatmap_table(Encoder(clip), "smoke", limit=LIMIT)


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
    for method in METHODS:
        shares = of(found, "word share", method=method)
        assert (shares.groupby("part").size() == LIMIT).all() and shares.part.nunique() == 3
        assert shares.groupby("scene").value.sum().max() <= 1.001
        assert len(of(found, "word score", method=method, part="relation")) == LIMIT


@pytest.mark.parametrize("row", [0, LIMIT - 1])
def test_a_scene_on_its_own(found, clip, world_home, row):
    """The first and last scene, computed from the picture and the gold alone."""
    gold = gold_scenes(world_home / GRAPHS)
    number = [0, 23][row > 0]  # of the smoke world's 24 test pictures
    name = sorted(gold)[-24:][number]
    scene = gold[name]
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
    n = len(clip.tokenizer.encode(words))
    pieces = [len(clip.tokenizer.encode(word)) for word in words.split()]
    ends = np.cumsum([1, *pieces])
    relation = float(scores[ends[3] : ends[len(pieces) - 2]].sum())
    score = of(found, "word score", method="attention").value.iloc[row]
    assert score == pytest.approx(relation, abs=2e-4)
    own = of(found, "word share", method="attention", part="relation").value.iloc[row]
    assert own == pytest.approx(relation / float(scores[1 : n + 1].sum()), abs=2e-4)


def test_examples_bring_what_a_figure_needs(found):
    assert EXAMPLES[0].caption == "the cat is touching the elephant"
    assert of(found, "example cosine").scene.tolist() == list(range(len(EXAMPLES)))
    for method in START_LAYERS:
        first = of(found, "example map", method=method, scene=0)
        assert first.pivot(index="row", columns="column", values="value").shape == (7, 7)
        assert first.value.sum() == pytest.approx(1)
    for method in METHODS:
        first = of(found, "example word", method=method, scene=0)
        assert list(first.part) == EXAMPLES[0].caption.split()
        assert list(first.row) == list(range(6))


def test_without_a_small_world_there_is_nothing(clip, home):
    found = heatmap_table(Encoder(clip), "paper")
    assert found.empty and list(found) == list(ROW)
