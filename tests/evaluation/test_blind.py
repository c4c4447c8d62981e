"""Choosers without a picture, on items whose outcome is counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cae_lib.data.benchmarks.base import Benchmark
from cae_lib.data.captions import Pairs
from cae_lib.evaluation.blind import (
    average_picture,
    average_picture_answers,
    blind_answers,
    guesses,
    length_choosers,
    likelihood_choosers,
)


def test_ties_are_guessed_among_the_best(choice):
    numbers = {"a": 2.0, "b": 1.0, "c": 2.0 + 1e-12, "d": 2.0}
    assert guesses(choice(["p"], ["a", "b"]), "choice", numbers) == 1
    assert guesses(choice(["p"], ["b", "a"]), "choice", numbers) == 0
    assert guesses(choice(["p"], ["b", "a", "c", "d"], truth=2), "choice", numbers) == 3
    assert guesses(choice(["p"], ["a", "a", "b"]), "choice", numbers) == 2


def test_one_caption_for_two_pictures_is_never_right_twice(choice):
    numbers = {"a": 2.0, "b": 1.0, "c": 2.0}
    for task, by_guessing in (("text", 4), ("group", 6)):
        assert guesses(choice(["p", "q"], ["a", "b"]), task, numbers) == 0
        assert guesses(choice(["p", "q"], ["b", "a"]), task, numbers) == 0
        assert guesses(choice(["p", "q"], ["a", "c"]), task, numbers) == by_guessing


def shares(benchmarks, choosers):
    found = blind_answers(benchmarks, choosers)
    assert found.columns.tolist() == ["chooser", "family", "subset", "item", "picture", "share"]
    return {name: part.share.tolist() for name, part in found.groupby("chooser")}


def test_expected_accuracy_by_length(choice, benchmark_of):
    benchmark = benchmark_of(
        choice(["p"], ["one two", "one two three"], group="x"),  # shorter is right
        choice(["p"], ["one two", "three four"], group="w"),  # a tie of two
        choice(["p"], ["a b c", "a", "b c d", "e f g"], group="x"),  # longer: a tie of three
    )
    found = shares([benchmark], length_choosers())
    assert found["shorter"] == pytest.approx([1, 1 / 2, 0])
    assert found["longer"] == pytest.approx([0, 1 / 2, 1 / 3])


def test_a_choice_of_pictures_has_no_blind_answer(choice, benchmark_of):
    pictures = benchmark_of(choice(["p", "q"], ["a"]))
    image = benchmark_of(choice(["p", "q"], ["a", "b"]), task="image")
    two = choice(["r"], ["a", "b c"]), choice(["q"], ["a", "b"])
    texts = Benchmark("family", "texts", two, 2)
    empty = Benchmark("family", "empty", (), 5)
    found = blind_answers([pictures, image, empty, texts], length_choosers())
    assert set(found.subset) == {"texts"} and found.item.tolist() == [0, 1] * 2
    assert found.picture.tolist() == [1, 2] * 2  # numbers are those of all benchmarks


def test_likelihood_of_the_training_captions_decides(choice, benchmark_of):
    item = choice(["p"], ["a dog on a mat", "a mat on a dog"])
    longer = choice(["p"], ["a dog on a mat on a mat", "mat"])
    choosers = likelihood_choosers(["a dog on a mat", "the dog on a mat"])
    found = shares([benchmark_of(item, longer)], choosers)
    assert found == {"likelihood": [1, 0], "likelihood_per_word": [1, 1]}


def test_the_average_picture_stands_for_every_picture(choice, benchmark_of, hand_encoder):
    picture = average_picture(np.array([[1, 0], [0, 1], [1, 0]], dtype=np.float32))
    assert picture == pytest.approx(np.array([2, 1]) / 5**0.5)
    encoder = hand_encoder(
        {"a": [1, 0], "b": [0, 1], "c": [1, 0]},
        {"right": [0.8, 0.6], "left": [0.6, 0.8], "up": [0.0, 1.0]},
    )
    pairs = Pairs([Path(name) for name in "abc"], [], torch.tensor([]), "toy", 0, 0)
    items = choice(["p"], ["left", "up"]), choice(["q"], ["left", "right"])
    found = average_picture_answers(encoder, pairs, [benchmark_of(*items)])
    assert set(found.chooser) == {"average picture"} and found.share.tolist() == [1, 0]
