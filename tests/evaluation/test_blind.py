"""Choosers without a picture, on items whose outcome is counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cae_lib.data.benchmarks.base import Benchmark
from cae_lib.evaluation import blind_record as recording
from cae_lib.evaluation.blind import (
    average_picture,
    average_picture_chooser,
    guesses,
    length_choosers,
    likelihood_choosers,
    measure_blind,
    shares,
)
from cae_lib.evaluation.results import item_key
from cae_lib.evaluation.weights import Weights


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


def test_expected_accuracy_by_length(choice, benchmark_of):
    benchmark = benchmark_of(
        choice(["p"], ["one two", "one two three"], group="x"),  # shorter is right
        choice(["p"], ["one two", "three four"], group="w"),  # a tie of two
        choice(["p"], ["a b c", "a", "b c d", "e f g"], group="x"),  # longer: a tie of three
    )
    found = measure_blind([benchmark], length_choosers())["family/part"]
    assert found["groups"] == [["w", 1], ["x", 2]]
    assert (found["n_used"], found["n_expected"]) == (3, 9)
    assert found["chance"] == pytest.approx((1 / 2 + 1 / 2 + 1 / 4) / 3)
    by_chooser = {name: shares(marks, 3).tolist() for name, marks in found["choosers"].items()}
    assert by_chooser["shorter"] == pytest.approx([1 / 2, 1, 0])
    assert by_chooser["longer"] == pytest.approx([1 / 2, 0, 1 / 3])
    ordered = [benchmark.items[row] for row in (1, 0, 2)]
    assert found["items"] == item_key(ordered)


def test_a_choice_of_pictures_has_no_blind_answer(choice, benchmark_of):
    pictures = benchmark_of(choice(["p", "q"], ["a"]))
    image = benchmark_of(choice(["p", "q"], ["a", "b"]), task="image")
    empty = Benchmark("family", "empty", (), 5)
    for part in (pictures, image, empty):
        found = measure_blind([part], length_choosers())[part.key]
        assert found["choosers"] == {}
    assert found["chance"] is None and found["n_expected"] == 5


def test_likelihood_of_the_training_captions_decides(choice, benchmark_of):
    item = choice(["p"], ["a dog on a mat", "a mat on a dog"])
    longer = choice(["p"], ["a dog on a mat on a mat", "mat"])
    choosers = likelihood_choosers(["a dog on a mat", "the dog on a mat"])
    found = measure_blind([benchmark_of(item, longer)], choosers)["family/part"]["choosers"]
    assert shares(found["likelihood"], 2).tolist() == [1, 0]
    assert shares(found["likelihood_per_word"], 2).tolist() == [1, 1]


def test_the_average_picture_stands_for_every_picture(choice, benchmark_of, hand_encoder):
    picture = average_picture(np.array([[1, 0], [0, 1], [1, 0]], dtype=np.float32))
    assert picture == pytest.approx(np.array([2, 1]) / 5**0.5)
    encoder = hand_encoder({}, {"right": [0.8, 0.6], "left": [0.6, 0.8], "up": [0.0, 1.0]})
    chooser = average_picture_chooser(encoder.texts, picture)
    items = choice(["p"], ["left", "up"]), choice(["q"], ["left", "right"])
    found = measure_blind([benchmark_of(*items)], {"model": chooser})["family/part"]
    assert shares(found["choosers"]["model"], 2).tolist() == [1, 0]


def test_the_record_counts_its_captions_and_names_what_is_left_out(
    home, smoke_world, monkeypatch, capsys
):
    (home / "data").mkdir()
    (home / "data" / "raw").symlink_to(smoke_world.parent)
    random = Weights(None, "clip-mini", "quickgelu")
    known = recording.weights_of
    monkeypatch.setattr(
        recording, "weights_of", lambda *run: random if run[0] == "base" else known(*run)
    )
    found = recording.blind_record("smoke")
    assert "Left out of `blind`: clip-ft/0 is not there" in capsys.readouterr().out
    assert found["choosers"] == [
        "shorter", "longer", "likelihood", "likelihood_per_word", "average_picture/base",
    ]  # fmt: skip
    assert found["n_captions"] == found["n_captions_expected"] > 0
    assert found["subsets"]["svo_probes/all"]["choosers"] == {}
    text = found["subsets"]["winoground/text"]
    assert set(text["choosers"]) == set(found["choosers"])
    assert shares(text["choosers"]["likelihood"], text["n_used"]).max() <= 1 / 4
    monkeypatch.setattr(recording, "_measure", None)
    assert recording.blind_record("smoke") == found
