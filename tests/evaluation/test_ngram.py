"""The trigram model against probabilities worked by hand."""

from __future__ import annotations

import math

import pytest

from cae_lib.evaluation.ngram import END, START, CaptionModel, words_of


@pytest.fixture
def model():
    return CaptionModel(["a b", "a c"])


def test_words_are_folded_and_marks_stand_alone():
    assert words_of("A dog's bed, ON it.") == ["a", "dog's", "bed", ",", "on", "it", "."]


def test_unigrams_by_hand(model):
    # a 2, b 1, c 1, end 2: N = 6 of T = 4 kinds, so each of 4 + 1 shares gets 4/5 more, of 10
    assert model.vocabulary == 4
    found = {word: model.probability(word) for word in ("a", "b", "c", END, "zebra")}
    assert found == pytest.approx({"a": 0.28, "b": 0.18, "c": 0.18, END: 0.28, "zebra": 0.08})
    assert sum(found.values()) == pytest.approx(1)


def test_a_text_by_hand(model):
    # p(a | s s) = (2 + .76) / 3, with p(a | s) = (2 + .28) / 3
    # p(b | s a) = (1 + 2 * .34) / 4, with p(b | a) = (1 + 2 * .18) / 4
    # p(end | a b) = (1 + .64) / 2, with p(end | b) = (1 + .28) / 2
    assert model.probability("a", (START, START)) == pytest.approx(0.92)
    assert model.probability("b", (START, "a")) == pytest.approx(0.42)
    assert model.probability(END, ("a", "b")) == pytest.approx(0.82)
    total = math.log(0.92 * 0.42 * 0.82)
    assert model.log_likelihood("A b") == pytest.approx(total)
    assert model.log_likelihood("A b", per_word=True) == pytest.approx(total / 3)


def test_every_context_is_a_distribution(model):
    for context in ((), ("a",), (START, "a"), ("b", "zebra"), ("zebra", "a")):
        shares = [model.probability(word, context) for word in ("a", "b", "c", END, "zebra")]
        assert sum(shares) == pytest.approx(1), context


def test_an_unseen_context_falls_back_to_the_shorter_one(model):
    assert model.probability("b", ("zebra", "a")) == model.probability("b", ("a",))
    assert model.log_likelihood("zebra zebra") > -math.inf
