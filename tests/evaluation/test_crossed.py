"""The two-way t test against scipy's and hand-worked analyses of variance, and its false alarms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t, ttest_rel

from cae_lib.errors import DataError
from cae_lib.evaluation.crossed import Components, detectable, pooled, two_way_test
from cae_lib.evaluation.false_alarms import false_alarms


def test_two_way_by_hand():
    # seeds 2 and 3: variance 1/2, halved; items 4.5, 1.5, 1.5: variance 3, a third; nothing left
    first, second = np.array([[4, 1, 1], [5, 2, 2]]) + 7, np.full((1, 3), 7)
    found = two_way_test([first], [second], [1.0])
    assert (found.estimate, found.by_seed) == (2.5, (2.0, 3.0))
    assert found.error == pytest.approx((1 / 4 + 1) ** 0.5)
    assert found.freedom == pytest.approx(1.25**2 / (0.25**2 / 1 + 1**2 / 2))
    assert found.p_value == pytest.approx(2 * t.sf(2.5 / 1.25**0.5, found.freedom))


def test_what_seed_and_item_share_is_counted_once():
    # means of seeds equal, of items 1.5 and 0.5; each cell is half a point off their sum
    parts = two_way_test([np.array([[2, 0], [1, 1]])], [np.zeros((2, 2))], [1.0]).components
    assert (parts.by_seed, parts.by_item, parts.rest) == pytest.approx((0, 0.25, 0.5))
    assert (parts.seeds, parts.items) == (0, 0)
    assert parts.variance() == pytest.approx(0.25)


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_without_a_difference_between_seeds_it_is_the_paired_t_test(n_seeds: int):
    generator = np.random.default_rng(0)
    first, second = generator.random((2, 1, 40)) < 0.5
    found = two_way_test([np.repeat(first, n_seeds, axis=0)], [second], [1.0])
    expected = ttest_rel(first[0].astype(float), second[0].astype(float))
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.freedom == pytest.approx(39)


def test_groups_are_weighted_and_a_lone_item_takes_the_others_variance():
    first = [np.array([[1, 0, 0, 0]]), np.array([[1]])]
    zeros = [np.zeros((1, 4)), np.zeros((1, 1))]
    found = two_way_test(first, zeros, [0.25, 0.75])
    assert found.estimate == pytest.approx(0.25 * 0.25 + 0.75)
    assert found.components.by_item == pytest.approx(0.25**2 * 0.25 / 4 + 0.75**2 * 0.25)
    with pytest.raises(DataError, match="no group has two items"):
        two_way_test(first[1:], zeros[1:], [1.0])


def test_equal_answers_are_no_difference_and_a_constant_one_is():
    ones = np.ones((3, 5))
    assert two_way_test([ones], [ones], [1.0]).p_value == 1.0
    assert two_way_test([ones], [0 * ones], [1.0]).p_value == 0.0


def test_only_the_same_items_and_seeds_are_paired():
    for other in (np.ones((3, 4)), np.ones((2, 5))):
        with pytest.raises(DataError, match="pair the same items"):
            two_way_test([np.ones((3, 5))], [other], [1.0])


def test_components_are_those_that_the_answers_were_drawn_with():
    generator = np.random.default_rng(0)
    n, tables = 50, []
    for _ in range(400):
        table = 0.2 * generator.normal(size=(3, 1)) + generator.normal(size=(1, n))
        tables.append(table + 0.5 * generator.normal(size=(3, n)))
    parts = pooled([two_way_test([x], [np.zeros((1, n))], [1.0]).components for x in tables])
    assert parts.seeds == pytest.approx(0.04, rel=0.15)
    assert parts.items == pytest.approx(1 / n, rel=0.1)
    assert parts.rest == pytest.approx(0.25 / n, rel=0.1)
    with pytest.raises(DataError, match="same number of seeds"):
        pooled([])


def test_the_detectable_difference_with_many_items_alone_and_by_simulation():
    items_alone = Components(0.0, 0.01**2, 0.0, 3, 100_000)
    assert detectable(items_alone) == pytest.approx(0.01 * (1.959964 + 0.841621), rel=1e-3)
    half = detectable(items_alone, more_items=4)
    assert half == pytest.approx(detectable(items_alone) / 2, rel=1e-3)
    seeds_alone = Components(3.0, 1e-12, 0.0, 3, 1000)
    size = detectable(seeds_alone)
    draws = size + 3**0.5 * np.random.default_rng(0).normal(size=(20_000, 3))
    ratio = np.abs(draws.mean(axis=1)) / draws.std(axis=1, ddof=1) * 3**0.5
    assert (ratio > t.isf(0.025, 2)).mean() == pytest.approx(0.8, abs=0.02)
    assert detectable(seeds_alone, n_seeds=10) < size / 2


def test_false_alarms_of_each_test():
    items, shared = false_alarms(0, 1, 0), false_alarms(0.1, 1, 1)
    assert items.one_seed == pytest.approx(0.05, abs=0.015)
    assert items.two_way == pytest.approx(0.05, abs=0.015)
    assert shared.two_way < 0.06
    seeds = false_alarms(100, 1, 1)  # signs of three seeds agree in a quarter of all cases
    assert seeds.one_seed > 0.7 and 0.17 < seeds.bootstrap < 0.25 and seeds.two_way < 0.09
