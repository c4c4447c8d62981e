from __future__ import annotations

import numpy as np
import pytest

from cae_lib.data.benchmarks.base import Benchmark
from cae_lib.errors import ConfigError
from cae_lib.evaluation import choice as module
from cae_lib.evaluation.bits import unpack_numbers
from cae_lib.evaluation.blind import length_choosers, measure_blind
from cae_lib.evaluation.choice import evaluate, evaluate_all, is_right, item_scores, pair_scores

IMAGES = {"x": [1.0, 0.0], "y": [0.0, 1.0]}
TEXTS = {"like x": [0.8, 0.6], "like y": [0.6, 0.8], "same": [0.8, 0.6], "far": [-1.0, 0.0]}


@pytest.fixture
def encoder(hand_encoder):
    return hand_encoder(IMAGES, TEXTS)


def test_strict_rule_and_both_averages_by_hand(encoder, choice, benchmark_of):
    benchmark = benchmark_of(
        choice(["x"], ["like y", "like x"], truth=1, group="b", name="0"),  # right
        choice(["x"], ["like y", "like x"], truth=0, group="a", name="1"),  # wrong
        choice(["y"], ["like y", "far"], truth=0, group="b", name="2"),  # right
        choice(["y"], ["far", "like x"], truth=1, group="c", name="3"),  # right
        macro_groups=("a", "b"),
        headline="macro",
    )
    result = evaluate(benchmark, encoder)
    assert result.correct.tolist() == [False, True, True, True]  # groups a, b, b, c
    assert dict(result.sizes) == {"a": 1, "b": 2, "c": 1}
    assert result.micro == 0.75
    assert result.macro == result.value == 0.5
    assert result.chance == 0.5
    assert (result.n_used, result.n_expected) == (4, 9)
    assert result.metrics == {}  # two options have no rank to speak of


def test_sets_of_items_that_are_right_together_name_them_in_their_own_order(
    encoder, choice, benchmark_of
):
    benchmark = benchmark_of(
        choice(["x"], ["like x", "far"], group="c"),  # right
        choice(["x"], ["like x", "far"], group="b"),  # right
        choice(["x"], ["far", "like x"], group="a"),  # wrong, and first by group
        sets={"pairs": ((0, 1), (1, 2)), "last": ((2,),), "none": ()},
    )
    assert evaluate(benchmark, encoder).metrics == {"pairs": 0.5, "last": 0.0}


@pytest.mark.parametrize("truth, by_argmax", [(0, True), (1, False)])
def test_a_tie_is_wrong_unless_argmax_meets_the_truth_first(
    encoder, choice, benchmark_of, truth, by_argmax
):
    benchmark = benchmark_of(choice(["x"], ["like x", "same"], truth=truth))
    assert not evaluate(benchmark, encoder).correct[0]
    assert evaluate(benchmark, encoder, "argmax").correct[0] == by_argmax


def test_one_text_and_two_pictures(encoder, choice, benchmark_of):
    benchmark = benchmark_of(
        choice(["x", "y"], ["like x"], truth=0), choice(["x", "y"], ["like x"], truth=1)
    )
    assert evaluate(benchmark, encoder).correct.tolist() == [True, False]
    assert benchmark.chance == 0.5


def test_the_tie_of_two_pictures(choice, benchmark_of, hand_encoder):
    encoder = hand_encoder({"x": [1, 0], "z": [1, 0]}, {"t": [0.6, 0.8]})
    benchmark = benchmark_of(choice(["x", "z"], ["t"], truth=0))
    assert not evaluate(benchmark, encoder).correct[0]
    assert evaluate(benchmark, encoder, "argmax").correct[0]


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
    expected = {"text": text, "image": image, "group": text and image}
    assert pair_scores(np.array(scores)) == expected


def test_winoground_tasks_read_pictures_by_row(choice, benchmark_of, hand_encoder):
    # cosines, rows pictures: [[.8, .0], [.9, 1.]]: text score only
    encoder = hand_encoder(
        {"p": [0.8, 0.0], "q": [0.9, 1.0]}, {"s": [1.0, 0.0], "t": [0.0, 1.0]}
    )
    item = choice(["p", "q"], ["s", "t"])
    results = {
        task: evaluate(benchmark_of(item, task=task), encoder).correct[0]
        for task in ("text", "image", "group")
    }
    assert results == {"text": True, "image": False, "group": False}
    tasks = ("text", "image", "group")
    assert [benchmark_of(item, task=t).chance for t in tasks] == [0.25, 0.25, 1 / 6]


def test_six_options_rank_with_ties_against_the_truth(choice, benchmark_of, hand_encoder):
    values = {"a": 0.9, "b": 0.9, "c": 0.5, "d": 0.1, "e": 0.0, "f": 0.95}
    encoder = hand_encoder({"p": [1.0]}, {name: [value] for name, value in values.items()})
    benchmark = benchmark_of(
        choice(["p"], "abcdef", truth=0),  # f before, b ties: rank 3
        choice(["p"], "fabcde", truth=0),  # rank 1
        choice(["p"], "dabcef", truth=0),  # rank 5
    )
    result = evaluate(benchmark, encoder)
    assert result.correct.tolist() == [False, True, False]
    assert result.metrics == {
        "mean_rank": 3.0,
        "median_rank": 3.0,
        "recall_at_3": pytest.approx(2 / 3),
        "recall_at_5": 1.0,
    }
    assert benchmark.chance == pytest.approx(1 / 6)


def test_items_of_several_shapes_keep_their_places(encoder, choice, benchmark_of):
    items = [
        choice(["x"], ["like y", "like x"], truth=1),
        choice(["x", "y"], ["like y"], truth=1),
        choice(["x"], ["far", "like x", "like y"], truth=1),
    ]
    shapes = [s.shape for s in item_scores(items, encoder)]
    assert shapes == [(1, 2), (2, 1), (1, 3)]
    assert evaluate(benchmark_of(*items), encoder).correct.all()


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


def test_no_items_and_unknown_rule(encoder, benchmark_of):
    result = evaluate(benchmark_of(), encoder)
    assert result.n_used == 0 and np.isnan(result.value)
    assert result.to_record()["micro"] is None
    with pytest.raises(ConfigError, match="rule='max'"):
        evaluate(benchmark_of(), encoder, "max")


def test_evaluate_all_gives_the_same_results(encoder, choice, benchmark_of):
    benchmarks = [
        benchmark_of(choice(["x"], ["like x", "far"])),
        benchmark_of(choice(["y"], ["like x", "like y"])),
    ]
    together = evaluate_all(benchmarks, encoder)
    assert [r.micro for r in together] == [evaluate(b, encoder).micro for b in benchmarks]
    assert [r.micro for r in together] == [1.0, 0.0]


def test_pictures_have_one_number_in_all_benchmarks_in_the_order_of_the_answers(
    encoder, choice, benchmark_of
):
    x, y = (choice([name], ["like x", "far"], group=group) for name, group in ("xb", "ya"))
    together = evaluate_all([benchmark_of(x, y, x), benchmark_of(x)], encoder)
    assert [r.pictures.tolist() for r in together] == [[0, 1, 1], [1]]
    blind = measure_blind([benchmark_of(x, y, x)], length_choosers())["family/part"]
    assert unpack_numbers(blind["pictures"], 3).tolist() == [0, 1, 1]


def test_is_right_needs_every_other_option_below():
    assert is_right(np.array([0.3, 0.2, 0.1]), 0)
    assert not is_right(np.array([0.3, 0.2, 0.3]), 0)
    assert not is_right(np.array([0.3, 0.2, 0.1]), 1)


def test_a_rule_for_each_family_and_strict_where_none_is_named(encoder, choice):
    tie = choice(["x"], ["like x", "like x"])
    order, other = (Benchmark(name, "part", (tie,), 1) for name in ("order", "other"))
    first, second = evaluate_all([order, other], encoder, {"order": "argmax"})
    assert (first.value, first.ties) == (1.0, "argmax")
    assert (second.value, second.ties) == (0.0, "strict")
