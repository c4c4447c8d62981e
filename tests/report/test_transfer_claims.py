"""The verdicts on C4 to C8: their rules on written-down intervals, and on records."""

from __future__ import annotations

import dataclasses

import pytest

from cae_lib.config import PROFILES
from cae_lib.errors import DataError
from cae_lib.evaluation.statistics import Interval
from cae_lib.report.claims import judge_hard_negatives
from cae_lib.report.findings import hard_negatives_sentence, text_sentence
from cae_lib.report.rules import RULES
from cae_lib.report.runs import all_runs, cae_runs, hard_cae_runs, hard_runs
from cae_lib.report.spans import certain, span
from cae_lib.report.transfer_claims import (
    judge_heatmaps,
    judge_phrases,
    judge_retrieval,
    judge_similarity,
)
from cae_lib.report.verdicts import judge

METHODS = ("attention", "gradcam", "perturbation", "gradient")
UP, DOWN, OPEN = (0.01, 0.05), (-0.05, -0.01), (-0.01, 0.05)


def between(ends: tuple[float, float]) -> Interval:
    return Interval(sum(ends) / 2, *ends, 0.95, 100, 3)


def of_all(row, **changed):
    return dict.fromkeys(METHODS, row) | changed


def cells(coco_text=OPEN, coco_image=UP, flickr_text=OPEN, flickr_image=OPEN):
    names = [(a, b) for a in ("coco", "flickr30k") for b in ("text", "image")]
    ends = (coco_text, coco_image, flickr_text, flickr_image)
    return {name: between(pair) for name, pair in zip(names, ends, strict=True)}


@pytest.mark.parametrize(
    ("row", "status"),
    [
        (cells(), "reproduced"),
        (cells(flickr_text=(-0.0199, -0.001)), "reproduced"),
        (cells(coco_image=OPEN), "partly"),
        (cells(flickr_text=(-0.021, 0.01)), "partly"),
        (cells(flickr_text=(-0.021, -0.001)), "not"),
        (cells(coco_image=OPEN, flickr_text=(-0.021, 0.01)), "not"),
    ],
    ids=["all", "slight dip", "no gain", "uncertain", "lost", "uncertain and no gain"],
)
def test_retrieval_by_cells_kept_and_lost(row, status: str):
    assert judge_retrieval(of_all(row)).status == status
    alone = judge_retrieval({"gradient": row}).status
    assert alone == ("partly" if status == "reproduced" else status)


def test_one_method_that_loses_a_cell_spoils_retrieval():
    verdict = judge_retrieval(of_all(cells(), gradcam=cells(flickr_image=DOWN)))
    assert verdict.status == "partly"
    assert "trained on GradCAM, 3 of 4 cells are kept, 1 lost" in verdict.reason
    assert judge_retrieval({}).status == "untested"


@pytest.mark.parametrize(
    ("mean", "sets", "status"),
    [
        (UP, (UP, OPEN), "reproduced"),
        (UP, (UP, DOWN), "partly"),
        (OPEN, (UP, OPEN), "not"),
        (DOWN, (DOWN, DOWN), "not"),
    ],
)
def test_similarity_by_the_mean_and_each_set(mean, sets, status: str):
    row = between(mean), {str(i): between(ends) for i, ends in enumerate(sets)}
    assert judge_similarity(of_all(row)).status == status
    worse = between(OPEN), {"0": between(OPEN)}
    mixed = judge_similarity(of_all(row, gradient=worse)).status
    assert mixed == ("not" if status == "not" else "partly")
    assert judge_similarity({}).status == "untested"


@pytest.mark.parametrize("rule", [judge_phrases, judge_heatmaps])
@pytest.mark.parametrize(
    ("first", "second", "status"),
    [(UP, UP, "reproduced"), (UP, OPEN, "partly"), (OPEN, UP, "partly"), (UP, DOWN, "not"),
     (OPEN, OPEN, "not"), (DOWN, DOWN, "not")],
)  # fmt: skip
def test_two_differences_that_both_have_to_rise(rule, first, second, status: str):
    row = {"relation": between(first), "attribute": between(second)}
    assert rule(of_all(row)).status == status
    assert rule({"attention": row}).status == ("partly" if status == "reproduced" else status)
    assert rule({}).status == "untested"


def test_hard_negatives_by_families():
    won = {str(i): between(UP) for i in range(7)}
    assert judge_hard_negatives(of_all(won)).status == "reproduced"
    assert judge_hard_negatives(of_all(won | {"0": between(DOWN)})).status == "partly"
    assert judge_hard_negatives(of_all(dict.fromkeys(won, between(OPEN)))).status == "not"
    verdict = judge_hard_negatives({"attention": won})
    assert (verdict.claim, verdict.status) == ("C4", "partly")
    assert "NegCLIP-CAE against NegCLIP: trained on attention, better on 7 of" in verdict.reason


def test_numbers_in_short_are_the_ends_of_the_range():
    row = {m: between((end - 0.02, end)) for m, end in
           zip(METHODS, (0.03, -0.01, 0.01, 0.05), strict=True)}  # fmt: skip
    nb = "\N{NO-BREAK SPACE}"
    assert span(row) == (
        f"\N{MINUS SIGN}2.0 [\N{MINUS SIGN}3.0,{nb}\N{MINUS SIGN}1.0] (GradCAM) to "
        f"+4.0 [+3.0,{nb}+5.0] (gradient)"
    )
    assert certain(row, "up", "down") == "up with 2, down with 1 of 4 methods"
    assert " to " not in span({"gradient": between(UP)})
    verdict = judge_phrases({m: {"relation": v, "attribute": v} for m, v in row.items()})
    assert verdict.ours.count("[") == 4 and verdict.ours.endswith("both closer with 2 of 4 methods")
    assert "relation phrases \N{MINUS SIGN}0.020 [" in verdict.ours


def test_every_claim_has_a_rule():
    assert list(RULES) == [f"C{i}" for i in range(1, 9)]


def test_missing_records_leave_a_claim_untested_and_name_the_command(store):
    verdict = judge("C6", "smoke", 3)
    assert verdict.status == "untested"
    assert "3 records of the kind `similarity` missing" in verdict.reason
    assert "`cae evaluate cae-attention --seed 0 --profile smoke`" in verdict.reason
    for run in all_runs("smoke"):
        store.similarity(run, 0.1)
    assert judge("C6", "smoke", 3).status != "untested"
    (store.root / "data/cache/smoke-records/clip-ft/2/similarity.json").unlink()
    store.save("other", {})
    assert "`clip-ft/2/similarity`" in judge("C6", "smoke", 3).reason


def test_a_broken_record_is_an_error_and_no_verdict(store):
    for run in all_runs("smoke"):
        store.heatmaps(run, 0.3, 0.3)
    store.save("cae-attention/1/heatmaps", {"n_used": 5, "regions": {}})
    with pytest.raises(DataError, match="cae-attention/1/heatmaps has no shares by region"):
        judge("C8", "smoke", 3)


def test_retrieval_follows_the_records(store):
    assert judge("C5", "smoke", 3).status == "partly"
    for run in cae_runs("smoke"):
        store.retrieval(run, (0.6, 0.7, 0.8))
    assert judge("C5", "smoke", 3).status == "reproduced"
    for run in cae_runs("smoke"):
        store.retrieval(run, (0.1, 0.2, 0.3))
    assert judge("C5", "smoke", 3).status == "not"


def test_similarity_follows_the_records(store):
    for run in all_runs("smoke"):
        store.similarity(run, 0.2 if run in ("base", "clip-ft") else 0.05)
    assert judge("C6", "smoke", 3).status == "reproduced"
    store.similarity("cae-gradient", 0.2)
    assert judge("C6", "smoke", 3).status == "partly"
    for run in cae_runs("smoke"):
        store.similarity(run, 0.3)
    assert judge("C6", "smoke", 3).status == "not"


def test_phrases_follow_the_records(store):
    low = {"object": 0.5, "attribute": 0.5, "relation": 0.5}
    high = {"object": 0.5, "attribute": 0.6, "relation": 0.6}
    for run in all_runs("smoke"):
        store.phrases(run, low if run in ("base", "clip-ft") else high)
    assert judge("C7", "smoke", 3).status == "reproduced"
    for run in cae_runs("smoke"):
        store.phrases(run, high | {"relation": 0.4})
    assert judge("C7", "smoke", 3).status == "not"
    store.phrases("cae-gradcam", high)
    assert judge("C7", "smoke", 3).status == "partly"
    assert "has not been measured" in text_sentence("smoke", 3)


def test_heatmaps_follow_the_records(store):
    for run in all_runs("smoke"):
        store.heatmaps(run, *((0.2, 0.2) if run == "clip-ft" else (0.3, 0.3)))
    assert judge("C8", "smoke", 3).status == "reproduced"
    for run in cae_runs("smoke"):
        store.heatmaps(run, 0.3, 0.1)
    assert judge("C8", "smoke", 3).status == "not"
    store.save("clip-ft/0/heatmaps", {"n_used": 0, "reason": "no gold boxes here"})
    verdict = judge("C8", "smoke", 3)
    assert (verdict.status, verdict.reason) == ("untested", "no gold boxes here")


@pytest.fixture
def with_negatives(store, monkeypatch):
    """The records of the runs with hard negatives, and a row that belongs to no table."""
    rows = PROFILES["smoke"].methods | {"ablation-attention": {"method": "attention"}}
    changed = dataclasses.replace(PROFILES["smoke"], methods=rows)
    monkeypatch.setitem(PROFILES, "smoke", changed)
    for run in hard_runs("smoke"):
        store.benchmarks(run, 0.7 if run == "negclip" else 0.8)
    return store


def test_rows_of_the_tables_are_not_mixed_up(with_negatives):
    assert all_runs("smoke") == ["base", "clip-ft", *(f"cae-{m}" for m in METHODS)]
    assert hard_runs("smoke") == ["negclip", *(f"negclip-cae-{m}" for m in METHODS)]
    assert hard_cae_runs("smoke")["negclip-cae-gradient"] == "gradient"


def test_hard_negatives_follow_the_records(with_negatives):
    assert judge("C3", "smoke", 3).status == "reproduced"
    assert judge("C4", "smoke", 3).status == "reproduced"
    assert "up for certain with 4, down with 0 of 4" in hard_negatives_sentence("smoke", 3)
    for method in METHODS:
        with_negatives.benchmarks(f"negclip-cae-{method}", 0.6)
    assert judge("C4", "smoke", 3).status == "not"
    assert judge("C3", "smoke", 3).status == "reproduced"


def test_a_profile_without_hard_negatives_says_so(store, monkeypatch):
    rows = {name: row for name, row in PROFILES["smoke"].methods.items() if "negclip" not in name}
    monkeypatch.setitem(PROFILES, "smoke", dataclasses.replace(PROFILES["smoke"], methods=rows))
    verdict = judge("C4", "smoke", 3)
    assert verdict.status == "untested" and "no runs with hard negatives" in verdict.reason
