from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binom, bootstrap

from cae_lib.errors import DataError
from cae_lib.evaluation.statistics import mean_interval, paired_difference, weighted_interval


def coin(n, p, seed=0):
    return np.random.default_rng(seed).random(n) < p


def plain_two_way(a, b, resamples, seed, pair_seeds=True):
    """Differences of resampled means with loops over the definition."""
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(resamples):
        items = rng.integers(a.shape[1], size=a.shape[1])
        seeds_a = rng.integers(len(a), size=len(a))
        seeds_b = seeds_a if pair_seeds else rng.integers(len(b), size=len(b))
        draws.append(a[seeds_a][:, items].mean() - b[seeds_b][:, items].mean())
    return np.array(draws)


def test_mean_of_right_or_wrong_has_binomial_quantiles():
    values = np.arange(400) < 260
    interval = mean_interval(values)
    assert interval.estimate == 0.65
    assert interval.low == pytest.approx(binom.ppf(0.025, 400, 0.65) / 400, abs=0.004)
    assert interval.high == pytest.approx(binom.ppf(0.975, 400, 0.65) / 400, abs=0.004)
    assert (interval.n_items, interval.n_seeds, interval.level) == (400, 1, 0.95)
    assert json.loads(json.dumps(interval.to_record()))["estimate"] == 0.65


def test_continuous_values_agree_with_scipy():
    values = np.random.default_rng(1).gamma(2.0, size=500)
    ours = mean_interval(values, resamples=4000)
    theirs = bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=3)
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.08 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.08 * width)
    assert ours.estimate == pytest.approx(values.mean())


def test_few_and_many_distinct_values_have_the_same_interval():
    values = coin(600, 0.4).astype(float)
    few = mean_interval(values)
    many = mean_interval(values + np.linspace(0, 1e-9, 600))
    assert few.low == pytest.approx(many.low, abs=0.004)
    assert few.high == pytest.approx(many.high, abs=0.004)


def test_macro_average_weighs_groups_and_not_items():
    small, large = np.array([1, 0, 1, 1]), coin(2000, 0.5)
    interval = weighted_interval([small, large])
    assert interval.estimate == pytest.approx((0.75 + large.mean()) / 2)
    assert interval.n_items == 2004
    # The standard error is that of the small group: sqrt(.75 * .25 / 4) / 2 = 0.108.
    assert (interval.high - interval.low) / 3.92 == pytest.approx(0.108, rel=0.15)
    weighted = weighted_interval([small, large], [0.0, 1.0])
    assert weighted.estimate == pytest.approx(large.mean())
    assert weighted.high - weighted.low < 0.05


def test_items_are_shared_by_seeds_and_seeds_add_their_own_spread():
    right = coin(300, 0.6)
    same = np.stack([right] * 3)
    one, three = mean_interval(right), mean_interval(same, resample_seeds=True)
    assert three.high - three.low == pytest.approx(one.high - one.low, rel=0.06)
    apart = np.stack([np.arange(300) < n for n in (90, 180, 270)])
    fixed = mean_interval(apart)
    both = mean_interval(apart, resample_seeds=True)
    assert both.estimate == fixed.estimate == pytest.approx(0.6)
    assert both.high - both.low > 3 * (fixed.high - fixed.low)
    assert both.n_seeds == 3


@pytest.mark.parametrize("pair_seeds", [True, False])
def test_two_way_difference_agrees_with_the_plain_loop(pair_seeds):
    rng = np.random.default_rng(5)
    skill = rng.random(150)
    a = rng.random((3, 150)) < 0.25 + 0.5 * skill + np.array([[0.0], [0.1], [0.2]])
    b = rng.random((3, 150)) < 0.2 + 0.5 * skill + np.array([[0.0], [0.1], [0.2]])
    ours = paired_difference([a], [b], resample_seeds=True, pair_seeds=pair_seeds)
    plain = plain_two_way(a, b, 6000, seed=1, pair_seeds=pair_seeds)
    low, high = np.quantile(plain, [0.025, 0.975])
    assert ours.estimate == pytest.approx(a.mean() - b.mean())
    assert ours.low == pytest.approx(low, abs=0.008)
    assert ours.high == pytest.approx(high, abs=0.008)


def test_pairing_removes_what_both_share():
    base = coin(1000, 0.5)
    better = base.copy()
    better[np.flatnonzero(~base)[:30]] = True
    difference = paired_difference([better], [base])
    assert difference.estimate == pytest.approx(0.03)
    assert difference.excludes_zero and 0.01 < difference.low < difference.high < 0.05
    same = paired_difference([base], [base])
    assert (same.estimate, same.low, same.high, same.excludes_zero) == (0, 0, 0, False)


def test_a_model_without_seeds_stands_against_each_seed():
    base, seeds = coin(200, 0.5), np.stack([coin(200, 0.6, s) for s in (1, 2, 3)])
    one = paired_difference([seeds], [base], resample_seeds=True)
    assert one.estimate == pytest.approx(seeds.mean() - base.mean())
    assert one.n_seeds == 3
    other = paired_difference([base], [seeds], resample_seeds=True)
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low), abs=0.01)


def test_same_seed_same_interval():
    values = coin(100, 0.3)
    assert mean_interval(values, seed=4) == mean_interval(values, seed=4)
    assert mean_interval(values, seed=4) != mean_interval(values, seed=5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match="no scores"):
        weighted_interval([])
    with pytest.raises(DataError, match="a group has none"):
        weighted_interval([np.array([1]), np.array([])])
    with pytest.raises(DataError, match="same number of seeds"):
        weighted_interval([np.ones((2, 3)), np.ones((3, 3))])
    with pytest.raises(DataError, match="1 weights for 2 groups"):
        weighted_interval([np.ones(3), np.ones(3)], [1.0])
    with pytest.raises(DataError, match="different items"):
        paired_difference([np.ones(3)], [np.ones(4)])
    with pytest.raises(DataError, match="2 seeds against 3"):
        paired_difference([np.ones((2, 4))], [np.ones((3, 4))])
