"""CAE's gain from several bases: knowledge, gain, and the rule of the page."""

from __future__ import annotations

import numpy as np
import pytest

from cae_lib.errors import DataError
from cae_lib.evaluation.results import ChoiceResult
from cae_lib.measurements import run_label
from cae_lib.report import when_it_helps as study
from cae_lib.report import when_it_helps_tables as tables
from cae_lib.report.markup import number
from cae_lib.report.variants import MEAN
from cae_lib.report.when_it_helps_figure import gain_figure
from cae_lib.studies import base_variants

LEVELS = {"object": 0.20, "attribute": 0.10, "relation": 0.10}
KNOWN = {"1": 0.5, "2": 0.6, "4": 0.7}


def save(store, gains: dict[str, float], known: dict[str, float] = KNOWN) -> None:
    """Bases that know so much of relations, CLIP-FT at 0.6, and CAE better by the gains."""
    for variant in base_variants("smoke"):
        share = 0.6 if variant.run == "clip-ft" else 0.6 + gains[variant.group]
        relations = {"*": 0.8, "aro/relation": known[variant.group],
                     "sugarcrepe/replace_rel": known[variant.group]}  # fmt: skip
        label = run_label(variant.run, "smoke", **variant.settings)
        store.benchmarks(label, relations if variant.run == "base" else share)
        store.attribution(label, LEVELS)
    study.starts.cache_clear()


@pytest.fixture(autouse=True)
def _forget():
    yield
    study.starts.cache_clear()


@pytest.mark.parametrize(
    ("gains", "expected", "words"),
    [
        ({"1": 0.3, "2": 0.2, "4": 0.1}, "weaker", "the gain is larger from the weaker base"),
        ({"1": 0.0, "2": 0.2, "4": 0.1}, "stronger", "the gain is larger from the stronger base"),
        ({"1": 0.2, "2": 0.0, "4": 0.2}, "none", "no dependence found"),
    ],
)
def test_the_rule_compares_the_weakest_with_the_strongest(store, gains, expected, words):
    save(store, gains)
    found = study.starts("smoke", 3)
    assert [start.steps for start in found] == [1, 2, 4]
    assert [start.steps for start in study.ends(found)] == [1, 4]
    for measure in study.MEASURES:
        difference = study.gain_difference(found, measure)
        assert difference.estimate == pytest.approx(gains["1"] - gains["4"], abs=0.05)
        assert difference.n_seeds == 2
        assert study.dependence(found, measure) == expected
    text = tables.judge_dependence("smoke", 3).source
    assert text.count(f"**{words}**") == 3 and "not told apart" not in text
    assert words in study.finding("smoke", 3)


def test_tables_and_figure_hold_the_gains_and_the_bases(store):
    save(store, {"1": 0.3, "2": 0.2, "4": 0.1})
    found = study.starts("smoke", 3)
    for start, gain in zip(found, (0.3, 0.2, 0.1), strict=True):
        assert start.gains[MEAN].estimate == pytest.approx(gain, abs=0.02)
        known = start.knowledge["relation"].interval().estimate
        assert known == pytest.approx(KNOWN[str(start.steps)], abs=0.06)
    rows = tables.base_table("smoke", 3).rows
    assert [row[0] for row in rows] == ["1", "2", "4"]
    assert float(rows[0][5]) == pytest.approx((0.2 - 0.1) / (0.2 + 0.1), abs=0.03)
    rows = tables.gain_table("smoke", 3).rows
    assert rows[-1][0] == "*weakest minus strongest*" and rows[-1][1].startswith("**+")
    alt = gain_figure("smoke", 3).alt
    assert (
        "base of 2 steps (relation choices" in alt
        and f"relative gap {number(found[1].base.contrast, 2)}" in alt
    )


def test_bases_that_know_the_same_say_nothing_about_knowledge(store):
    save(store, {"1": 0.3, "2": 0.2, "4": 0.1}, dict.fromkeys(KNOWN, 0.6))
    assert "The two bases are not told apart" in tables.judge_dependence("smoke", 3).source


def test_knowledge_is_the_mean_of_subsets_by_hand():
    def part(subset: str, correct: list[int]) -> ChoiceResult:
        n = len(correct)
        return ChoiceResult("x", subset, np.array(correct, bool), {"a": n}, n + 1, "macro", "",
                            None, 0.5, "strict", "", {}, {}, np.arange(n))  # fmt: skip

    found = {"aro/relation": (part("a", [1, 1, 0, 0, 0, 0]),),
             "sugarcrepe/replace_rel": (part("b", [1, 1]),)}  # fmt: skip
    score = study.kind_score("relation", found)
    assert score.interval().estimate == pytest.approx((1 / 3 + 1) / 2)
    assert (score.n_used, score.n_expected) == (8, 10)
    with pytest.raises(DataError, match="lack sugarcrepe/replace_rel"):
        study.kind_score("relation", {"aro/relation": found["aro/relation"]})


def test_what_is_not_measured_and_what_cannot_be(home):
    assert "Not measured yet" in tables.gain_table("smoke", 3).source
    text = tables.judge_dependence("paper", 3).source
    assert "starts from downloaded weights" in text
    assert tables.repeat("paper").source == "" and study.finding("paper", 3) is None
