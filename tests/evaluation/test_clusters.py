"""Items that share a picture: intervals and tests against the cluster-robust sandwich, and by hand.

The sandwich is that of Cameron, Gelbach and Miller (2011), written with matrices: the groups' means
are a regression on one dummy a group.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp

from cae_lib.errors import DataError
from cae_lib.evaluation.crossed import two_way_test
from cae_lib.evaluation.resampling import resampled_means
from cae_lib.evaluation.significance import mcnemar
from cae_lib.evaluation.slopes import moments
from cae_lib.evaluation.statistics import mean_interval, paired_difference, weighted_interval

WEIGHTS = [0.2, 0.5, 0.3]


def answers(n_seeds: int = 1, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Three groups whose items share pictures of unequal number, within and between groups."""
    generator = np.random.default_rng(seed)
    easy = generator.normal(0, 0.5, 60)
    pictures = [generator.integers(0, 60, n) for n in (70, 40, 90)]
    strata = [generator.random((n_seeds, len(own))) < 0.5 + easy[own] for own in pictures]
    return strata, pictures


def sandwich(values: list[np.ndarray], pictures: list[np.ndarray], corrected: bool) -> float:
    """Variance of the weighted mean of groups `(n,)`; corrected as by Bell and McCaffrey (2002)."""
    y, labels = np.concatenate(values), np.concatenate(pictures)
    group = np.repeat(np.arange(len(values)), [len(part) for part in values])
    x = (group[:, None] == np.arange(len(values))).astype(float)
    bread = np.linalg.inv(x.T @ x)
    residuals, meat = y - x @ bread @ x.T @ y, np.zeros_like(bread)
    for label in np.unique(labels):
        own = labels == label
        root = np.eye(own.sum())
        if corrected:
            size, turn = np.linalg.eigh(root - x[own] @ bread @ x[own].T)
            root = turn @ np.diag(size**-0.5) @ turn.T
        score = x[own].T @ root @ residuals[own]
        meat += np.outer(score, score)
    return WEIGHTS @ bread @ meat @ bread @ WEIGHTS


def test_the_bootstrap_has_the_variance_of_the_sandwich():
    strata, pictures = answers()
    arrays = [part.astype(float) for part in strata]
    draws = resampled_means(arrays, WEIGHTS, 20_000, np.random.default_rng(0), pictures)
    robust = sandwich([part[0] for part in arrays], pictures, corrected=False)
    assert draws.var() == pytest.approx(robust, rel=0.03)
    estimate = np.dot(WEIGHTS, [part.mean() for part in arrays])
    assert draws.mean() == pytest.approx(estimate, abs=1e-3)
    blind = resampled_means(arrays, WEIGHTS, 20_000, np.random.default_rng(0))
    assert blind.var() < 0.8 * robust


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_the_two_way_test_has_the_variance_of_the_corrected_sandwich(n_seeds: int):
    strata, pictures = answers(n_seeds)
    zeros = [np.zeros_like(part, dtype=float) for part in strata]
    parts = two_way_test(strata, zeros, WEIGHTS, pictures).components
    robust = sandwich([part.mean(axis=0) for part in strata], pictures, corrected=True)
    assert parts.by_item == pytest.approx(robust)
    assert parts.item_freedom == len(np.unique(np.concatenate(pictures))) - 1
    alone = [sandwich([row[s] - row.mean(axis=0) for row in strata], pictures, corrected=True)
             for s in range(n_seeds)]  # fmt: skip
    assert parts.rest == pytest.approx(sum(alone) / max(1, n_seeds - 1))


def test_three_pictures_by_hand():
    # differences by picture: 1 1, 0 0, 1 0; mean 1/2; sums of residuals 1, -1, 0 over 6
    values = np.array([[1, 1, 0, 0, 1, 0]])
    found = two_way_test([values], [0 * values], [1.0], [np.array([7, 7, 3, 3, 5, 5])])
    assert found.components.by_item == pytest.approx((2 / 36) / (1 - 1 / 3))
    assert (found.freedom, found.components.item_freedom) == (pytest.approx(2), 2)
    assert found.p_value == pytest.approx(2 * t.sf(0.5 / (1 / 12) ** 0.5, 2))
    # what is left of two seeds, 1 and -1 about the mean of both: sums 2, 0, -2 and their opposites
    pair = np.array([[2, 2, 0, 0, 0, 0], [0, 0, 0, 0, 2, 2]])
    parts = two_way_test([pair], [0 * pair], [1.0], [np.repeat([0, 1, 2], 2)]).components
    assert parts.rest == pytest.approx(4 * (2 / 6) ** 2 / (2 / 3))


def test_pictures_of_equal_size_are_a_t_test_of_their_means():
    generator = np.random.default_rng(1)
    values = generator.normal(0.2, 1, (1, 20, 3)) + generator.normal(0, 1, (1, 20, 1))
    expected = ttest_1samp(values[0].mean(axis=1), 0)
    flat, pictures = values.reshape(1, 60), np.repeat(np.arange(20), 3)
    found = two_way_test([flat], [0 * flat], [1.0], [pictures])
    assert (found.p_value, found.freedom) == pytest.approx((expected.pvalue, 19))
    # the same where each picture has one item in each of three groups
    parts = [flat[:, start::3] for start in range(3)]
    found = two_way_test(parts, [0 * part for part in parts], [1 / 3] * 3, [np.arange(20)] * 3)
    assert (found.p_value, found.freedom) == pytest.approx((expected.pvalue, 19))


def test_a_group_of_one_picture_takes_the_others_variance():
    values, lone = np.array([[1, 1, 0, 0, 1, 0]]), np.array([[1, 0]])
    labels = [np.array([0, 0, 1, 1, 2, 2]), np.array([9, 9])]
    parts = two_way_test([values, lone], [0 * values, 0 * lone], [0.5, 0.5], labels).components
    # one of three pictures moves the mean as much as three times 1 / 12
    assert parts.by_item == pytest.approx((1 / 12 + 3 / 12) / 4)
    assert parts.item_freedom == 2
    with pytest.raises(DataError, match="no group has two items"):
        two_way_test([lone], [0 * lone], [1.0], labels[1:])


def test_nothing_changes_where_every_item_has_its_own_picture():
    strata, _ = answers(3)
    others, _ = answers(3, seed=1)
    apart = np.split(np.random.default_rng(2).permutation(200), [70, 110])
    for pair_seeds in (True, False):
        settings = {"resample_seeds": True, "pair_seeds": pair_seeds}
        assert paired_difference(strata, others, WEIGHTS, clusters=apart, **settings) == (
            paired_difference(strata, others, WEIGHTS, **settings)
        )
    assert mean_interval(strata[0], clusters=apart[0]) == mean_interval(strata[0])
    by_item = two_way_test(strata, others, WEIGHTS)
    found = two_way_test(strata, others, WEIGHTS, apart)
    assert (found.error, found.freedom) == pytest.approx((by_item.error, by_item.freedom))
    one = sum(w**2 * part[0].var(ddof=1) / part.shape[1]
              for w, part in zip(WEIGHTS, strata, strict=True))  # fmt: skip
    zeros = [np.zeros((1, part.shape[1])) for part in strata]
    parts = two_way_test([part[:1] for part in strata], zeros, WEIGHTS, apart).components
    assert (parts.by_item, parts.item_freedom) == (pytest.approx(one), 200 - 3)


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_captions_five_times_over_tell_no_more_than_once(n_seeds: int):
    hits = np.random.default_rng(3).random((n_seeds, 80)) < 0.6
    five, pictures = np.repeat(hits, 5, axis=1), np.repeat(np.arange(80), 5)
    once, found = mean_interval(hits), mean_interval(five, clusters=pictures)
    assert (found.low, found.high) == pytest.approx((once.low, once.high))
    assert found.n_items == 400
    naive = mean_interval(five)
    assert naive.high - naive.low < 0.6 * (found.high - found.low)
    test, again = (two_way_test([x], [0 * x], [1.0], [own])
                   for x, own in ((hits * 1.0, np.arange(80)), (five * 1.0, pictures)))  # fmt: skip
    assert (again.error, again.freedom) == pytest.approx((test.error, test.freedom))


def test_differences_of_pictures_may_be_surer_than_those_of_items():
    gains = np.tile([1.0, -1.0], 50)
    together = mean_interval(gains, clusters=np.repeat(np.arange(50), 2))
    assert together.low == together.high == 0 and mean_interval(gains).high > 0.1


def test_signs_of_pictures_are_counted_out():
    generator = np.random.default_rng(5)
    first, second = generator.random(24) < 0.7, generator.random(24) < 0.4
    pictures = np.sort(generator.integers(0, 9, 24))
    gaps = [int(first[pictures == p].sum()) - int(second[pictures == p].sum())
            for p in np.unique(pictures)]  # fmt: skip
    sums = [abs(np.dot(signs, gaps)) for signs in product([1, -1], repeat=len(gaps))]
    expected = np.mean([total >= abs(sum(gaps)) for total in sums])
    found = mcnemar(first, second, pictures)
    assert found.p_value == pytest.approx(expected) and 0 < expected < 1
    assert found.first_only - found.second_only == sum(gaps)
    assert mcnemar(first, second, np.arange(24)) == mcnemar(first, second)
    five = mcnemar(np.repeat(first, 5), np.repeat(second, 5), np.repeat(np.arange(24), 5))
    assert five.p_value == pytest.approx(mcnemar(first, second).p_value)


def test_slopes_and_levels_resample_pictures():
    generator = np.random.default_rng(4)
    x, noise = generator.normal(0, 1, (200, 1)), generator.normal(0, 1, (200, 1))
    once = moments(x, x + noise, 0, 300)
    five, pictures = (np.repeat(values, 5, axis=0) for values in (x + noise, np.arange(200)))
    found = moments(np.repeat(x, 5, axis=0), five, 0, 300, pictures)
    np.testing.assert_allclose(found.slopes([0]), once.slopes([0]))
    # pictures of unequal size: a sample has more items or fewer, and a constant stays constant
    sizes = np.array([0] * 6 + [1, 2, 3])
    uneven = moments(np.arange(9)[:, None] % 2, np.ones((9, 1)), 0, 50, sizes)
    np.testing.assert_allclose(uneven.y / uneven.n, 1)


def test_labels_have_to_fit_the_items():
    with pytest.raises(DataError, match="labels .* for groups of .3. items"):
        mean_interval(np.ones(3), clusters=np.arange(2))
    with pytest.raises(DataError, match="clusters"):
        weighted_interval([np.ones(3), np.ones(2)], clusters=[np.arange(3)])
