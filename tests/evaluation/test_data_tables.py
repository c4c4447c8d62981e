"""What belongs to the data: items and their weights, what captions state, parsed and true roles."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from cae_bench.answers import answer_benchmarks
from cae_bench.benchmarks.base import Average, Benchmark, ImageRef, Item
from cae_lab.data_tables import (
    item_table,
    option_table,
)
from cae_lab.training_set import default_tagger

PICTURES = (ImageRef(Path("a.png")), ImageRef(Path("b.png")))
BLANK = SimpleNamespace(
    graphs=lambda texts: [{"entities": [], "relations": []} for _ in texts],
    tag=lambda texts: [[] for _ in texts],
)


def test_items_have_the_order_of_answers_and_weights_of_the_headline(
    choice, benchmark_of, hand_encoder
):
    rows = [
        ("x", ["one two", "far"], 0, "b"),
        ("x", ["one two", "far"], 1, "a"),
        ("y", ["one two", "a b c", "far"], 1, "b"),
        ("x", ["far", "one two"], 1, "c"),
    ]
    average = Average(over_groups=True, excluded_groups=frozenset("c"))
    macro = benchmark_of(*(choice(*row) for row in rows), average=average)
    others = choice(["y"], ["far", "one two"]), choice(["x"], ["far", "one two"])
    parts = [macro, benchmark_of(*others, subset="micro")]
    texts = {"one two": [0.8, 0.6], "far": [-1.0, 0.0], "a b c": [0.6, 0.8]}
    encoder = hand_encoder({"x": [1.0, 0.0], "y": [0.0, 1.0]}, texts)
    result, answered = item_table(parts, BLANK, False), answer_benchmarks(parts, encoder)
    names = ["family", "subset", "group", "item", "picture"]
    pd.testing.assert_frame_equal(result[names], answered[names])
    assert result.picture.tolist() == [0, 0, 1, 0, 1, 0]
    assert result.weight.tolist() == [1 / 4, 1 / 2, 1 / 4, 0, 1 / 2, 1 / 2]
    assert result.stratum.nunique() == 4
    assert result.chance.tolist() == [1 / 2, 1 / 2, 1 / 3, 1 / 2, 1 / 2, 1 / 2]
    assert answered.correct.tolist() == [True, False, True, True, False, False]
    assert (result.weight * answered.correct)[:4].sum() == 0.5  # a 0, b 1; c is left out
    assert result.words.tolist() == [2, 1, 3, 2, 1, 1] and not result.objects.any()


def test_two_by_two_items_have_chances_and_the_larger_counts(benchmark_of):
    item = Item("0", PICTURES, ("a red cat on a bed", "a small striped red cat"))
    parts = [benchmark_of(item, task=task, subset=task) for task in ("text", "image", "group")]
    result = item_table(parts, BLANK, True)
    assert result.chance.tolist() == [0.25, 0.25, 1 / 6]
    svo = Benchmark("svo_probes", "all", (Item("0", PICTURES, ("a cat",), 0, "subj"),), 1)
    assert item_table([svo], BLANK, False).chance.tolist() == [0.5] * 3  # a match: yes or no
    counts = result[["world_objects", "world_attributes", "world_relations", "words"]]
    assert counts.values.tolist() == [[2, 3, 1, 6]] * 3


def test_bindings_of_both_captions_count_and_those_of_training_are_seen(benchmark_of):
    """A red cat, a cat on a bed; a small dog, a dog under a bed: of these training has two."""
    two = Item("0", PICTURES, ("a red cat on a bed", "a small dog under a bed"))
    one = Item("1", PICTURES[:1], ("a small dog", "a red cat"), 1)
    parts, tagger = (
        [benchmark_of(two, task="group"), benchmark_of(one, subset="one")],
        default_tagger(),
    )
    result = item_table(parts, tagger, True, ["a red cat", "a dog under a bed", "a bed"])
    assert result[["bindings", "seen"]].values.tolist() == [[4, 2], [1, 1]]
    unknown = item_table(parts, tagger, True)
    assert unknown.bindings.tolist() == [4, 1] and not unknown.seen.any()


def test_which_texts_and_pictures_are_true(benchmark_of):
    parts = [
        benchmark_of(Item("x", PICTURES, ("a",), 1), subset="pictures"),
        benchmark_of(Item("y", PICTURES[:1], ("a", "b", "c"), 2), subset="texts"),
        benchmark_of(Item("z", PICTURES, ("a", "b")), subset="both", task="group"),
        benchmark_of(Item("v", PICTURES[:1], ("a", "b", "c")), subset="two", task="itt"),
    ]
    result = option_table(parts, {}, Path(), True).groupby(["subset", "kind"]).true.apply(list)
    assert result.to_dict() == {
        ("pictures", "picture"): [False, True],
        ("pictures", "text"): [True],
        ("texts", "picture"): [True],
        ("texts", "text"): [False, False, True],
        ("both", "picture"): [True, True],
        ("both", "text"): [True, True],
        ("two", "picture"): [True],
        ("two", "text"): [True, False, False],
    }
