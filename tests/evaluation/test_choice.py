from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cae_lib.data.benchmarks.base import Benchmark, Choice, ImageRef
from cae_lib.evaluation import choice as module
from cae_lib.evaluation.choice import (
    answers,
    item_scores,
    keys,
    margin_and_rank,
    pair_margins,
    reference_correct,
)

IMAGES = {"x": [1.0, 0.0], "y": [0.0, 1.0]}
TEXTS = {"like x": [0.8, 0.6], "like y": [0.6, 0.8], "same": [0.8, 0.6], "far": [-1.0, 0.0]}


@pytest.fixture
def encoder(hand_encoder):
    return hand_encoder(IMAGES, TEXTS)


def test_answers_by_hand_in_the_order_of_the_items(encoder, choice, benchmark_of):
    benchmark = benchmark_of(
        choice(["x"], ["like y", "like x"], truth=1, group="b", name="0"),  # .8 and .6
        choice(["x"], ["like y", "like x"], truth=0, group="a", name="1"),
        choice(["y"], ["like y", "far"], truth=0, group="b", name="2"),  # .8 and 0
        choice(["y"], ["far", "like x"], truth=1, group="c", name="3"),  # .6 and 0
    )
    found = answers([benchmark], encoder)
    assert found.columns.tolist() == [
        "family", "subset", "group", "item", "picture", "correct", "margin", "rank"
    ]
    assert set(zip(found.family, found.subset, strict=True)) == {("family", "part")}
    assert found.group.tolist() == ["b", "a", "b", "c"]
    assert found.item.tolist() == [0, 1, 2, 3]
    assert found.correct.tolist() == [True, False, True, True]
    assert found.margin.tolist() == pytest.approx([0.2, -0.2, 0.8, 0.6])
    assert found["rank"].tolist() == [1, 2, 1, 1]
    assert [str(found[name].dtype) for name in ("item", "correct", "margin", "rank")] == [
        "int32", "bool", "float32", "int16"
    ]


@pytest.mark.parametrize("truth", [0, 1])
def test_a_tie_is_wrong(encoder, choice, benchmark_of, truth):
    found = answers([benchmark_of(choice(["x"], ["like x", "same"], truth=truth))], encoder).iloc[0]
    assert (found.correct, found.margin, found["rank"]) == (False, 0.0, 2)


@pytest.mark.parametrize("family", ["order", "whatsup", "valse"])
def test_ties_by_the_reference_where_its_true_option_comes_first(choice, hand_encoder, family):
    """A caption and a shuffle that equals it: wrong, and right by the argmax of the reference."""
    encoder = hand_encoder({"p": [1.0]}, {"true": [0.5], "false": [0.1], "best": [0.9]})
    items = (
        choice(["p"], ["true", "true", "false"]),
        choice(["p"], ["best", "true", "false"]),
        choice(["p"], ["false", "true", "best"]),
    )
    found = answers([Benchmark(family, "part", items, 3)], encoder)
    assert found.correct.tolist() == [False, True, False]
    assert reference_correct(found).tolist() == [family != "valse", True, False]
    argmax = [score.argmax() == 0 for score in item_scores(items, encoder)]
    assert family == "valse" or reference_correct(found).tolist() == argmax


def test_one_text_and_two_pictures(choice, benchmark_of, hand_encoder):
    encoder = hand_encoder({"x": [1, 0], "y": [0, 1], "z": [1, 0]}, {"t": [0.8, 0.6]})
    found = answers([benchmark_of(
        choice(["x", "y"], ["t"], truth=0), choice(["x", "y"], ["t"], truth=1),
        choice(["x", "z"], ["t"], truth=0),
    )], encoder)
    assert found.correct.tolist() == [True, False, False]
    assert found["rank"].tolist() == [1, 2, 2]


@pytest.mark.parametrize(
    "scores, text, image",
    [
        ([[0.9, 0.1], [0.2, 0.8]], True, True),
        ([[0.9, 0.1], [0.95, 0.96]], True, False),  # text 0 prefers picture 1
        ([[0.5, 0.6], [0.1, 0.9]], False, True),  # picture 0 prefers text 1
        ([[0.5, 0.5], [0.1, 0.9]], False, True),  # a tie is wrong
        ([[0.5, 0.1], [0.5, 0.9]], True, False),
        ([[0.1, 0.9], [0.8, 0.2]], False, False),
    ],
)
def test_winoground_scores_by_hand(scores, text, image):
    found = {task: margin > 0 for task, margin in pair_margins(np.array(scores)).items()}
    assert found == {"text": text, "image": image, "group": text and image}


def test_winoground_tasks_read_pictures_by_row(choice, benchmark_of, hand_encoder):
    # cosines, rows pictures: [[.8, .0], [.9, 1.]]: text score only
    encoder = hand_encoder(
        {"p": [0.8, 0.0], "q": [0.9, 1.0]}, {"s": [1.0, 0.0], "t": [0.0, 1.0]}
    )
    item = choice(["p", "q"], ["s", "t"])
    found = answers([benchmark_of(item, task=t) for t in ("text", "image", "group")], encoder)
    assert found.correct.tolist() == [True, False, False]
    assert found.margin.tolist() == pytest.approx([0.1, -0.1, -0.1])
    assert found["rank"].tolist() == [0, 0, 0]


def test_six_options_rank_with_ties_against_the_truth(choice, benchmark_of, hand_encoder):
    values = {"a": 0.9, "b": 0.9, "c": 0.5, "d": 0.1, "e": 0.0, "f": 0.95}
    encoder = hand_encoder({"p": [1.0]}, {name: [value] for name, value in values.items()})
    benchmark = benchmark_of(
        choice(["p"], "abcdef", truth=0),  # f before, b ties: rank 3
        choice(["p"], "fabcde", truth=0),  # rank 1
        choice(["p"], "dabcef", truth=0),  # rank 5
    )
    found = answers([benchmark], encoder)
    assert found.correct.tolist() == [False, True, False]
    assert found["rank"].tolist() == [3, 1, 5]


def test_items_of_several_shapes_keep_their_places(encoder, choice, benchmark_of):
    items = [
        choice(["x"], ["like y", "like x"], truth=1),
        choice(["x", "y"], ["like y"], truth=1),
        choice(["x"], ["far", "like x", "like y"], truth=1),
    ]
    shapes = [s.shape for s in item_scores(items, encoder)]
    assert shapes == [(1, 2), (2, 1), (1, 3)]
    assert answers([benchmark_of(*items)], encoder).correct.all()


@pytest.mark.parametrize("at_once", [1, 7, 4096])
def test_scores_equal_the_plain_loop(choice, hand_encoder, at_once, monkeypatch):
    monkeypatch.setattr(module, "ITEMS_AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    images = {str(i): rng.normal(size=16) for i in range(5)}
    texts = {f"t{i}": rng.normal(size=16) for i in range(7)}
    items = [choice([str(i % 5)], [f"t{i % 7}", f"t{(i + 3) % 7}"]) for i in range(40)]
    scores = item_scores(items, hand_encoder(images, texts))
    for item, score in zip(items, scores, strict=True):
        image = images[item.images[0].path.name].astype(np.float32)
        expected = [image @ texts[text].astype(np.float32) for text in item.texts]
        np.testing.assert_allclose(score[0], expected, rtol=1e-5, atol=1e-6)


def test_several_benchmarks_and_none(encoder, choice, benchmark_of):
    parts = [
        benchmark_of(choice(["x"], ["like x", "far"])),
        benchmark_of(),
        benchmark_of(choice(["y"], ["like x", "like y"])),
    ]
    found = answers(parts, encoder)
    assert found.correct.tolist() == [True, False] and found.item.tolist() == [0, 0]
    assert answers([], encoder).empty


def test_a_picture_is_a_file_in_all_benchmarks_whatever_is_cut_out_of_it(choice, benchmark_of):
    cut = Choice((ImageRef(Path("a/x"), (0, 0, 5, 5)),), ("t", "u"), 0, "g", "0")
    items = [cut, choice(["a/y", "a/x"], ["t"]), choice(["b/../a/x"], ["t", "u"])]
    found = keys([benchmark_of(*items), benchmark_of(choice(["a/y"], ["t", "u"]))])
    assert found.picture.tolist() == [0, 1, 0, 1]


def test_margin_and_rank_need_every_other_option_below():
    assert margin_and_rank(np.array([0.3, 0.2, 0.1]), 0) == (pytest.approx(0.1), 1)
    assert margin_and_rank(np.array([0.3, 0.2, 0.3]), 0) == (0, 2)
    assert margin_and_rank(np.array([0.3, 0.2, 0.1]), 1) == (pytest.approx(-0.1), 2)
