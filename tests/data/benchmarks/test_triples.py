"""Sets of one picture and three texts: SugarCrepe++ and Half-Truths."""

import json

import numpy as np
import pandas as pd
import pytest

from cae_lib.data.benchmarks import load_benchmark
from cae_lib.data.benchmarks.base import Benchmark, Choice, ImageRef
from cae_lib.errors import DataError
from cae_lib.evaluation.blind import guesses
from cae_lib.evaluation.choice import answers

ROW = {"id": 0, "filename": "1.jpg", "caption": "a cat on a mat", "caption2": "on a mat is a cat",
       "negative_caption": "a mat on a cat"}


def test_sugarcrepe_pp_is_read_by_picture_and_by_text(put):
    root = put({"coco/val2017/1.jpg": None, "sugarcrepe-pp/data/swap_obj.json": [
        ROW, ROW | {"negative_caption": ROW["caption2"]}]})
    itt, tot = load_benchmark("sugarcrepe_pp", root, subsets=["itt/swap_obj", "tot/swap_obj"])
    assert (itt.task, tot.task, itt.n_used, tot.n_expected) == ("itt", "tot", 2, 2)
    assert itt.items[0].texts == ("a cat on a mat", "on a mat is a cat", "a mat on a cat")
    assert itt.items[0].group == "swap_obj" and itt.counts["unwinnable"] == 1
    with pytest.raises(DataError, match="swap_obj.json: 2 items, 245 expected"):
        load_benchmark("sugarcrepe_pp", root, subsets=["itt/swap_obj"], official=True)


@pytest.mark.parametrize("form", ["parquet", "json"])
def test_half_truths_are_read_from_the_hubs_files_and_from_lines(put, form):
    row = {"id": 7, "triplet_type": "entity", "anchor": "a cat", "half_truth": "a cat and a dog",
           "full_truth": "a cat and a mat"}
    root = put({"half-truths/images/1.jpg": None})
    picture = (root / "half-truths/images/1.jpg").read_bytes()
    path = root / "half-truths" / "data" / f"coco_qwen.{form}"
    path.parent.mkdir()
    if form == "json":
        path.write_text(json.dumps(row | {"image": {"path": "1.jpg"}}) + "\n")
    else:
        pd.DataFrame([row | {"image": {"bytes": picture, "path": None}}]).to_parquet(path)
    half, ordered = load_benchmark("half_truths", root)
    assert half.key == "half_truths/coco_qwen" and half.task == "choice"
    assert half.items[0].texts == ("a cat", "a cat and a dog") and half.items[0].group == "entity"
    assert ordered.task == "ordered" and ordered.subset == "coco_qwen/ordered"
    assert ordered.items[0].texts == ("a cat and a mat", "a cat", "a cat and a dog")
    if form == "parquet":
        assert half.items[0].images[0].path.read_bytes() == picture
        path.write_bytes(b"no table")
        with pytest.raises(DataError, match="coco_qwen.parquet: cannot be read"):
            load_benchmark("half_truths", root)


class Vectors:
    """Pictures and texts whose vectors are given."""

    def images(self, refs):
        return np.array([[1.0, 0.0]] * len(refs), dtype=np.float32)

    def texts(self, texts):
        angle = np.radians([float(text) for text in texts])
        return np.stack([np.cos(angle), np.sin(angle)], axis=-1).astype(np.float32)


@pytest.mark.parametrize(("task", "degrees", "near", "far"), [
    ("itt", (10, 20, 30), 20, 30), ("itt", (10, 40, 30), 40, 30), ("itt", (40, 10, 30), 40, 30),
    ("ordered", (10, 20, 30), 10, 20), ("ordered", (20, 10, 30), 20, 10),
    ("ordered", (10, 30, 20), 30, 20), ("tot", (80, 85, 60), 5, 20), ("tot", (80, 60, 65), 20, 5),
])
def test_tasks_of_three_texts(task, degrees, near, far, tmp_path):
    """The picture lies at 0 degrees; the difference of two angles' cosines decides."""
    item = Choice((ImageRef(tmp_path),), tuple(map(str, degrees)), 0, "", "0")
    frame = answers([Benchmark("family", "subset", (item,), 1, task=task)], Vectors())
    expected = np.cos(np.radians(near)) - np.cos(np.radians(far))
    assert frame.margin[0] == pytest.approx(expected, abs=1e-6)
    assert frame.correct[0] == (near < far)


def test_blind_choosers_of_three_texts():
    item = Choice((ImageRef(None),), ("full", "anchor", "half"), 0, "", "0")
    numbers = {"full": 3.0, "anchor": 2.0, "half": 1.0}
    assert guesses(item, "ordered", numbers) == guesses(item, "itt", numbers) == 1
    numbers["anchor"] = 3.0
    assert guesses(item, "ordered", numbers) == 0 and guesses(item, "itt", numbers) == 1
