"""The share of answers that differ between two trainings, and the accuracy of each."""

import pandas as pd
import pytest

from cae_lib import store
from data.recipes import measure_stability


def test_answers_are_compared_item_by_item_whatever_their_order(monkeypatch):
    items = pd.DataFrame({name: ["a", "b", "c", "d"] for name in store.ANSWERS})
    first = items.assign(correct=[True, True, False, False])
    second = items.assign(correct=[True, False, False, False]).iloc[::-1]
    tables = {"all instructions": first, "AVX2": second}
    monkeypatch.setattr(
        measure_stability,
        "train_on",
        lambda name, home: dict.fromkeys(measure_stability.RUNS, tables[name]),
    )
    weights = items.assign(score="mean", weight=0.25)
    monkeypatch.setattr(measure_stability, "weights", lambda *_: weights)
    monkeypatch.setattr(measure_stability.results, "load", lambda *_: items)
    table = measure_stability.compare().set_index("model")
    assert list(table.index) == list(measure_stability.RUNS)
    row = table.loc["CLIP-FT"]
    assert row["n"] == 4
    assert row["changed"] == pytest.approx(0.25)
    assert (row["accuracy"], row["accuracy_other"]) == pytest.approx((0.5, 0.25))
