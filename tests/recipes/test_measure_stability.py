"""The share of answers that differ between two trainings, and the accuracy of each."""

import pandas as pd
import pytest

from cae_bench.benchmarks.base import ITEM_KEY
from data.recipes import measure_stability


def test_answers_are_compared_item_by_item_whatever_their_order(monkeypatch):
    items = pd.DataFrame({name: ["a", "b", "c", "d"] for name in ITEM_KEY})
    first = items.assign(correct=[True, True, False, False])
    second = items.assign(correct=[True, False, False, False]).iloc[::-1]
    tables = {"all instructions": first, "AVX2": second, "bfloat16": first}
    monkeypatch.setattr(
        measure_stability,
        "train_all",
        lambda training, home: dict.fromkeys(measure_stability.RUNS, tables[training]),
    )
    weights = items.assign(score="mean", weight=0.25)
    monkeypatch.setattr(measure_stability, "score_weights", lambda *_: weights)
    monkeypatch.setattr(measure_stability.results, "load", lambda *_: items)
    table = measure_stability.compare().set_index(["model", "training"])
    assert list(table.index.unique("model")) == list(measure_stability.RUNS)
    rows = table.loc["CLIP-FT"]
    assert rows["n"].tolist() == [4, 4, 4]
    assert rows["changed"].to_dict() == {"all instructions": 0, "AVX2": 0.25, "bfloat16": 0}
    assert rows["accuracy"].tolist() == pytest.approx([0.5, 0.25, 0.5])
