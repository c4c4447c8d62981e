"""Measurements of roles, swaps and stability, on cases worked out by hand."""

import pandas as pd
import pytest

from cae_bench.benchmarks.base import ITEM_KEY
from cae_lib.words.roles import OBJECT, RELATION, Span
from data.recipes import measure_stability
from data.recipes import measure_swaps as measuring
from data.recipes.measure_capitals import (
    FORMS,
    TREATMENTS,
    agreement,
    labelled_captions,
    word_roles,
)
from data.recipes.synthetic_scenes.grammar import Mention
from data.recipes.synthetic_scenes.scenes import Content, Thing, arrange


def test_agreement_of_roles_by_hand() -> None:
    spans = [Span(2, 9, OBJECT), Span(8, 12, RELATION)]  # the first that reaches into a word
    assert word_roles("a red-hot dog on", spans) == ["other", "object", "relation", "other"]
    truth = [["object", "relation", "object"], ["other", "object"]]
    roles = [["object", "object", "attribute"], ["other", "object"]]
    shares = agreement(truth, roles)
    assert shares["object precision"] == shares["object recall"] == pytest.approx(2 / 3)
    assert shares["object F1"] == pytest.approx(2 / 3)
    assert shares["relation F1"] == shares["attribute F1"] == 0
    assert shares["mean F1"] == pytest.approx(2 / 9) and shares["captions right"] == 0.5


def test_treatments_of_capitals_by_hand() -> None:
    title, sentence = "A Man And I On A Nintendo Wii", "A boy and I in a Hawaiian shirt"
    lower = ["a man and i on a nintendo wii", "a boy and i in a hawaiian shirt"]
    for treatment, texts in {
        "as written": [title, sentence],
        "lower": lower,
        "lower after the first": [
            "A man and I on a nintendo wii",
            "A boy and I in a hawaiian shirt",
        ],
        "truecase": [lower[0], sentence],
    }.items():
        assert [TREATMENTS[treatment](text) for text in (title, sentence)] == texts
    captions, roles = labelled_captions()
    for rewrite in (*FORMS.values(), *TREATMENTS.values()):
        n_words = [len(rewrite(caption).split(" ")) for caption in captions]
        assert n_words == list(map(len, roles)), "rewritten captions keep their words"


def test_stability_compares_answers_item_by_item_whatever_their_order(monkeypatch):
    items = pd.DataFrame({name: ["a", "b", "c", "d"] for name in ITEM_KEY})
    first = items.assign(correct=[True, True, False, False])
    second = items.assign(correct=[True, False, False, False]).iloc[::-1]
    tables = {"all instructions": first, "AVX2": second, "bfloat16": first}
    monkeypatch.setattr(
        measure_stability,
        "train_all",
        lambda training, home: dict.fromkeys(measure_stability.RUNS, tables[training]),
    )
    weights = items.assign(score="mean", weight=0.25)
    monkeypatch.setattr(measure_stability, "score_weights", lambda *_: weights)
    monkeypatch.setattr(measure_stability.results, "load", lambda *_: items)
    table = measure_stability.compare().set_index(["model", "training"])
    assert list(table.index.unique("model")) == list(measure_stability.RUNS)
    rows = table.loc["CLIP-FT"]
    assert rows["n"].tolist() == [4, 4, 4]
    assert rows["changed"].to_dict() == {"all instructions": 0, "AVX2": 0.25, "bfloat16": 0}
    assert rows["accuracy"].tolist() == pytest.approx([0.5, 0.25, 0.5])


@pytest.mark.parametrize(
    ("swap", "label"),
    [
        ("a blue house chasing a red dog", "absurd"),
        ("a red cat chasing a blue dog", "false"),
        ("a blue dog chasing a red cat", "false"),
        ("a blue cat and a red dog", "not false"),
        ("a blue cat near a red dog", "not false"),
        ("a red dog chasing a blue cat", "not false"),
        ("a chasing red a blue dog cat", "broken"),
    ],
)
def test_swap_is_judged_by_its_scene(swap: str, label: str) -> None:
    second = Thing("house" if "house" in swap else "cat", "blue", None, None)
    scene = arrange(Content((Thing("dog", "red", None, None), second), "chasing"), 0)
    assert measuring.judge_scene(scene, swap) == label


def test_statements_and_swaps_of_paired_photographs_are_read() -> None:
    statement = measuring.read_statement("there is a small red dog is left of an apple and a cat")
    mentions = (
        Mention("dog", ("small", "red"), "a"),
        Mention("apple", (), "an"),
        Mention("cat", (), "a"),
    )
    assert (statement.mentions, statement.relation) == (mentions, "left of")
    for text in ("a dog left a of cat", "a dog to the cat of a left", "dog left of a cat"):
        assert measuring.read_statement(text) is None
    caption = "a brown dog to the left of a young boy"
    for swap, label in (
        ("a young boy to the left of a brown dog", "false"),
        ("a brown boy to the left of a young dog", "false"),
        ("a young dog to the left of a brown boy", "not false"),  # a young dog may be brown
        ("a brown left to the dog of a young boy", "broken"),
    ):
        assert measuring.judge_pair(caption, swap) == label
