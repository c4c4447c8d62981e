"""The measurement of relevance by region and word, on the smoke world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from cae_lib.attribution import METHODS, get_method
from cae_lib.attribution.heatmap import image_relevance
from cae_lib.data.world.draw import render
from cae_lib.evaluation import heatmaps
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.heatmaps import EXAMPLES, relevance_regions
from cae_lib.evaluation.regions import gold_scenes, region_shares
from cae_lib.models.clip import Clip, load_clip

LIMIT = 10


@pytest.fixture(scope="module")
def clip() -> Clip:
    clip = load_clip("clip-mini", seed=0)
    with torch.no_grad():
        clip.model.token_embedding.weight.mul_(20)
    return clip


@pytest.fixture(scope="module")
def found(clip: Clip, smoke_world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    home = tmp_path_factory.mktemp("home")
    (home / "data").mkdir()
    (home / "data" / "raw").symlink_to(smoke_world.parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAE_HOME", str(home))
        patch.setattr(heatmaps, "BATCH", 4)
        heatmaps._test_scenes.cache_clear()
        result = relevance_regions(Encoder(clip), "smoke", limit=LIMIT)
    heatmaps._test_scenes.cache_clear()
    return result


def test_one_value_a_scene(found: dict[str, Any]) -> None:
    assert found["n_used"] == found["n_expected"] == LIMIT == len(found["relations"])
    for regions in found["regions"].values():
        values = np.array([regions[name] for name in ("subject", "relation", "object")])
        assert values.shape == (3, LIMIT)
        assert (values >= 0).all() and (values.sum(axis=0) <= 1.001).all()
    assert sum(found["area"].values()) == pytest.approx(1, abs=1e-3)
    for method in METHODS:
        parts = np.array([found["words"][method][name] for name in ("subject", "relation",
                                                                    "object")])  # fmt: skip
        assert parts.shape == (3, LIMIT) and (parts.sum(axis=0) <= 1.001).all()
        assert len(found["scores"][method]) == LIMIT


@pytest.mark.parametrize("row", [0, LIMIT - 1])
def test_a_scene_on_its_own(found: dict[str, Any], clip: Clip, smoke_world: Path, row: int) -> None:
    """The first and last scene, computed from the picture and the gold alone."""
    gold = gold_scenes(smoke_world / "coco" / "annotations" / "scene_graphs_val2014.json")
    number = [0, 23][row > 0]  # of the smoke world's 24 test pictures
    name = sorted(gold)[-24:][number]
    scene = gold[name]
    words = f"the {scene.subject} is {scene.relation} the {scene.obj}"
    with Image.open(smoke_world / "coco" / "val2014" / name) as file:
        pixels = clip.preprocess(file)[None]
    tokens = clip.tokenizer([words])
    with torch.no_grad():
        texts = clip.model.encode_text(tokens)
        image = F.normalize(clip.model.encode_image(pixels), dim=-1)
    for layer, start in (("last layer", -1), ("all layers", 0)):
        relevance = image_relevance(clip.model, pixels, texts, start_layer=start)[0].numpy()
        shares = (region_shares(scene.places, (7, 7)) * relevance).sum(axis=(1, 2))
        for value, region in zip(shares / relevance.sum(), ("subject", "relation", "object"),
                                 strict=False):  # fmt: skip
            assert found["regions"][layer][region][row] == pytest.approx(value, abs=2e-3)
    scores = get_method("attention")(clip.model, tokens, image).scores[0]
    n = len(clip.tokenizer.encode(words))
    pieces = [len(clip.tokenizer.encode(word)) for word in words.split()]
    ends = np.cumsum([1, *pieces])
    relation = scores[ends[3] : ends[len(pieces) - 2]].sum()
    assert found["scores"]["attention"][row] == pytest.approx(float(relation), abs=2e-4)
    share = float(relation / scores[1 : n + 1].sum())
    assert found["words"]["attention"]["relation"][row] == pytest.approx(share, abs=2e-4)


def test_examples_bring_what_a_figure_needs(found: dict[str, Any]) -> None:
    first = found["examples"][0]
    assert first["caption"] == "the cat is touching the elephant"
    assert first["words"] == first["caption"].split()
    for part in first["maps"].values():
        assert np.asarray(part).shape == (7, 7)
        assert np.sum(part) == pytest.approx(1, abs=3e-3)
    assert {len(shares) for shares in first["shares"].values()} == {6}
    assert len(found["examples"]) == len(EXAMPLES)


def test_example_pictures_are_always_the_same() -> None:
    first, again = (np.asarray(render(EXAMPLES[0].scene)) for _ in range(2))
    assert np.array_equal(first, again)


def test_without_a_small_world_it_says_so(clip: Clip) -> None:
    found = relevance_regions(Encoder(clip), "paper")
    assert found["n_used"] == 0 and "gold boxes" in found["reason"]
