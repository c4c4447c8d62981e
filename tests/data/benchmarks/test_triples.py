"""Half-Truths, and how one picture and three texts are judged."""

import numpy as np
import pandas as pd
import pytest
from samples import HALF, lines

from cae_lib.data.benchmarks import load_benchmark
from cae_lib.data.benchmarks.base import Benchmark, ImageRef, Item
from cae_lib.errors import DataError
from cae_lib.evaluation.blind import n_guesses
from cae_lib.evaluation.choice import answers


@pytest.mark.parametrize("form", ["parquet", "json"])
def test_half_truths_are_read_from_the_hubs_files_and_from_lines(put, form):
    root = put({"half-truths/images/1.jpg": None})
    picture = (root / "half-truths/images/1.jpg").read_bytes()
    path = root / "half-truths/data/own.json"
    put(lines("half-truths/data/own.json", HALF))
    if form == "parquet":
        path = path.rename(path.with_suffix(".parquet"))
        row = HALF | {"image": {"bytes": picture, "path": None}}
        pd.DataFrame([row] * 2).to_parquet(path)
    half, ordered = load_benchmark("half_truths", root)
    assert (half.key, half.task) == ("half_truths/own", "choice")
    assert half.items[0].texts == ("a cat", "a cat and a dog") and half.items[0].group == "entity"
    assert (ordered.subset, ordered.task) == ("own/ordered", "ordered")
    assert ordered.items[0].texts == ("a cat and a mat", "a cat", "a cat and a dog")
    assert half.items[0].images[0].path.read_bytes() == picture
    if form == "parquet":
        assert half.items[0].images == half.items[1].images  # written once
        assert len(list((root / "half-truths/images").iterdir())) == 2
        path.write_bytes(b"no table")
        with pytest.raises(DataError, match="own.parquet: cannot be read"):
            load_benchmark("half_truths", root)


class Vectors:
    """Pictures and texts whose vectors are given."""

    def images(self, refs):
        return np.array([[1.0, 0.0]] * len(refs), dtype=np.float32)

    def texts(self, texts):
        angle = np.radians([float(text) for text in texts])
        return np.stack([np.cos(angle), np.sin(angle)], axis=-1).astype(np.float32)


@pytest.mark.parametrize(
    ("task", "degrees", "near", "far"),
    [
        ("itt", (10, 20, 30), 20, 30),
        ("itt", (10, 40, 30), 40, 30),
        ("itt", (40, 10, 30), 40, 30),
        ("ordered", (10, 20, 30), 10, 20),
        ("ordered", (20, 10, 30), 20, 10),
        ("ordered", (10, 30, 20), 30, 20),
        ("tot", (80, 85, 60), 5, 20),
        ("tot", (80, 60, 65), 20, 5),
    ],
)
def test_tasks_of_three_texts(task, degrees, near, far, tmp_path):
    """The picture lies at 0 degrees; the difference of two angles' cosines decides."""
    item = Item("0", (ImageRef(tmp_path),), tuple(map(str, degrees)))
    frame = answers([Benchmark("family", "subset", (item,), 1, task=task)], Vectors())
    expected = np.cos(np.radians(near)) - np.cos(np.radians(far))
    assert frame.margin[0] == pytest.approx(expected, abs=1e-6)
    assert frame.correct[0] == (near < far)


def test_texts_are_compared_within_their_item(tmp_path):
    items = tuple(
        Item(str(row), (ImageRef(tmp_path),), texts)
        for row, texts in enumerate((("80", "85", "60"), ("10", "40", "20")))
    )
    frame = answers([Benchmark("family", "subset", items, 2, task="tot")], Vectors())
    cosines = np.cos(np.radians([[5, 20], [30, 10]]))
    np.testing.assert_allclose(frame.margin, cosines[:, 0] - cosines[:, 1], atol=1e-6)
    assert frame.correct.tolist() == [True, False]


def test_blind_choosers_of_three_texts():
    item = Item("0", (ImageRef(None),), ("full", "anchor", "half"))
    numbers = {"full": 3.0, "anchor": 2.0, "half": 1.0}
    assert n_guesses(item, "ordered", numbers) == n_guesses(item, "itt", numbers) == 1
    numbers["anchor"] = 3.0
    assert n_guesses(item, "ordered", numbers) == 0 and n_guesses(item, "itt", numbers) == 1
