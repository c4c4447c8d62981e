from __future__ import annotations

import pytest

from cae_lib.data.benchmarks.base import Benchmark
from cae_lib.evaluation.choice import answers, scored
from cae_lib.evaluation.items import items


@pytest.fixture
def encoder(hand_encoder):
    pictures = {"p": [0.9], "q": [0.4], "r": [0.6], "s": [0.1]}
    return hand_encoder(pictures, {"A girl sits": [1.0], "a  girl sits": [1.0], "A boy": [0.5]})


def svo(*rows) -> Benchmark:
    return Benchmark("svo_probes", "all", rows, len(rows) + 1)


def test_distinct_pairs_at_the_median_of_all(encoder, choice):
    benchmark = svo(
        choice(["p", "q"], ["A girl sits"], group="subj"),  # .9 and .4
        choice(["p", "r"], ["a  girl sits"], group="verb"),  # the same positive; .6
        choice(["p", "s"], ["A boy"], group="verb"),  # .45 and .05
        choice(["s", "p"], ["A boy"], group="mixed"),  # left out
    )
    found = answers([benchmark], encoder)
    found = found[found.subset == "match"]  # the median of .05, .4, .45, .6, .9 is .45
    assert found.group.tolist() == ["positive", "negative", "negative", "positive", "negative"]
    assert found.margin.tolist() == pytest.approx([0.45, 0.05, -0.15, 0, 0.4])
    assert found.correct.tolist() == [True, True, False, False, True]
    assert found.groupby("group").correct.mean().tolist() == pytest.approx([2 / 3, 1 / 2])
    weights = items([benchmark], None, False).query("subset == 'match'").weight
    assert (weights * found.correct).sum() == pytest.approx(7 / 12)
    part = scored([benchmark])[1]
    assert (part.key, part.n_used, part.n_expected) == ("svo_probes/match", 5, 7)


def test_a_pair_at_the_threshold_is_no_match(encoder, choice):
    row = choice(["p", "q"], ["A girl sits"], group="obj")
    other = choice(["p", "s"], ["A girl sits"], group="obj")
    found = answers([svo(row, row, other)], encoder).query("subset == 'match'")
    assert found.correct.tolist() == [True, True, True]  # of .9, .4, .1; .4 is none
    assert found.margin.tolist() == pytest.approx([0.5, 0, 0.3])


def test_no_row_with_one_kind(encoder, choice):
    found = answers([svo(choice(["p", "q"], ["A boy"], group="mixed"))], encoder)
    assert found.subset.tolist() == ["all"]
