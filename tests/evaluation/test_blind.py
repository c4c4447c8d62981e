"""Choosers without a picture on items counted by hand, and the trigram model worked by hand."""

import math

import numpy as np
import pytest

from cae_bench.benchmarks.base import Benchmark
from cae_bench.blind import (
    END,
    START,
    TOKEN_PATTERN,
    TrigramModel,
    blind_answers,
    expected_accuracy,
    text_only_baselines,
)

MODEL = TrigramModel(["a b", "a c"])
NUMBERS = {"a": 2.0, "b": 1.0, "c": 2.0 + 1e-12, "d": 2.0, "e": 3.0}


@pytest.mark.parametrize(
    ("texts", "truth", "task", "among"),
    [
        ("ab", 0, "choice", 1),
        ("ba", 0, "choice", 0),
        ("aab", 0, "choice", 2),
        ("bacd", 2, "choice", 3),  # of three that tie
        ("ab", 0, "text", 0),  # one caption for two pictures is never right twice
        ("ba", 0, "group", 0),
        ("ac", 0, "text", 4),
        ("ac", 0, "group", 6),
        ("cab", 0, "ordered", 0),  # the second has to beat the third, and does not beat the first
        ("cab", 0, "itt", 1),
        ("ebd", 0, "ordered", 0),
        ("eab", 0, "ordered", 1),
    ],
)
def test_ties_are_guessed_among_the_best(choice, texts, truth, task, among):
    pictures = ["p"] if task == "choice" else ["p", "q"]
    expected = 1 / among if among else 0
    assert expected_accuracy(choice(pictures, texts, truth), task, NUMBERS) == expected


def test_expected_accuracy_by_length_and_likelihood(choice, benchmark_of):
    benchmark = benchmark_of(
        choice(["p"], ["one two", "one two three"]),  # shorter is right
        choice(["p"], ["one two", "three four"]),  # a tie of two
        choice(["p"], ["a b c", "a", "b c d", "e f g"]),  # longer: a tie of three
    )
    item = choice(["p"], ["a dog on a mat", "a mat on a dog"])
    longer = choice(["p"], ["a dog on a mat on a mat", "mat"])
    for part, training, expected in (
        (benchmark, ["a"], {"shorter": [1, 1 / 2, 0], "longer": [0, 1 / 2, 1 / 3]}),
        (
            benchmark_of(item, longer),
            ["a dog on a mat", "the dog on a mat"],
            {"likelihood": [1, 0], "likelihood_per_word": [1, 1]},
        ),
    ):
        table = blind_answers([part], text_only_baselines(training))
        assert [*table] == ["chooser", "family", "subset", "item", "picture", "share"]
        for name, shares in expected.items():
            assert table[table.chooser == name].share.tolist() == pytest.approx(shares)


def test_a_choice_of_pictures_has_no_blind_answer(choice, benchmark_of):
    pictures = benchmark_of(choice(["p", "q"], ["a"]))
    image = benchmark_of(choice(["p", "q"], ["a", "b"]), task="image", subset="image")
    two = choice(["r"], ["a", "b c"]), choice(["q"], ["a", "b"])
    parts = [pictures, image, Benchmark("family", "empty", (), 5), Benchmark("family", "t", two, 2)]
    table = blind_answers(parts, {"first": lambda texts: [len(text) for text in texts]})
    assert table.subset.tolist() == ["t"] * 2 and table.item.tolist() == [0, 1]
    assert table.picture.tolist() == [1, 2]  # numbers are those of all benchmarks


def test_shares_of_words_and_a_text_by_hand():
    assert TOKEN_PATTERN.findall("a dog's bed, on it.") == "a dog's bed , on it .".split()
    # a 2, b 1, c 1, end 2: N = 6 of T = 4 kinds, so each of 4 + 1 shares gets 4/5 more, of 10
    table = {word: MODEL.probability(word) for word in ("a", "b", "c", END, "zebra")}
    assert table == pytest.approx({"a": 0.28, "b": 0.18, "c": 0.18, END: 0.28, "zebra": 0.08})
    # p(a | s s) = (2 + .76) / 3, with p(a | s) = (2 + .28) / 3
    # p(b | s a) = (1 + 2 * .34) / 4, with p(b | a) = (1 + 2 * .18) / 4
    # p(end | a b) = (1 + .64) / 2, with p(end | b) = (1 + .28) / 2
    text = ("a", (START, START)), ("b", (START, "a")), (END, ("a", "b"))
    assert [MODEL.probability(*place) for place in text] == pytest.approx([0.92, 0.42, 0.82])
    total = math.log(0.92 * 0.42 * 0.82)
    assert MODEL.log_likelihood("A b") == pytest.approx(total)
    assert MODEL.log_likelihood("A b", per_word=True) == pytest.approx(total / 3)


@pytest.mark.parametrize("context", [(), ("a",), (START, "a"), ("b", "zebra"), ("zebra", "a")])
def test_every_context_is_a_distribution_down_to_unknown_words(context):
    shares = [MODEL.probability(word, context) for word in ("a", "b", "c", END, "zebra")]
    assert sum(shares) == pytest.approx(1) and np.min(shares) > 0
