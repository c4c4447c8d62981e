"""How faithful scores of words are: curves of masked words, by hand and one after the other."""

import itertools

import numpy as np
import pytest

from book.studies.faithfulness import (
    INTEGRATED,
    RANDOM,
    coco_word_sample,
    faithfulness_table,
    score_curves,
    similarity_of,
)
from book.studies.measures import random_ranks
from cae_bench.encoder import Encoder
from cae_lab.profiles import load_profile
from cae_lib.methods import PAPER_METHODS

LIMIT = 8


@pytest.fixture(scope="module")
def sample(clip, world_home):
    return coco_word_sample(Encoder(clip), load_profile("smoke"), LIMIT)


@pytest.fixture(scope="module")
def table(clip, world_home):
    return faithfulness_table(Encoder(clip), load_profile("smoke"), LIMIT)


def of(table, **columns):
    """The rows with these values, in their order."""
    for name, value in columns.items():
        table = table[table[name] == value]
    return table


def values(table, measure, **columns):
    return of(table, measure=measure, **columns).value.to_numpy()


def test_attention_does_not_see_the_projection(table):
    means = of(table, measure="randomisation").groupby(["method", "against"]).value.mean()
    assert means["attention", "projection"] == pytest.approx(1)
    assert max(means["attention", "blocks 4-1"], means["perturbation", "projection"]) < 0.9
    assert values(table, "integration error").max() <= 0.01


def test_curves_mask_one_word_after_the_other(clip, sample, table):
    ends = [values(table, "whole").mean(), values(table, "empty").mean()]
    for method, against in itertools.product(
        (*PAPER_METHODS, INTEGRATED, RANDOM), ("deletion", "insertion")
    ):
        curve = values(table, "curve", method=method, against=against)
        expected = ends if against == "deletion" else ends[::-1]
        assert len(curve) == 11 and curve[[0, -1]] == pytest.approx(expected, abs=1e-5)
    for row, n in enumerate(sample.n_words):
        scores = sample.word_scores(clip.model, "gradient")[row, :n]
        places = (-scores).argsort(kind="stable").argsort()
        masked = places < np.arange(n + 1)[:, None]
        steps = similarity_of(clip.model, sample)(np.full(n + 1, row), masked)
        area = np.mean([(a + b) / 2 for a, b in itertools.pairwise(steps)])
        stored = values(table, "area", method="gradient", against="deletion")[row]
        assert stored == pytest.approx(area, abs=2e-5)


def test_random_curve_is_the_mean_of_two_orders():
    """Of a bag of five words and one of four: S is the sum of the weights that are left."""
    weights, n_words = np.array([[1.0, 2, 4, 8, 16], [1, 2, 4, 8, 0]]), np.array([5, 4])

    def similarity(captions, masked):
        return np.where(masked, 0, weights[captions]).sum(axis=1)

    curves = score_curves(n_words, similarity, {"own": weights})
    orders = [random_ranks(n_words, 5, seed) for seed in (0, 1)]
    assert (orders[0] != orders[1]).any(axis=1).all()
    left = [[(weights * (order >= k)).sum(axis=1) for k in range(6)] for order in orders]
    expected = np.where(np.arange(6) <= n_words[:, None], np.mean(left, axis=0).T, np.nan)
    np.testing.assert_allclose(curves[RANDOM, "deletion"], expected)
    np.testing.assert_array_equal(curves["own", "deletion"][0], [31, 15, 7, 3, 1, 0])
