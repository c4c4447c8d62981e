"""The choice of the learning rate and lambda."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cae_lib import results
from cae_lib.commands import tune
from cae_lib.commands.jobs import Outcome
from cae_lib.config import experiment
from cae_lib.data.captions import Pairs

TUNED = {"gap_attention": 0.1}


def row(weight: float, gap: float) -> dict:
    return {"experiment": "cae-attention", "weight": weight, "gap_attention": gap}


def test_the_best_setting_has_the_highest_score_and_of_equals_the_smallest_value():
    rows = [{"lr": 3.0, "score": 0.5}, {"lr": 1.0, "score": 0.5}, {"lr": 2.0, "score": 0.4}]
    assert tune.best(rows)["lr"] == 1.0


@pytest.mark.parametrize(("gaps", "chosen"), [
    ((0.05, 0.009, 0.001), 1.0), ((0.05, 0.02, 0.011), 3.0), ((-0.05, 0.02, 0.011), 0.3),
])
def test_lambda_is_the_smallest_that_levels_the_attribution(gaps: tuple, chosen: float):
    rows = [row(weight, gap) for weight, gap in zip((0.3, 1.0, 3.0), gaps, strict=True)]
    assert tune.levelling(rows, TUNED)["weight"] == chosen


@pytest.mark.parametrize(("enough", "tried"), [
    (1.0, [0.3, 1.0]), (0.1, [0.03, 0.1, 0.3, 1.0]), (10.0, [1.0, 3.0, 10.0]),
    (1000.0, [1.0, 3.0, 10.0, 30.0, 100.0]),
])
def test_lambda_is_sought_only_around_the_smallest_that_is_enough(enough: float, tried: list):
    rows = tune.walk(lambda weight: row(weight, 0.0 if weight >= enough else 0.05), TUNED)
    assert [found["weight"] for found in rows] == tried
    assert tune.levelling(rows, TUNED)["weight"] == min(enough, 100.0)


def test_the_configured_values_are_those_of_the_recorded_sweep(monkeypatch):
    monkeypatch.delenv("CAE_HOME", raising=False)
    sweep = results.load("sweep", "mini", ["tuning"])
    for found in sweep[sweep["chosen"]].itertuples():
        config = experiment(found.experiment, "mini")
        assert (config.lr, config.weight) == (found.lr, np.nan_to_num(found.weight))


def test_validation_scores_by_hand():
    """Two captions, three negatives: one of them is as close as the caption, which is wrong."""
    class Fake:
        vectors = {"a": (1.0, 0.0), "b": (0.0, 1.0), "c": (0.6, 0.8)}

        def images(self, refs):
            return self.texts([ref.path.name for ref in refs])

        def texts(self, texts):
            return np.array([self.vectors[text] for text in texts], dtype=np.float32)

    pairs = Pairs([Path("a"), Path("b")], ["a", "b"], torch.tensor([0, 1]), "hand", 2, 2,
                  negatives=[["b", "a"], ["c"]])
    scores = tune.validation_scores(Fake(), pairs)
    assert (scores["recall_at_1"], scores["n_negatives"]) == (1.0, 3)
    assert scores["against_negatives"] == pytest.approx(2 / 3)
    assert scores["score"] == pytest.approx(5 / 6)


def test_the_stored_sweep_marks_what_was_chosen(home: Path, monkeypatch):
    def measured(name: str, profile: str, lr: float, weight: float | None = None) -> dict:
        gap = 0.1 if weight is None or weight < 3.0 else 0.0
        gaps = {f"gap_{method}": gap for method in tune._plain_cae(profile).values()}
        return {"experiment": name, "lr": lr, "weight": weight, "score": lr} | gaps

    monkeypatch.setattr(tune, "_row", measured)
    monkeypatch.setattr(tune, "training_set", lambda name: None)
    monkeypatch.setattr(tune, "run_jobs", lambda jobs: {
        label: Outcome(job(), 1.0) for label, job in jobs.items()})
    tune.tune("smoke")
    table = results.load("sweep", "smoke", ["tuning"])
    chosen = table[table["chosen"]].set_index("experiment")
    assert chosen["lr"].eq(1e-3).all() and len(chosen) == 5
    assert np.isnan(chosen.loc["clip-ft", "weight"])
    assert chosen["weight"].drop("clip-ft").eq(3.0).all()
