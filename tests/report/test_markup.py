from __future__ import annotations

import pytest

from cae_lib.evaluation.statistics import Interval
from cae_lib.report.markup import (
    Table,
    Text,
    count,
    emphasised,
    interval,
    listing,
    number,
    percent,
    show,
    unbroken,
)

MINUS, SPACE = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("value", "digits", "sign", "text"),
    [(0.1234, 3, False, "0.123"), (-0.0004, 3, False, "0.000"), (-1.5, 1, False, f"{MINUS}1.5"),
     (2.0, 1, True, "+2.0"), (-0.04, 1, True, "0.0"), (None, 1, False, "–")],
)  # fmt: skip
def test_numbers(value, digits, sign, text):
    assert number(value, digits, sign) == text


def test_intervals_stay_in_one_piece():
    found = Interval(0.123, -0.01, 0.25, 0.95, 10, 3)
    assert interval(found, 2) == f"0.12 [{MINUS}0.01,{SPACE}0.25]"
    assert percent(found, sign=True, lines=True) == f"+12.3<br>[{MINUS}1.0,{SPACE}+25.0]"
    assert interval(None) == "–"
    assert emphasised("1<br>[2]", True) == "**1**<br>**[2]**" and emphasised("1", False) == "1"


def test_words():
    assert listing([]) == "" and listing(["a"]) == "a" and listing(["a", "b", "c"]) == "a, b and c"
    assert count(1, "family", "families") == "1 family" and count(2, "seed") == "2 seeds"
    assert unbroken("95 % of it") == f"95{SPACE}% of it"


def test_a_table_is_a_numbered_directive():
    table = Table("tab-x", "Shares, n = 3.", ["a", "b"], [["x | y", "1"]], notes=["A note."])
    assert table._repr_markdown_().splitlines() == [
        ":::{table} Shares, n = 3.", ":name: tab-x", "", "| a | b |", "| :-- | --: |",
        "| x \\| y | 1 |", ":::", "", "A note.",
    ]  # fmt: skip
    folded = Table("tab-x", "C.", ["a"], [["1"]], collapsed="More")._repr_markdown_()
    assert folded.startswith("::::{dropdown} More\n:::{table} C.") and folded.endswith(":::\n::::")


def test_plain_text_has_no_tags():
    assert repr(Text("**V** <span class='x'>yes</span>")) == "**V** yes"
    both = show(Text("one"), Table("t", "C.", ["a"], [["1<br>2"]]))
    assert both._repr_markdown_().startswith("one\n\n:::{table} C.")
