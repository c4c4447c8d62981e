from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cae_lib.data.benchmarks.base import Choice, ImageRef
from cae_lib.errors import DataError
from cae_lib.evaluation.bits import pack_bits, pack_numbers, unpack_bits, unpack_numbers
from cae_lib.evaluation.choice import evaluate
from cae_lib.evaluation.results import ChoiceResult, item_key, picture_numbers


@pytest.fixture
def result(hand_encoder, choice, benchmark_of):
    encoder = hand_encoder({"x": [1.0, 0.0]}, {"near": [0.9, 0.1], "far": [0.1, 0.9]})
    truths = [0, 1, 0, 0, 1, 0, 0, 0, 0, 1]
    items = [
        choice(["x"], ["near", "far"], truth=truth, group="ba"[n % 2], name=str(n))
        for n, truth in enumerate(truths)
    ]
    benchmark = benchmark_of(
        *items, headline="macro", rule="mean over groups", counts={"identical": 2}
    )
    return evaluate(benchmark, encoder)


def test_record_is_plain_json_and_comes_back_the_same(result):
    record = json.loads(json.dumps(result.to_record()))
    again = ChoiceResult.from_record(record)
    assert again.to_record() == result.to_record()
    np.testing.assert_array_equal(again.correct, result.correct)
    np.testing.assert_array_equal(again.pictures, result.pictures)
    assert (again.micro, again.macro, again.value) == (result.micro, result.macro, result.value)
    assert {k: v.tolist() for k, v in again.by_group().items()} == {
        "a": [False, True, True, True, False],
        "b": [True, True, False, True, True],
    }


def test_record_holds_what_a_table_prints(result):
    record = result.to_record()
    assert record["groups"] == {"a": {"n": 5, "accuracy": 0.6}, "b": {"n": 5, "accuracy": 0.8}}
    assert (record["n_used"], record["n_expected"]) == (10, 9)
    assert record["micro"] == pytest.approx(0.7)
    assert record["headline"] == "macro" and record["chance"] == 0.5
    assert record["correct"] == "76c0" and record["counts"] == {"identical": 2}


def test_broken_records_are_refused(result):
    record = result.to_record()
    for change in ({"correct": "ff"}, {"correct": "zz00"}, {"group_order": ["a"]},
                   {"pictures": "AAAA"}, {"pictures": pack_numbers(np.arange(9))}):  # fmt: skip
        with pytest.raises(DataError, match="Compute it anew"):
            ChoiceResult.from_record({**record, **change})
    for absent in ("groups", "pictures"):
        with pytest.raises(DataError, match="family/part"):
            ChoiceResult.from_record({k: v for k, v in record.items() if k != absent})


def test_strata_weigh_up_to_the_headline(result):
    parts, weights, pictures = result.strata()
    assert sum(w * p.mean() for w, p in zip(weights, parts, strict=True)) == result.value
    assert [part.tolist() for part in pictures] == [[0] * 5] * 2


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 1000])
def test_bits_round_trip(n):
    bits = np.random.default_rng(n).random(n) < 0.5
    np.testing.assert_array_equal(unpack_bits(pack_bits(bits), n), bits)
    assert len(pack_bits(bits)) == 2 * ((n + 7) // 8)


def test_numbers_of_pictures_round_trip_and_are_short():
    numbers = np.repeat(np.arange(1000), 5)
    for found in (numbers, numbers[::-1] + 7, numbers[:0]):
        np.testing.assert_array_equal(unpack_numbers(pack_numbers(found), len(found)), found)
    assert len(pack_numbers(numbers)) < 200


def test_a_picture_is_a_file_whatever_is_cut_out_of_it(choice):
    cut = Choice((ImageRef(Path("a/x"), (0, 0, 5, 5)),), ("t", "u"), 0, "g", "0")
    items = [cut, choice(["a/y", "a/x"], ["t"]), choice(["b/../a/x"], ["t", "u"])]
    known = {"b/x": 0, "a/x": 1}
    assert picture_numbers(items, known).tolist() == [1, 2, 1]
    assert picture_numbers([choice(["a/y"], ["t", "u"])], known).tolist() == [2]


def test_item_key_tells_items_apart(choice):
    one, two = choice(["x"], ["a", "b"]), choice(["x"], ["a", "c"])
    assert item_key([one, two]) != item_key([two, one])
    assert item_key([one]) == item_key([choice(["elsewhere/x"], ["a", "b"])])
