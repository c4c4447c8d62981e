"""Answers to choices, by hand."""

from pathlib import Path

import numpy as np
import pytest

from cae_bench.answers import (
    answer_benchmarks,
    item_frame,
    scorable_benchmarks,
    svo_match_benchmark,
    weighted_items,
)
from cae_bench.benchmarks.base import Average, Benchmark, ImageRef, Item
from cae_lib.errors import DataError

IMAGES = {"x": [1.0, 0.0], "y": [0.0, 1.0], "z": [1.0, 0.0]}
TEXTS = {"like x": [0.8, 0.6], "like y": [0.6, 0.8], "same": [0.8, 0.6]}
TEXTS |= {"a": [0.9, 0], "b": [0.9, 0], "c": [0.5, 0], "d": [0.1, 0], "e": [0, 0], "f": [0.95, 0]}
CHOICES = [  # pictures, texts, truth; correct, margin, rank
    ("x", ["like y", "like x"], 1, True, 0.2, 1),
    ("x", ["like y", "like x"], 0, False, -0.2, 2),
    ("x", ["like x", "same"], 0, False, 0.0, 2),  # a tie is wrong
    ("x", ["like x", "same"], 1, False, 0.0, 2),
    ("xy", ["like x"], 0, True, 0.2, 1),
    ("xy", ["like x"], 1, False, -0.2, 2),
    ("xz", ["like x"], 0, False, 0.0, 2),
    ("x", "abcdef", 0, False, -0.05, 3),  # f before, b ties
    ("x", "fabcde", 0, True, 0.05, 1),
    ("x", "dabcef", 0, False, -0.85, 5),
]


def test_answers_by_hand_in_the_order_of_the_items(hand_encoder, choice, benchmark_of):
    encoder = hand_encoder(IMAGES, TEXTS)
    items = [choice(*row[:3], group=str(number % 3)) for number, row in enumerate(CHOICES)]
    parts = [
        benchmark_of(*items[:4]),
        benchmark_of(subset="none"),
        benchmark_of(*items[4:], subset="more"),
    ]
    table = answer_benchmarks(parts, encoder)
    names = ["item", "picture", "correct", "margin", "rank"]
    assert table.columns.tolist() == ["family", "subset", "group", *names]
    assert set(table.family) == {"family"}
    assert table.subset.tolist() == ["part"] * 4 + ["more"] * 6
    assert table.group.tolist() == [item.group for item in items]
    assert table.item.tolist() == [*range(4), *range(6)]
    correct, margins, ranks = zip(*(row[3:] for row in CHOICES), strict=True)
    assert table.correct.tolist() == [*correct] and table["rank"].tolist() == [*ranks]
    np.testing.assert_allclose(table.margin, margins, atol=1e-6)
    types = [str(table[name].dtype) for name in ("item", "correct", "margin", "rank")]
    assert types == ["int32", "bool", "float32", "int16"]
    assert answer_benchmarks([], encoder).empty
    with pytest.raises(DataError, match="family/part"):
        answer_benchmarks([parts[0], parts[0]], encoder)


@pytest.mark.parametrize(
    ("scores", "text", "image"),
    [
        ([[0.9, 0.1], [0.2, 0.8]], True, True),
        ([[0.9, 0.1], [0.95, 0.96]], True, False),  # text 0 prefers picture 1
        ([[0.5, 0.6], [0.1, 0.9]], False, True),  # picture 0 prefers text 1
        ([[0.5, 0.5], [0.1, 0.9]], False, True),  # a tie is wrong
        ([[0.5, 0.1], [0.5, 0.9]], True, False),
        ([[0.1, 0.9], [0.8, 0.2]], False, False),
    ],
)
def test_winoground_scores_by_hand(choice, benchmark_of, hand_encoder, scores, text, image):
    """Cosines, rows pictures."""
    encoder = hand_encoder(dict(zip("pq", scores, strict=True)), {"s": [1, 0], "t": [0, 1]})
    item = choice("pq", "st")
    table = answer_benchmarks(
        [benchmark_of(item, task=t, subset=t) for t in ("text", "image", "group")], encoder
    )
    assert table.correct.tolist() == [text, image, text and image]
    assert table.margin[2] == table.margin.min() and not table["rank"].any()


def test_a_picture_is_a_file_in_all_benchmarks_whatever_is_cut_out_of_it(choice, benchmark_of):
    cut = Item("0", (ImageRef(Path("a/x"), (0, 0, 5, 5)),), ("t", "u"))
    items = [cut, choice(["a/y", "a/x"], ["t"]), choice(["b/../a/x"], ["t", "u"])]
    more = benchmark_of(choice(["a/y"], ["t", "u"]), subset="more")
    table = item_frame([benchmark_of(*items), more])
    assert table.picture.tolist() == [0, 1, 0, 1]


@pytest.fixture
def girls(hand_encoder):
    pictures = {"p": [0.9], "q": [0.4], "r": [0.6], "s": [0.1]}
    return hand_encoder(pictures, {"A girl sits": [1.0], "a  girl sits": [1.0], "A boy": [0.5]})


def svo(*rows) -> Benchmark:
    return Benchmark("svo_probes", "all", rows, len(rows) + 1)


def test_distinct_pairs_of_svo_probes_at_the_median_of_all(girls, choice):
    benchmark = svo(
        choice("pq", ["A girl sits"], group="subj"),  # .9 and .4
        choice("pr", ["a  girl sits"], group="verb"),  # the same positive; .6
        choice("ps", ["A boy"], group="verb"),  # .45 and .05
        choice("sp", ["A boy"], group="mixed"),  # left out
    )
    table = answer_benchmarks([benchmark], girls)
    table = table[table.subset == "match"]  # the median of .05, .4, .45, .6, .9 is .45
    assert table.group.tolist() == ["positive", "negative", "negative", "positive", "negative"]
    assert table.margin.tolist() == pytest.approx([0.45, 0.05, -0.15, 0, 0.4])
    assert table.correct.tolist() == [True, True, False, False, True]
    part = svo_match_benchmark(benchmark)
    weights = weighted_items([benchmark]).query("subset == 'match'").weight
    assert (weights * table.correct).sum() == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert (part.key, part.n_used, part.n_expected) == ("svo_probes/match", 5, 7)


def test_groups_of_two_subsets_are_averaged_apart(choice, benchmark_of):
    items = [choice("p", "ab", group=group) for group in "xyy"]
    average = Average(over_groups=True)
    parts = [benchmark_of(*items, subset=name, average=average) for name in ("one", "two")]
    table = weighted_items(parts)
    assert table.groupby(["subset", "group"]).stratum.first().nunique() == 4
    assert table.groupby("stratum").weight.sum().tolist() == [1 / 2] * 4
    assert table.weight.tolist() == [1 / 2, 1 / 4, 1 / 4] * 2


def test_a_pair_of_svo_probes_at_the_threshold_is_no_match(girls, choice):
    rows = svo(*(choice(pair, ["A girl sits"], group="obj") for pair in ("pq", "ps")))
    table = answer_benchmarks([rows], girls).query("subset == 'match'")
    assert table.correct.tolist() == [True, True, True]  # of .9, .4, .1; .4 is none
    assert table.margin.tolist() == pytest.approx([0.5, 0, 0.3])
    twice = svo(*(choice(pair, ["A girl sits"], group="obj") for pair in ("pq", "qr")))
    table = answer_benchmarks([twice], girls).query("subset == 'match'")
    assert table.margin.tolist() == pytest.approx([0.3, 0.2, -0.2, 0.0])  # of .4 (once), .6, .9
    none = svo(choice("pq", ["A boy"], group="mixed"))
    assert [part.subset for part in scorable_benchmarks([none])] == ["all"]


def test_a_task_of_three_texts_by_hand(hand_encoder, choice, benchmark_of):
    """The image lies at 0 degrees; cosines of the angles of two texts are compared."""
    for task, degrees, near, far in (
        ("itt", (10, 20, 30), 20, 30),
        ("itt", (10, 40, 30), 40, 30),
        ("itt", (40, 10, 30), 40, 30),
        ("ordered", (10, 20, 30), 10, 20),
        ("ordered", (20, 10, 30), 20, 10),
        ("ordered", (10, 30, 20), 30, 20),
        ("tot", (80, 85, 60), 5, 20),
        ("tot", (80, 60, 65), 20, 5),
    ):
        angles = np.radians([*degrees, 50, 20, 70])  # the others are of a second item
        vectors = zip(np.cos(angles), np.sin(angles), strict=True)
        encoder = hand_encoder({"p": [1, 0]}, dict(zip("abcdef", vectors, strict=True)))
        items = choice("p", "abc"), choice("p", "def")
        frame = answer_benchmarks([benchmark_of(*items, task=task)], encoder)
        expected = np.cos(np.radians(near)) - np.cos(np.radians(far))
        assert frame.margin[0] == pytest.approx(expected, abs=1e-6), (task, degrees)
        assert frame.correct[0] == (near < far)
