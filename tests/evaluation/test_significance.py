from __future__ import annotations

from math import comb

import numpy as np
import pytest

from cae_lib.errors import DataError
from cae_lib.evaluation.significance import holm, mcnemar


def test_mcnemar_by_hand():
    first = np.array([1, 1, 1, 1, 1, 1, 0, 1, 0], dtype=bool)
    second = np.array([0, 0, 0, 0, 0, 0, 1, 1, 0], dtype=bool)
    test = mcnemar(first, second)
    assert (test.first_only, test.second_only) == (6, 1)
    assert test.p_value == pytest.approx(2 * (comb(7, 0) + comb(7, 1)) / 2**7)
    assert mcnemar(second, first).p_value == pytest.approx(test.p_value)


def test_mcnemar_with_nothing_discordant_or_an_even_split():
    same = np.array([True, False])
    assert mcnemar(same, same).p_value == 1.0
    assert mcnemar(same, ~same).p_value == 1.0


def test_mcnemar_of_many_items_stays_finite():
    first = np.arange(20_000) < 10_300
    test = mcnemar(first, ~first)
    assert 1e-6 < test.p_value < 1e-4


def test_mcnemar_needs_the_same_items():
    with pytest.raises(DataError, match="3 items against 4"):
        mcnemar(np.ones(3), np.ones(4))


def test_holm_by_hand():
    # sorted .005 .01 .03 .04, times 4 3 2 1 = .02 .03 .06 .04, made monotone
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.9]), [1.0, 1.0])
    assert holm([]).shape == (0,)
