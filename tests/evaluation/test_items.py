"""What belongs to the data: items and their weights, what captions state, how much is used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cae_lib.data.benchmarks.base import Choice, ImageRef
from cae_lib.data.captions import Pairs
from cae_lib.data.training_set import default_tagger
from cae_lib.errors import DataError
from cae_lib.evaluation.choice import answers, keys
from cae_lib.evaluation.items import (
    amount_lines,
    captions,
    graph_counts,
    items,
    stated_counts,
    true_captions,
)
from cae_lib.world.vocabulary import stated

PICTURES = (ImageRef(Path("a.png")), ImageRef(Path("b.png")))


@pytest.fixture
def macro(choice, benchmark_of):
    return benchmark_of(
        choice(["x"], ["one two", "far"], truth=0, group="b"),
        choice(["x"], ["one two", "far"], truth=1, group="a"),
        choice(["y"], ["one two", "a b c", "far"], truth=1, group="b"),
        choice(["x"], ["far", "one two"], truth=1, group="c"),
        headline="macro", macro_groups=("a", "b"),
        sets={"pair": ((0, 2), (1, 3)), "last": ((3,),), "none": ()},
    )


def test_items_have_the_order_of_answers_and_weights_of_the_headline(
    macro, choice, benchmark_of, hand_encoder
):
    micro = benchmark_of(choice(["y"], ["far", "one two"]), choice(["x"], ["far", "one two"]))
    texts = {"one two": [0.8, 0.6], "far": [-1.0, 0.0], "a b c": [0.6, 0.8]}
    encoder = hand_encoder({"x": [1.0, 0.0], "y": [0.0, 1.0]}, texts)
    found, answered = items([macro, micro], None, False), answers([macro, micro], encoder)
    names = ["family", "subset", "group", "item", "picture"]
    pd.testing.assert_frame_equal(found[names], answered[names])
    assert found.picture.tolist() == [0, 0, 1, 0, 1, 0]
    assert found.weight.tolist() == [1 / 4, 1 / 2, 1 / 4, 0, 1 / 2, 1 / 2]
    assert found.stratum.nunique() == 4
    assert found.chance.tolist() == [1 / 2, 1 / 2, 1 / 3, 1 / 2, 1 / 2, 1 / 2]
    assert answered.correct.tolist() == [True, False, True, True, False, False]
    assert (found.weight * answered.correct)[:4].sum() == 0.5  # a 0, b 1; c is left out
    assert found.words.tolist() == [2, 1, 3, 2, 1, 1]
    assert "objects" not in found


def test_sets_of_items_that_are_right_together(macro, benchmark_of):
    found = items([macro], None, False)
    assert found.joint_pair.tolist() == [0, 1, 0, 1] and found.joint_last.tolist() == [-1] * 3 + [0]
    assert found.joint_none.tolist() == [-1] * 4
    twice = benchmark_of(*macro.items, sets={"pair": ((0, 1), (1, 2))})
    with pytest.raises(DataError, match="family/part, pair: an item is in two sets"):
        items([twice], None, False)


def test_chance_of_two_by_two_items(choice, benchmark_of):
    item, tasks = choice(["p", "q"], ["s", "t"]), ("text", "image", "group")
    found = items([benchmark_of(item, task=task) for task in tasks], None, False)
    assert found.chance.tolist() == [0.25, 0.25, 1 / 6]


@pytest.mark.parametrize(
    ("pictures", "texts", "truth", "expected"),
    [
        (1, ("false", "true"), 1, ("true",)),
        (2, ("true",), 1, ("true",)),
        (2, ("first", "second"), 0, ("first", "second")),
    ],
)
def test_true_captions(pictures: int, texts: tuple, truth: int, expected: tuple) -> None:
    assert true_captions(Choice(PICTURES[:pictures], texts, truth, "g", "0")) == expected


def test_counts_of_a_graph() -> None:
    article, color, number = ({"dep": dep} for dep in ("det", "amod", "nummod"))
    graph = {
        "entities": [{"modifiers": [article, color]}, {"modifiers": [number]}],
        "relations": [{"subject": 0, "object": 1, "relation": "chasing"}],
    }
    assert graph_counts(graph) == (2, 2, 1)


def test_captions_by_hand() -> None:
    texts = ["a red cat", "a red cat is chasing a small red dog", "a red cat"]
    found = stated_counts(texts, default_tagger(), world=True)
    assert found.columns.tolist() == [
        "objects", "attributes", "relations", "words",
        "world_objects", "world_attributes", "world_relations",
    ]
    assert found.values.tolist() == [
        [1, 1, 0, 3, 1, 1, 0], [2, 3, 1, 9, 2, 3, 1], [1, 1, 0, 3, 1, 1, 0]
    ]
    pairs = Pairs([Path("a"), Path("b")], texts, torch.tensor([1, 0, 1]), "toy", 3, 3)
    table = captions("coco", pairs, None, world=True)
    assert table.picture.tolist() == [1, 0, 1] and table.caption.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(table.world_attributes, found.world_attributes)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a small striped cat is to the left of a dog", (2, 2, 1)),
        ("a cat on top of a bed near a chair", (3, 0, 2)),
        ("a red ball on the left", (1, 1, 0)),
        ("a cat underneath a cup with a hat at the top", (3, 0, 2)),
    ],
)
def test_the_worlds_own_words(caption: str, expected: tuple) -> None:
    assert stated(caption) == expected


def test_an_item_of_two_captions_has_the_larger_counts(benchmark_of) -> None:
    texts = ("a red cat on a bed", "a small striped red cat")
    part = benchmark_of(Choice(PICTURES, texts, 0, "g", "0"), task="group")
    found = items([part], None, True).iloc[0]
    counts = [found[f"world_{name}"] for name in ("objects", "attributes", "relations")]
    assert (*counts, found.words) == (2, 3, 1, 6)
    assert len(keys([part])) == 1


def test_amounts_as_lines() -> None:
    table = pd.DataFrame(
        [("benchmarks", "aro", "relation", 9, 10), ("benchmarks", "aro", "attribution", 1990, 1990),
         ("retrieval", "coco", "", 5, 7)],
        columns=["suite", "family", "subset", "n_used", "n_expected"],
    )
    assert amount_lines(table) == [
        "benchmarks, aro: 1,999 used of 2,000 expected",
        "  incomplete: aro/relation, 9 used of 10 expected",
        "retrieval, coco: 5 used of 7 expected",
    ]
