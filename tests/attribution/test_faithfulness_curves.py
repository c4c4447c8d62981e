"""Curves by hand on a bag of words, and masked captions against CAE's perturbation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from cae_lib.attribution import get_method
from cae_lib.attribution.faithfulness import (
    area,
    masked_similarity,
    on_grid,
    paired_curves,
    random_ranks,
    ranks,
    removal_curves,
    reversed_ranks,
    turned,
)
from cae_lib.attribution.grouping import word_index
from cae_lib.attribution.word_scores import scores_by_word
from cae_lib.errors import ConfigError

NAN = float("nan")
WEIGHTS = np.array([[4.0, 1.0, 2.0, NAN], [0.5, 3.0, NAN, NAN]])
N_WORDS = np.array([3, 2])


def bag_of_words(captions: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """S = 10 plus the weights of the words that are left."""
    weights = np.nan_to_num(WEIGHTS[captions, : masked.shape[1]])
    return 10 + np.where(masked, 0, weights).sum(axis=1)


def test_places_by_falling_score() -> None:
    scores = np.array([[1.0, 3.0, 3.0, NAN], [5.0, -1.0, 0.0, 7.0]])
    places = ranks(scores)
    assert places.tolist() == [[2, 0, 1, 3], [1, 3, 2, 0]]
    assert reversed_ranks(places, np.array([3, 4])).tolist() == [[0, 2, 1, 3], [2, 0, 1, 3]]


def test_curves_of_a_bag_of_words() -> None:
    (found,) = paired_curves(ranks(WEIGHTS)[None], N_WORDS, bag_of_words)
    deletion = [[17, 13, 11, 10, NAN], [13.5, 10.5, 10, NAN, NAN]]
    insertion = [[10, 14, 16, 17, NAN], [10, 13, 13.5, NAN, NAN]]
    np.testing.assert_array_equal(found.deletion, deletion)
    np.testing.assert_array_equal(found.insertion, insertion)
    np.testing.assert_allclose(area(found.deletion, N_WORDS), [37.5 / 3, 22.25 / 2])
    np.testing.assert_allclose(area(found.insertion, N_WORDS), [43.5 / 3, 24.75 / 2])


def test_true_weights_are_the_most_faithful_scores_there_are() -> None:
    weights = WEIGHTS[:1, :3]
    orders = np.array([[order] for order in itertools.permutations(range(3))])
    n = N_WORDS[:1]
    curves = removal_curves(orders, n, bag_of_words)
    areas = np.array([area(curve, n)[0] for curve in curves])
    best = [i for i, order in enumerate(orders) if order[0].tolist() == ranks(weights)[0].tolist()]
    assert areas.argmin() == best[0]
    assert areas.argmax() == [o[0].tolist() for o in orders].index(
        reversed_ranks(ranks(weights), n)[0].tolist()
    )
    # in expectation a random order falls on a straight line
    assert areas.mean() == pytest.approx((17 + 10) / 2)


def test_insertion_is_deletion_in_the_reverse_order_read_backwards() -> None:
    rng = np.random.default_rng(0)
    table = {}

    def any_model(captions: np.ndarray, masked: np.ndarray) -> np.ndarray:
        return np.array([table.setdefault((c, *row), rng.normal())
                         for c, row in zip(captions, masked.tolist(), strict=True)])

    n_words = np.array([5, 1, 3])
    scores = np.where(np.arange(5) < n_words[:, None], rng.normal(size=(3, 5)), NAN)
    (found,) = paired_curves(ranks(scores)[None], n_words, any_model)
    (reverse,) = paired_curves(ranks(-scores)[None], n_words, any_model)
    np.testing.assert_allclose(area(found.insertion, n_words), area(reverse.deletion, n_words))
    np.testing.assert_array_equal(turned(found.insertion, n_words), reverse.deletion)
    # insertion after k words, from its definition
    for k in range(6):
        kept = ranks(scores)[0] < k
        assert found.insertion[0, k] == table[(0, *(~kept).tolist())]


def test_each_masked_caption_is_asked_for_once() -> None:
    asked = []

    def counting(captions: np.ndarray, masked: np.ndarray) -> np.ndarray:
        asked.extend(zip(captions.tolist(), map(tuple, masked.tolist()), strict=True))
        return bag_of_words(captions, masked)

    removal_curves(np.stack([ranks(WEIGHTS)] * 3), N_WORDS, counting)
    assert len(asked) == len(set(asked)) == 4 + 3


def test_random_orders_are_permutations_and_seeded() -> None:
    places = random_ranks(np.array([4, 2]), 5, seed=3)
    assert sorted(places[0]) == list(range(5)) and sorted(places[1, :2]) == [0, 1]
    assert (places == random_ranks(np.array([4, 2]), 5, seed=3)).all()
    many = random_ranks(np.full(3000, 3), 3)
    assert (many == 0).mean(axis=0) == pytest.approx(np.full(3, 1 / 3), abs=0.03)


def test_curves_on_a_common_grid() -> None:
    curves = np.array([[4.0, 0.0, NAN], [4.0, 2.0, 1.0]])
    grid = np.array([0, 0.25, 0.5, 1])
    found = on_grid(curves, np.array([1, 2]), grid)
    np.testing.assert_allclose(found, [[4, 3, 2, 0], [4, 3, 2, 1]])


def test_one_masked_word_is_the_perturbation(batch) -> None:
    batch = batch.first(3)
    words = word_index(batch.tokens, 49408)
    for mask, parameters in (("mean", {}), ("zero", {"replacement": "zero"}),
                             ("token", {"replacement": "token"})):
        scores = get_method("perturbation", **parameters)(
            batch.model, batch.tokens, batch.image_features
        ).scores
        drops = scores_by_word(scores, words[:, : scores.shape[1]])
        captions, word = np.nonzero(np.isfinite(drops))
        masked = np.eye(drops.shape[1], dtype=bool)
        whole, without = (
            masked_similarity(batch.model, batch.tokens, batch.image_features, words, captions,
                              part, mask)
            for part in (np.zeros_like(masked[word]), masked[word])
        )
        np.testing.assert_allclose(whole - without, drops[captions, word], atol=1e-10)
        assert np.abs(whole - without).min() > 1e-6


def test_many_masked_words_through_open_clip(batch) -> None:
    single = batch.first(3)
    words = word_index(single.tokens, 49408)
    masked = np.random.default_rng(0).random((3, int(words.max()))) < 0.5
    inside = torch.from_numpy(np.pad(masked, ((0, 0), (1, 0)))).gather(1, words)
    table = single.model.token_embedding
    embeddings = torch.where(inside.unsqueeze(-1), table.weight.mean(0), table(single.tokens))
    hook = table.register_forward_hook(lambda m, i, o: embeddings)
    with torch.no_grad():
        expected = single.similarity(single.model.encode_text(single.tokens))
    hook.remove()
    found = masked_similarity(
        single.model, single.tokens, single.image_features, words, np.arange(3), masked
    )
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-10)


def test_unknown_mask_is_refused(batch) -> None:
    words = word_index(batch.tokens, 49408)
    with pytest.raises(ConfigError, match="unknown mask 'noise': expected one of mean, zero"):
        masked_similarity(batch.model, batch.tokens, batch.image_features, words,
                          np.zeros(1, int), np.zeros((1, 75), bool), "noise")
