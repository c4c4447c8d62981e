"""What a page on one setting takes from the stored searches, and which values it trains."""

import numpy as np
import pandas as pd
import pytest

from book.studies.sweep import stored_trials, values_to_try
from cae_lab.profiles import load_profile


def trials(*rows: dict) -> pd.DataFrame:
    return pd.DataFrame([{"experiment": "cae-gradcam"} | row for row in rows])


def test_a_setting_that_a_search_left_alone_has_the_configured_value():
    config = load_profile("mini").experiment("cae-gradcam")  # λ 0.1, margin 0
    stored = trials({"weight": 0.1}, {"weight": 0.3}, {"weight": 0.1, "margin": 0.05})
    assert np.isnan(stored["margin"][0])
    assert stored_trials(stored, config, "margin")["margin"].tolist() == [0.0, 0.05]
    assert stored_trials(stored, config, "weight")["weight"].tolist() == [0.1, 0.3]
    assert stored_trials(trials({"weight": 0.1}), config, "margin")["margin"].tolist() == [0.0]
    assert stored_trials(stored, load_profile("mini").experiment("cae-attention"), "margin").empty


def test_trials_with_another_learning_rate_are_no_trials_of_the_run():
    config = load_profile("photo").experiment("clip-ft")
    rows = [{"experiment": "clip-ft", "lr": lr, "score": lr} for lr in (1e-4, config.lr, 1e-3)]
    assert stored_trials(pd.DataFrame(rows), config)["score"].tolist() == [config.lr]


@pytest.mark.parametrize(
    ("tried", "configured", "values"),
    [
        ([0.3, 0.1], 0.1, [0.3, 0.1]),
        ([0.0], 0.0, [0.0, 0.05, 0.1]),
        ([], 0.0, [0.0, 0.05, 0.1]),
        ([0.1], 0.1, [0.05, 0.1, 0.2]),
        ([], 0.2, [0.05, 0.1, 0.2]),
        ([], 0.07, [0.05, 0.07, 0.1]),
    ],
)
def test_fewer_than_two_stored_values_are_completed_by_neighbours(tried, configured, values):
    assert values_to_try(tried, (0.05, 0.1, 0.2), configured) == values
