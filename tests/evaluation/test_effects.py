"""The effect size against scipy's paired t-test, and where it has no value."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from cae_lib.errors import DataError
from cae_lib.evaluation.effects import effect_size


def test_d_is_t_over_the_root_of_n():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.3, 1, 50), rng.normal(0, 1, 50)
    expected = ttest_rel(first, second).statistic / np.sqrt(50)
    found = effect_size(first, second)
    assert found.estimate == pytest.approx(expected)
    assert found.low < expected < found.high and found.n_items == 50
    assert effect_size(second, first).estimate == pytest.approx(-expected)


def test_seeds_are_averaged_before_the_spread_is_taken():
    rng = np.random.default_rng(1)
    first, second = rng.normal(0.5, 1, (3, 40)), rng.normal(0, 1, 40)
    mean = first.mean(axis=0)
    expected = ttest_rel(mean, second).statistic / np.sqrt(40)
    found = effect_size(first, second)
    assert found.estimate == pytest.approx(expected) and found.n_seeds == 3


def test_the_interval_covers_at_about_its_level():
    rng = np.random.default_rng(2)
    draws = [effect_size(rng.normal(0.4, 1, 40), np.zeros(40), resamples=300) for _ in range(200)]
    covered = np.mean([found.low <= 0.4 <= found.high for found in draws])
    assert 0.88 <= covered <= 0.99


def test_differences_that_do_not_vary():
    same = np.arange(10.0)
    assert effect_size(same, same).estimate == 0
    with pytest.raises(DataError, match="all differences are equal"):
        effect_size(same + 1, same)


@pytest.mark.parametrize(
    ("first", "second"), [((3,), (4,)), ((1,), (1,)), ((2, 5), (3, 5))], ids=str
)
def test_items_and_seeds_have_to_match(first, second):
    with pytest.raises(DataError, match="expected"):
        effect_size(np.zeros(first), np.zeros(second))
