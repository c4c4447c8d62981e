from __future__ import annotations

import pytest

from cae_lib.errors import DataError
from cae_lib.evaluation.match import match_accuracy


@pytest.fixture
def encoder(hand_encoder):
    pictures = {"p": [0.9], "q": [0.4], "r": [0.6], "s": [0.1]}
    return hand_encoder(pictures, {"A girl sits": [1.0], "a  girl sits": [1.0], "A boy": [0.5]})


def test_distinct_pairs_by_kind_at_a_given_threshold(encoder, choice, benchmark_of):
    benchmark = benchmark_of(
        choice(["p", "q"], ["A girl sits"], group="subj"),  # .9 yes, .4 no: both right
        choice(["p", "r"], ["a  girl sits"], group="verb"),  # the same positive; .6 yes: wrong
        choice(["p", "s"], ["A boy"], group="verb"),  # .45 no: wrong; .05 no: right
        choice(["s", "p"], ["A boy"], group="mixed"),  # left out
    )
    accuracy, threshold = match_accuracy(benchmark, encoder, threshold=0.5)
    assert threshold == 0.5
    assert sorted(accuracy) == ["all", "subj", "verb"]
    everything = accuracy["all"]
    assert (everything.n_positive, everything.n_negative) == (2, 3)
    assert everything.positive == pytest.approx(1 / 2)
    assert everything.negative == pytest.approx(2 / 3)
    assert everything.value == pytest.approx(7 / 12)
    assert accuracy["subj"].value == 1.0
    assert (accuracy["verb"].positive, accuracy["verb"].negative) == (0.5, 0.5)


def test_the_default_threshold_is_the_median_of_distinct_pairs(encoder, choice, benchmark_of):
    row = choice(["p", "q"], ["A girl sits"], group="obj")
    other = choice(["p", "s"], ["A girl sits"], group="obj")
    accuracy, threshold = match_accuracy(benchmark_of(row, row, other), encoder)
    assert threshold == pytest.approx(0.4)  # of .9, .4, .1; at the threshold is no match
    at_it = choice(["q", "s"], ["A girl sits"], group="obj")
    again, _ = match_accuracy(benchmark_of(row, at_it), encoder, threshold)
    assert (again["obj"].positive, again["obj"].negative) == (0.5, 1.0)
    assert accuracy["obj"].value == 1.0


def test_no_row_with_one_kind(encoder, choice, benchmark_of):
    with pytest.raises(DataError, match="exactly one kind"):
        match_accuracy(benchmark_of(choice(["p", "q"], ["A boy"], group="mixed")), encoder)
