"""The page of hard negatives: tables, figure, what a step is made of, and missing records."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from cae_lib.config import experiment
from cae_lib.report import hard_negatives as hard
from cae_lib.report import settings
from cae_lib.report.benchmarks import FAMILIES, answers, family_score
from cae_lib.report.families import overall_difference, overall_score
from cae_lib.report.hard_settings import levelling_with_negatives, step_table, weight_text
from cae_lib.report.markup import Text
from cae_lib.report.model_card import _training
from cae_lib.report.runs import cae_runs, hard_runs, method_label
from cae_lib.report.verdicts import judge

METHODS = ("attention", "gradcam", "perturbation", "gradient")
LEVELS = {"object": 0.18, "attribute": 0.11, "relation": 0.12}
LEVEL = {"object": 0.14, "attribute": 0.14, "relation": 0.14}


@pytest.fixture
def with_negatives(store):
    """The records of a profile, with those of the runs with hard negatives."""
    for run in hard_runs("smoke"):
        store.benchmarks(run, 0.7 if run == "negclip" else 0.8)
    return store


def test_the_mean_over_families_weighs_each_family_alike(store):
    store.benchmarks("clip-ft", {"aro/relation": 0.9, "aro/attribution": 0.9, "*": 0.5})
    found = answers("clip-ft", "smoke", 3)
    by_hand = np.mean([family_score(name, found).interval().estimate for name in FAMILIES])
    assert overall_score(found).interval().estimate == pytest.approx(by_hand)
    other = answers("base", "smoke", 3)
    expected = by_hand - overall_score(other).interval().estimate
    found_difference = overall_difference(found, other)
    assert found_difference.estimate == pytest.approx(expected)
    assert found_difference.low < expected < found_difference.high
    assert overall_difference(found, {}) is None and overall_score({}) is None


def test_the_overview_crosses_negatives_with_cae(with_negatives):
    with_negatives.benchmarks("negclip-cae-gradient", 0.7)
    rows = {row[0]: row[1:] for row in hard.overview_table("smoke", 3).rows}
    assert list(rows) == ["none", *(method_label(method) for method in METHODS)]
    assert rows["none"][2].startswith("**+") and rows["none"][3:] == ["\N{EN DASH}"] * 2
    assert all(cell.startswith("**+") for cell in rows["attention"][2:])
    assert rows["gradient"][2].startswith("**\N{MINUS SIGN}")
    assert rows["gradient"][4].startswith("0.0<br>")


def test_the_finding_names_both_ends(with_negatives):
    with_negatives.benchmarks("negclip-cae-gradient", 0.5)
    sentence = hard.finding("smoke", 3)
    assert "(gradient) to +" in sentence
    assert sentence.endswith("it is up for certain with 3, down with 1 of 4 methods.")


def test_tables_and_figure(with_negatives):
    table = hard.hard_score_table("smoke", 3)
    assert table.header[1:] == [
        "CLIP",
        "CLIP-FT",
        "NegCLIP",
        *(f"NegCLIP-CAE ({method_label(method)})" for method in METHODS),
    ]
    assert table.rows[0][0] == "ARO, relation<br>n 200, chance 50.0"
    differences = hard.hard_difference_table("smoke", 3)
    assert differences.header[1] == "NegCLIP-CAE (attention)"
    assert "minus that of NegCLIP" in differences.caption
    assert all(cell.startswith("**+") for row in differences.rows[:7] for cell in row[1:])
    alone = hard.negatives_alone_table("smoke", 3)
    assert alone.header[1:3] == ["NegCLIP", "CLIP-CAE (attention)"]
    first = hard.hard_paper_table("smoke", 3).rows[0]
    assert first[:4] == ["ARO, relation", "64.3", "80.4", "+16.1"] and first[-1] == "same"
    names = {table.name, differences.name, alone.name}
    assert not names & {"tab-benchmarks", "tab-differences"} and len(names) == 3
    assert hard.hard_figure("smoke", 3).alt.startswith("Difference to NegCLIP in percentage")
    assert list(cae_runs("smoke")) == [f"cae-{method}" for method in METHODS]


def test_what_is_missing_is_named_once(store):
    makers = (hard.overview_table, hard.hard_score_table, hard.hard_difference_table,
              hard.hard_figure, hard.negatives_alone_table, hard.hard_paper_table)  # fmt: skip
    made = [make("smoke", 3) for make in makers]
    assert all(isinstance(item, Text) for item in made)
    texts = [item.source for item in made]
    assert len(set(texts)) == len(texts) and all("see the verdict" in text for text in texts)
    assert not any("cae train" in text for text in texts)
    assert hard.finding("smoke", 3) is None
    verdict = judge("C4", "smoke", 3)
    assert verdict.status == "untested" and "`negclip/0/benchmarks`" in verdict.reason
    assert "attribution of the runs" in levelling_with_negatives("smoke", 3).source


def test_the_verdict_on_negatives_needs_their_own_runs_alone(with_negatives):
    (with_negatives.root / "data/cache/smoke-records/cae-gradcam/1/benchmarks.json").unlink()
    with_negatives.save("other", {})
    assert judge("C4", "smoke", 3).status == "reproduced"
    assert isinstance(hard.overview_table("smoke", 3), Text)


def test_a_step_has_as_many_texts_with_negatives_as_without():
    rows = {row[0]: row[1:] for row in step_table("mini").rows}
    assert rows["CLIP-FT"] == ["128", "128", "128", "0", "128", "300", "38,400"]
    assert rows["NegCLIP"] == ["32", "64", "64", "64", "128", "300", "19,200"]
    text = weight_text("mini").source
    assert "takes over the λ" in text and "0.3 by gradient" in text
    table = settings.training_table("mini")
    sizes = {row[0]: row[table.header.index("rows a step")] for row in table.rows}
    assert sizes["CLIP-CAE (gradient)"] == "128" and sizes["NegCLIP-CAE (gradient)"] == "32"


def test_levelling_on_top_of_negatives(store):
    for run in hard_runs("smoke"):
        store.attribution(run, LEVELS if run in ("negclip", "negclip-cae-gradcam") else LEVEL)
    table = levelling_with_negatives("smoke", 3)
    assert [row[-1] for row in table.rows] == [
        "the groups are level", "the gap is not smaller for certain", "the groups are level",
        "the groups are level"]  # fmt: skip
    store.attribution("negclip", LEVEL)
    assert "NegCLIP has no gap to close" in [
        row[-1] for row in levelling_with_negatives("smoke", 3).rows
    ]


def test_a_model_card_says_what_a_row_brings():
    clip = SimpleNamespace(name="clip-mini", activation="quickgelu")
    meta = SimpleNamespace(step=300, config_key="abc")
    text = {name: "\n".join(_training("mini", clip, meta, experiment(name, "mini")))
            for name in ("cae-gradient", "negclip-cae-gradient")}  # fmt: skip
    assert "300 steps of 128 pairs, AdamW" in text["cae-gradient"]
    assert "300 steps of 32 rows, each with a similar picture" in text["negclip-cae-gradient"]
    locked = experiment("clip-ft", "mini", lock_image=True)
    assert "The text tower alone was trained" in "\n".join(_training("mini", clip, meta, locked))
