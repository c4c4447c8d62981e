from __future__ import annotations

import os
from pathlib import Path

import pytest
from samples import SUGAR

from cae_lib.data.benchmarks import load_benchmark, sugarcrepe


def test_keys_need_not_be_consecutive_and_newlines_stay(put):
    rows = {"0": SUGAR, "2": SUGAR}
    files = {f"sugar-crepe/data/{name}.json": rows for name in sugarcrepe.OFFICIAL}
    root = put(files | {"coco/val2017/1.jpg": None})
    parts = load_benchmark("sugarcrepe", root)
    assert [part.subset for part in parts] == list(sugarcrepe.OFFICIAL)
    assert [item.id for item in parts[0].items] == ["0", "2"]
    item = parts[0].items[0]
    assert item.texts == ("A cat on a\nmat.", "A mat on a cat.") and item.truth == 0
    assert item.images[0].path == root / "coco/val2017/1.jpg"
    assert parts[0].counts == {"same_words": 2, "identical": 0}


@pytest.mark.skipif("CAE_REAL_DATA" not in os.environ, reason="CAE_REAL_DATA is not set")
def test_real_files_have_7511_items_and_572_of_the_same_words():
    root = Path(os.environ["CAE_REAL_DATA"])
    parts = load_benchmark("sugarcrepe", root, official=True, allow_missing=True)
    assert {part.subset: part.n_expected for part in parts} == sugarcrepe.OFFICIAL
    assert sum(part.n_expected for part in parts) == 7511
    assert sum(part.n_used + part.counts.get("missing_images", 0) for part in parts) == 7511
    assert sum(part.counts["same_words"] for part in parts) == 572
    assert sum(part.counts["identical"] for part in parts) == 0
