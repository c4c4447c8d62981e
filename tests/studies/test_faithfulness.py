"""How faithful scores of words are, and how much they depend on choices left open."""

import itertools

import numpy as np
import pytest

from book.studies.faithfulness import (
    INTEGRATED,
    OTHER_ACTIVATION,
    RANDOM,
    choices,
    coco_word_sample,
    faithfulness_table,
    score_curves,
    sensitivity_table,
    similarity_of,
)
from book.studies.measures import random_ranks
from cae_bench.encoder import Encoder
from cae_lab.profiles import load_profile
from cae_lib.attribution import get_method
from cae_lib.methods import PAPER_METHODS
from cae_lib.models.clip import load_clip
from cae_lib.words.roles import OBJECT

LIMIT = 8


@pytest.fixture(scope="module")
def sample(clip, world_home):
    return coco_word_sample(Encoder(clip), load_profile("smoke"), LIMIT)


@pytest.fixture(scope="module")
def table(clip, world_home):
    return faithfulness_table(Encoder(clip), load_profile("smoke"), LIMIT)


@pytest.fixture(scope="module")
def compared(clip, world_home):
    return sensitivity_table(Encoder(clip), load_profile("smoke"), LIMIT)


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


def test_sensitivity_compares_every_choice_and_each_differs_from_the_default(compared):
    for method, _, parameters in choices(12, "gelu"):
        assert (get_method(method, **parameters) == get_method(method)) == (not parameters)
    assert choices(12, "gelu")[-1][1] == "QuickGELU in place of GELU"
    for method in PAPER_METHODS:
        rows = of(compared, measure="correlation", method=method)
        assert rows.choice.iloc[0] == "default" and rows.value[:LIMIT].tolist() == [1.0] * LIMIT
        of_choices = rows.groupby("choice").value
        assert of_choices.mean().min() < 0.999 and (of_choices.size() == LIMIT).all()


def test_other_activation_reads_the_pictures_too(clip, world_home, compared):
    other = load_clip(clip.name, None, OTHER_ACTIVATION[clip.activation][0])
    other.model.load_state_dict(clip.model.state_dict())
    sample = coco_word_sample(Encoder(other), load_profile("smoke"), LIMIT)
    scores = sample.token_scores(other.model, "gradient")
    stored = values(compared, "object", method="gradient", choice="GELU in place of QuickGELU")
    for row in range(LIMIT):
        objects = sample.roles[row] == OBJECT
        assert stored[row] == pytest.approx(float(scores[row][objects].mean()), rel=1e-4)
