"""Swaps are judged by what their captions say: cases worked by hand."""

import pytest

from data.recipes import measure_swaps as measuring
from data.recipes.synthetic_scenes.grammar import Mention
from data.recipes.synthetic_scenes.scenes import Content, Thing, arrange


def test_a_caption_of_the_synthetic_scenes_is_read() -> None:
    statement = measuring.read_statement("there is a small red dog is left of an apple and a cat")
    assert statement.mentions == (
        Mention("dog", ("small", "red"), "a"),
        Mention("apple", (), "an"),
        Mention("cat", (), "a"),
    )
    assert statement.relation == "left of"
    for text in ("a dog left a of cat", "a dog to the cat of a left", "dog left of a cat"):
        assert measuring.read_statement(text) is None


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
def test_a_swap_is_held_against_its_scene(swap: str, label: str) -> None:
    things = Thing("dog", "red", None, None), Thing("cat", "blue", None, None)
    if "house" in swap:
        things = things[0], Thing("house", "blue", None, None)
    scene = arrange(Content(things, "chasing"), 0)
    assert measuring.judge_scene(scene, swap) == label


@pytest.mark.parametrize(
    ("swap", "label"),
    [
        ("a young boy to the left of a brown dog", "false"),
        ("a brown boy to the left of a young dog", "false"),
        ("a young dog to the left of a brown boy", "not false"),  # a young dog may be brown
        ("a brown left to the dog of a young boy", "broken"),
    ],
)
def test_a_swap_of_paired_photographs_is_judged_by_its_nouns(swap: str, label: str) -> None:
    assert measuring.judge_pair("a brown dog to the left of a young boy", swap) == label
