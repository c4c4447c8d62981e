"""The paper's model, of full size with random weights, trained for two steps as on real data."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from cae_lib.data.images import Photographs
from cae_lib.data.training_set import training_set
from cae_lib.models.checkpoint import read_meta, read_state_dict
from cae_lib.runs import train_run


@pytest.fixture
def home_of_world(home: Path, smoke_world: Path) -> Path:
    (home / "data" / "raw").mkdir(parents=True)
    (home / "data" / "raw" / "world-smoke").symlink_to(smoke_world)
    training_set.cache_clear()
    yield home
    training_set.cache_clear()


def test_vit_b_32_takes_two_steps_of_negclip_with_cae(home_of_world: Path) -> None:
    path = train_run("cae-attention", "smoke", model="ViT-B-32", weights=None, steps=2,
                        batch_size=4, negatives=True, precision="bf16")
    assert isinstance(training_set("smoke", "coco", "ViT-B-32").images, Photographs)
    meta = read_meta(path)
    assert (meta.model, meta.step, meta.activation) == ("ViT-B-32", 2, "quickgelu")
    state = read_state_dict(path)
    assert state["visual.conv1.weight"].shape == (768, 3, 32, 32)
    assert len([name for name in state if name.endswith("attn.in_proj_weight")]) == 24
    lines = [json.loads(line) for line in path.with_name("log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    for line in lines:
        assert math.isfinite(line["loss"]) and math.isfinite(line["gradient_norm"])
        assert line["n_similar"] == 4 and 0 < line["n_negatives"] <= 8
        assert line["n_objects"] > 0 and line["n_composition"] > 0
