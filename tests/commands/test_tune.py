"""The choice of the learning rate and lambda."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cae_lib import results
from cae_lib.commands.tune import best, levelling, sweep_table, validation_scores, walk
from cae_lib.config import experiment
from cae_lib.data.captions import Pairs


def test_the_best_setting_has_the_highest_score_and_of_equals_the_smallest_value():
    rows = [{"lr": 3.0, "score": 0.5}, {"lr": 1.0, "score": 0.5}, {"lr": 2.0, "score": 0.4}]
    assert best(rows, "lr") == 1.0


def test_lambda_is_the_smallest_that_levels_the_attribution():
    def rows(*gaps: float) -> list[dict]:
        weights = (0.3, 1.0, 3.0)
        return [{"run": "cae-attention", "weight": w, "gaps": {"attention": g}}
                for w, g in zip(weights, gaps, strict=True)]

    tuned = {"gaps": {"attention": 0.1}}
    assert levelling(rows(0.05, 0.009, 0.001), tuned) == 1.0
    assert levelling(rows(0.05, 0.02, 0.011), tuned) == 3.0
    assert levelling(rows(-0.05, 0.02, 0.011), tuned) == 0.3


def test_lambda_is_sought_only_around_the_smallest_that_is_enough():
    tuned = {"gaps": {"attention": 0.1}}

    def tried(enough: float) -> list[float]:
        def measure(weight: float) -> dict:
            gap = 0.0 if weight >= enough else 0.05
            return {"run": "cae-attention", "weight": weight, "gaps": {"attention": gap}}

        rows = walk(measure, tuned)
        assert levelling(rows, tuned) == min(enough, 100.0)
        return [row["weight"] for row in rows]

    assert tried(1.0) == [0.3, 1.0]
    assert tried(0.1) == [0.03, 0.1, 0.3, 1.0]
    assert tried(10.0) == [1.0, 3.0, 10.0]
    assert tried(1000.0) == [1.0, 3.0, 10.0, 30.0, 100.0]


def test_the_configured_values_are_those_of_the_recorded_sweep(monkeypatch):
    monkeypatch.delenv("CAE_HOME", raising=False)
    sweep = results.load("sweep", "mini", ["tuning"])
    for row in sweep[sweep["chosen"]].itertuples():
        config = experiment(row.experiment, "mini")
        assert (config.lr, config.weight) == (row.lr, np.nan_to_num(row.weight))


def test_validation_scores_by_hand(tmp_path):
    """Two captions, three negatives: one of them is as close as the caption, which is wrong."""
    class Fake:
        vectors = {"a": (1.0, 0.0), "b": (0.0, 1.0), "c": (0.6, 0.8)}

        def images(self, refs):
            return np.array([self.vectors[ref.path.name] for ref in refs], dtype=np.float32)

        def texts(self, texts):
            return np.array([self.vectors[text] for text in texts], dtype=np.float32)

    pairs = Pairs([Path("a"), Path("b")], ["a", "b"], torch.tensor([0, 1]), "hand", 2, 2,
                  negatives=[["b", "a"], ["c"]])
    scores = validation_scores(Fake(), pairs)
    assert scores["recall_at_1"] == 1.0
    assert scores["n_negatives"] == 3
    assert abs(scores["against_negatives"] - 2 / 3) < 1e-9
    assert abs(scores["score"] - 5 / 6) < 1e-9


def test_the_table_marks_what_was_chosen():
    rows = [{"run": "clip-ft", "lr": lr, "score": lr, "gaps": {"attention": 0.1}}
            for lr in (0.1, 0.2)]
    rows.append({"run": "cae-attention", "lr": 0.2, "weight": 1.0, "score": 0.0,
                 "gaps": {"attention": 0.0}})
    table = sweep_table(rows, {"clip-ft": 0.2, "cae-attention": 1.0})
    assert table["chosen"].tolist() == [False, True, True]
    assert table["weight"].isna().tolist() == [True, True, False]
    assert table["gap_attention"].tolist() == [0.1, 0.1, 0.0]
