from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import pearsonr, rankdata, spearmanr

from cae_lib.data.similarity import SentencePairs
from cae_lib.errors import DataError
from cae_lib.evaluation.correlation import correlation_draws, ranks
from cae_lib.evaluation.similarity import (
    SimilarityResult,
    evaluate_similarity,
    similarity_difference,
)


@pytest.fixture
def noisy():
    """A result whose cosines follow the scores with noise; both have ties."""

    def make(noise, seed=0, n=400):
        gold = np.round(np.random.default_rng(0).uniform(0, 5, n), 1)
        cosine = gold / 5 + noise * np.random.default_rng(seed + 1).normal(size=n)
        cosine = np.round(np.clip(cosine / 3, -1, 1), 3)
        return SimilarityResult("STS-B", cosine, gold, {"one": n // 4, "two": n - n // 4}, n)

    return make


def test_all_is_over_the_concatenation_and_parts_are_their_own(noisy):
    result = noisy(0.3)
    for kind, measure in (("spearman", spearmanr), ("pearson", pearsonr)):
        assert result.correlation(kind) == pytest.approx(measure(result.cosine, result.gold)[0])
        part = measure(result.cosine[:100], result.gold[:100])[0]
        assert result.by_part(kind)["one"] == pytest.approx(part)
    record = result.to_record()
    parts = record["spearman"]["parts"]
    assert record["spearman"]["mean"] == pytest.approx((parts["one"] + parts["two"]) / 2)
    weighted = (parts["one"] + 3 * parts["two"]) / 4
    assert record["spearman"]["weighted_mean"] == pytest.approx(weighted)
    assert record["spearman"]["all"] != pytest.approx(record["spearman"]["mean"], abs=1e-6)


def test_cosines_of_hand_written_vectors(hand_encoder):
    encoder = hand_encoder({}, {"a": [1.0, 0.0], "b": [0.6, 0.8], "c": [0.0, 1.0]})
    pairs = SentencePairs("SICK-R", ("a", "a", "b"), ("b", "c", "b"), np.array([3.0, 1.0, 5.0]),
                          {"test": 3}, 4)  # fmt: skip
    result = evaluate_similarity(pairs, encoder)
    np.testing.assert_allclose(result.cosine, [0.6, 0.0, 1.0], atol=1e-7)
    assert result.correlation("spearman") == pytest.approx(1)
    assert (result.n_used, result.n_expected) == (3, 4)


def test_ranks_of_a_resample_equal_scipy_s_on_the_drawn_pairs():
    rng = np.random.default_rng(0)
    a = np.round(rng.normal(size=30), 1)
    counts = rng.multinomial(30, np.full(30, 1 / 30), size=20)
    for row, found in zip(counts, ranks(a, counts), strict=True):
        drawn = np.repeat(np.arange(30), row)
        np.testing.assert_allclose(found[drawn] + 0.5, rankdata(a[drawn]))


@pytest.mark.parametrize(("kind", "measure"), [("spearman", spearmanr), ("pearson", pearsonr)])
def test_draws_equal_scipy_s_correlations_of_the_same_resamples(noisy, kind, measure):
    result = noisy(0.5, n=60)
    draws = correlation_draws([result.cosine, -result.cosine], result.gold, kind, 25, seed=3)
    counts = np.random.default_rng(3).multinomial(60, np.full(60, 1 / 60), size=25)
    for row, (plus, minus) in zip(counts, draws, strict=True):
        drawn = np.repeat(np.arange(60), row)
        expected = measure(result.cosine[drawn], result.gold[drawn])[0]
        assert plus == pytest.approx(expected) and minus == pytest.approx(-expected)


def test_interval_covers_the_estimate_and_narrows_with_n(noisy):
    wide, narrow = (noisy(0.5, n=n).interval() for n in (50, 2000))
    for interval in (wide, narrow):
        assert interval.low < interval.estimate < interval.high
    assert narrow.high - narrow.low < (wide.high - wide.low) / 3


def test_difference_is_paired_by_sentence_pair(noisy):
    better, worse = noisy(0.3), noisy(0.6)
    interval = similarity_difference([better], [worse])
    expected = better.correlation() - worse.correlation()
    assert interval.estimate == pytest.approx(expected) and interval.excludes_zero
    same = similarity_difference([better, noisy(0.3, seed=1)], [better, noisy(0.3, seed=1)])
    assert (same.low, same.estimate, same.high) == pytest.approx((0, 0, 0), abs=1e-12)
    with pytest.raises(DataError, match="not of the same pairs"):
        similarity_difference([better], [noisy(0.3, n=50)])
    with pytest.raises(DataError, match="one side"):
        similarity_difference([better], [])


def test_records_come_back(noisy):
    result = noisy(0.3)
    record = json.loads(json.dumps(result.to_record(), allow_nan=False))
    again = SimilarityResult.from_record(record)
    np.testing.assert_allclose(again.cosine, result.cosine, atol=2e-5)
    np.testing.assert_allclose(again.gold, result.gold, atol=5e-5)
    assert again.correlation() == pytest.approx(result.correlation(), abs=1e-4)
    assert record["spearman"]["interval"]["n_items"] == 400
    with pytest.raises(DataError, match="not a similarity result"):
        SimilarityResult.from_record({"name": "STS-B"})
    with pytest.raises(DataError, match="numbers of pairs differ"):
        SimilarityResult.from_record(record | {"sizes": {"one": 3}})


def test_cosines_that_do_not_vary_have_no_correlation():
    still = SimilarityResult("STS-B", np.ones(5), np.arange(5.0), {"test": 5}, 5)
    record = still.to_record()
    assert record["spearman"]["all"] is None and record["spearman"]["interval"] is None
    with pytest.raises(DataError, match="do not vary"):
        still.interval()
