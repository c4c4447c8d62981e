from __future__ import annotations

import numpy as np
import pytest

from cae_lib.errors import DataError
from cae_lib.evaluation.aggregates import AGGREGATES, aggregate
from cae_lib.report.benchmark_tables import differences, paper_table, score_table, subset_table
from cae_lib.report.benchmarks import (
    COLUMNS,
    FAMILIES,
    all_answers,
    answers,
    column_score,
    family_score,
    mean_score,
)

BY_KEY = {column.key: column for column in COLUMNS}


@pytest.fixture
def shares(store):
    """Base with a known share right in each subset, without noise."""
    known = {"sugarcrepe/add_att": 0.9, "sugarcrepe/replace_att": 0.6, "sugarcrepe/swap_att": 0.3}
    store.benchmarks("base", known | {"*": 0.5})
    return answers("base", "smoke", 1)


def test_seven_families_as_the_paper_has_them():
    assert FAMILIES == ("ARO", "Winoground", "SugarCrepe", "VL-CheckList", "VALSE", "SVO-Probes",
                        "CREPE")  # fmt: skip


@pytest.mark.parametrize(
    ("key", "name"),
    [("SC-Att", "sugarcrepe/attribute"), ("VLC-Rel", "vl_checklist/relation"),
     ("VLC-Att", "vl_checklist/attribute"), ("VALSE-Rel", "valse/relation")],
)  # fmt: skip
def test_a_column_is_the_aggregate_of_the_evaluation(shares, key: str, name: str):
    assert BY_KEY[key].tree == AGGREGATES[name]
    expected = aggregate([parts[0] for parts in shares.values()], name)
    score = column_score(BY_KEY[key], shares)
    assert score.interval().estimate == pytest.approx(expected.value)
    assert score.n_used == expected.n_used


def test_a_macro_headline_keeps_its_groups(shares):
    score = column_score(BY_KEY["ARO-R"], shares)
    result = shares["aro/relation"][0]
    assert result.headline == "macro" and len(score.strata) == 2
    assert score.interval().estimate == pytest.approx(result.value)


def test_a_family_is_the_mean_of_its_columns(shares):
    columns = [column_score(BY_KEY[key], shares) for key in ("SC-Rel", "SC-Att")]
    means = [score.interval().estimate for score in columns]
    family = family_score("SugarCrepe", shares)
    assert family.interval().estimate == pytest.approx(np.mean(means))
    assert sum(family.weights) == pytest.approx(1.0)
    assert family.chance == 0.5


def test_what_is_absent_is_named_and_its_weight_moves(shares):
    found = {key: parts for key, parts in shares.items() if key != "sugarcrepe/swap_att"}
    score = column_score(BY_KEY["SC-Att"], found)
    assert score.absent == ("sugarcrepe/swap_att",)
    micro = [found[f"sugarcrepe/{kind}_att"][0].micro for kind in ("add", "replace")]
    assert score.interval().estimate == pytest.approx(np.mean(micro))
    assert "sugarcrepe/swap_att" in score_table({"base": found})._repr_markdown_()
    assert column_score(BY_KEY["CREPE"], {"aro/relation": found["aro/relation"]}) is None


def test_a_difference_is_paired(store):
    found = all_answers("smoke", 3)
    apart = family_score("ARO", found["cae-attention"]).interval()
    paired = differences(found)["cae-attention"]["ARO"]
    assert paired.high - paired.low < apart.high - apart.low
    assert differences(found | {"cae-attention": found["clip-ft"]})["cae-attention"][
        "ARO"].estimate == 0.0  # fmt: skip


def test_the_mean_of_methods_is_taken_item_by_item(shares):
    score = column_score(BY_KEY["SVO"], shares)
    both = mean_score([score, score])
    np.testing.assert_array_equal(both.strata[0], score.strata[0])


def test_seeds_that_answered_other_items_are_refused(store):
    record = answers("clip-ft", "smoke", 3)["svo_probes/all"][0].to_record()
    for seed, items in enumerate(("abc", "abd", "abc")):
        store.save(f"clip-ft/{seed}/benchmarks", {"svo_probes/all": record | {"items": items}})
    with pytest.raises(DataError, match="seeds answered different items"):
        answers("clip-ft", "smoke", 3)


def test_missing_items_are_printed_beside_the_number(store):
    record = answers("base", "smoke", 1)["svo_probes/all"][0].to_record()
    store.save("base/0/benchmarks", {"svo_probes/all": record | {"n_expected": 250}})
    found = {"base": answers("base", "smoke", 1)}
    assert "| **200** of 250 |" in score_table(found)._repr_markdown_()
    assert "| **200** of 250 |" in subset_table(found)._repr_markdown_()


def test_the_paper_beside_ours(store):
    table = paper_table(all_answers("smoke", 3), "a test")
    rows = {row[0]: row for row in table.rows}
    assert rows["ARO, relation"][1:5] == ["58.7", "64.3", "69.5", "+5.2"]
    assert rows["ARO, relation"][-1] == "same"
    assert rows["ARO, attribution"][4] == "\N{MINUS SIGN}0.8"
    assert rows["ARO, attribution"][-1] == "opposite"
    assert rows["Winoground, group score"][1] == "–"
    assert "a test" in table.caption and "Levels cannot be compared" in table.caption
