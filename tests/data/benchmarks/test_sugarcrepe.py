from __future__ import annotations

import os
from pathlib import Path

import pytest

from cae_lib.data.benchmarks import load_benchmark, sugarcrepe
from cae_lib.errors import ConfigError, DataError

ENTRY = {
    "filename": "000000000001.jpg",
    "caption": "A cat on a\nmat.",
    "negative_caption": "A mat on a cat.",
}


@pytest.fixture
def world(tmp_path, write_json, draw):
    draw(tmp_path / "coco" / "val2017", "000000000001.jpg")
    for name in sugarcrepe.OFFICIAL:
        write_json(tmp_path / "sugar-crepe" / "data" / f"{name}.json", {"0": ENTRY, "2": ENTRY})
    return tmp_path


def test_keys_need_not_be_consecutive_and_newlines_stay(world):
    benchmarks = sugarcrepe.load(world / "sugar-crepe")
    assert [b.subset for b in benchmarks] == list(sugarcrepe.OFFICIAL)
    assert [item.id for item in benchmarks[0].items] == ["0", "2"]
    item = benchmarks[0].items[0]
    assert item.texts == ("A cat on a\nmat.", "A mat on a cat.")
    assert item.truth == 0
    assert item.images[0].path == world / "coco/val2017/000000000001.jpg"
    assert benchmarks[0].counts["same_words"] == 2


def test_negative_first_turns_the_order_round(world):
    item = sugarcrepe.load(world / "sugar-crepe", negative_first=True)[0].items[0]
    assert item.texts == ("A mat on a cat.", "A cat on a\nmat.")
    assert item.truth == 1


def test_missing_file_and_unknown_subset(world):
    (world / "sugar-crepe/data/swap_obj.json").unlink()
    with pytest.raises(DataError, match=r"swap_obj\.json: no such annotation file"):
        sugarcrepe.load(world / "sugar-crepe")
    assert len(sugarcrepe.load(world / "sugar-crepe", subsets=["swap_att"])) == 1
    with pytest.raises(ConfigError, match="swap_rel"):
        sugarcrepe.load(world / "sugar-crepe", subsets=["swap_rel"])


def test_manifest_counts_are_expected_unless_others_are_given(world, write_json):
    counts = {"sugarcrepe": dict.fromkeys(sugarcrepe.OFFICIAL, 3)}
    write_json(world / "manifest.json", {"counts": counts})
    with pytest.raises(DataError, match="2 items, 3 expected"):
        load_benchmark("sugarcrepe", world)
    assert load_benchmark("sugarcrepe", world, allow_missing=True)[0].n_expected == 3
    assert load_benchmark("sugarcrepe", world, expected={"add_att": 2})[0].n_expected == 2


def test_unknown_benchmark_lists_the_known_ones(world):
    with pytest.raises(ConfigError, match="sugarcrepe"):
        load_benchmark("sugar", world)


@pytest.mark.skipif("CAE_REAL_DATA" not in os.environ, reason="CAE_REAL_DATA is not set")
def test_real_files_have_7511_items_and_572_of_the_same_words():
    root = Path(os.environ["CAE_REAL_DATA"])
    benchmarks = load_benchmark("sugarcrepe", root, official=True, allow_missing=True)
    assert {b.subset: b.n_expected for b in benchmarks} == sugarcrepe.OFFICIAL
    assert sum(b.n_expected for b in benchmarks) == 7511
    assert sum(b.n_used + b.counts.get("missing_images", 0) for b in benchmarks) == 7511
    assert sum(b.counts["same_words"] for b in benchmarks) == 572
    assert sum(b.counts["identical"] for b in benchmarks) == 0
