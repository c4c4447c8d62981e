"""Slopes with a level for each stratum, against hand-worked numbers and numpy's least squares."""

from __future__ import annotations

import numpy as np
import pytest

from cae_lib.errors import DataError
from cae_lib.evaluation.slopes import moments, total


def strata(seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Two strata of different level in which x differs as well, against the slope within."""
    rng = np.random.default_rng(seed)
    found = []
    for level, shift, n in ((0.9, 5, 300), (0.2, 0, 200)):
        x = rng.integers(0, 4, (n, 2)) + shift
        y = level - 0.05 * (x[:, :1] - shift) + 0.02 * x[:, 1:] + rng.normal(0, 0.01, (n, 3))
        found.append((x.astype(float), y))
    return found


def test_slope_by_hand() -> None:
    """Within strata the score falls by 1 with each step, although it rises from one to the next."""
    low = moments(np.array([[0], [1]]), np.array([[1], [0]]), 0, 5)
    high = moments(np.array([[2], [3]]), np.array([[5], [4]]), 1, 5)
    assert total([low, high]).slopes([0])[0, 0, 0] == pytest.approx(-1)
    assert low.n + high.n == total([low, high]).n == 4


def test_slopes_equal_least_squares_with_an_intercept_for_each_stratum() -> None:
    parts = strata()
    found = total([moments(x, y, k, 3) for k, (x, y) in enumerate(parts)]).slopes([0, 1])[0]
    design = np.concatenate([
        np.column_stack([x, *(np.full(len(x), float(k == other)) for other in range(2))])
        for k, (x, _) in enumerate(parts)
    ])  # fmt: skip
    expected = np.linalg.lstsq(design, np.concatenate([y for _, y in parts]), rcond=None)[0]
    assert np.allclose(found, expected[:2])
    assert np.allclose(found, [[-0.05] * 3, [0.02] * 3], atol=3e-3)


def test_bootstrap_spread_is_the_standard_error() -> None:
    rng = np.random.default_rng(3)
    x, noise = rng.normal(0, 1, (400, 1)), rng.normal(0, 2, (400, 1))
    samples = moments(x, x + noise, 0, 800).slopes([0])[1:, 0, 0]
    assert samples.std() == pytest.approx(2 / 20, rel=0.15)


def test_scores_share_the_resampling() -> None:
    (x, y), _ = strata()
    samples = moments(x, np.column_stack([y[:, 0], y[:, 0] + 1]), 0, 20).slopes([0])
    assert np.allclose(samples[:, 0, 0], samples[:, 0, 1])
    assert samples[1:, 0, 0].std() > 0


def test_levels_hold_the_stratum_fixed() -> None:
    """Class 1 lies 0.4 below class 0 in both strata, in which it is rare and frequent."""
    easy = np.array([[0]] * 3 + [[1]]), np.array([[1.0]] * 3 + [[0.6]])
    hard = np.array([[0]] + [[1]] * 3), np.array([[0.5]] + [[0.1]] * 3)
    sums = total([moments(*easy, 0, 4), moments(*hard, 1, 4)])
    assert sums.levels([0])[0, :, 0] == pytest.approx([0.75, 0.35])


def test_a_class_that_no_stratum_compares_has_no_level() -> None:
    x = np.array([[0, 0], [1, 0]])
    alone = moments(np.array([[0, 1], [0, 1]]), np.array([[1], [0]]), 1, 4)
    sums = total([moments(x, np.array([[1], [0]]), 0, 4), alone])
    assert np.isnan(sums.levels([0, 1])[0, :, 0]).tolist() == [False, False, True]


def test_properties_that_go_together_have_no_slopes() -> None:
    x = np.array([[0, 0], [1, 2], [3, 6]])
    sums = moments(x, np.array([[1], [0], [1]]), 0, 4)
    assert np.isnan(sums.slopes([0, 1])).all()
    assert np.isfinite(sums.slopes([0])[0]).all()


def test_counts_of_items_have_to_agree() -> None:
    with pytest.raises(DataError, match="3 items with properties, 2 with scores"):
        moments(np.zeros((3, 1)), np.zeros((2, 1)), 0)
    with pytest.raises(DataError, match="no stratum"):
        total([])
