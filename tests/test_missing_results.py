"""What the command line says of a page that could not show everything."""

from __future__ import annotations

import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from cae_lib import measurements
from cae_lib.errors import DataError
from cae_lib.evaluation.amounts import amounts
from cae_lib.evaluation.retrieval import KS, RetrievalResult
from cae_lib.pages.missing import what_is_missing
from cae_lib.records import Record, save_record
from cae_lib.report.markup import show
from cae_lib.report.retrieval import recall_difference, retrieval_table
from cae_lib.report.stored import NotMeasured, if_measured, require


@if_measured
def table(suite: str, profile: str):
    """A table that needs records."""
    require(["base", "clip-ft"], profile, suite, 2)


@pytest.mark.parametrize("profile", ["smoke", "paper"])
def test_each_kind_of_missing_record_is_told_once(home, profile):
    text = show(table("retrieval", profile), table("similarity", profile),
                table("retrieval", profile))._repr_markdown_()  # fmt: skip
    outputs = [new_output("display_data", {"text/markdown": text}), new_output("stream", text="x")]
    lines = what_is_missing(new_notebook(cells=[new_code_cell("", outputs=outputs)]), profile)
    text = "\n".join(lines)
    assert text.count("of the kind `retrieval` missing") == 1
    assert text.count("of the kind `similarity` missing") == 1
    assert f"`cae evaluate base --seed 0 --profile {profile}`." in text
    assert ("flickr30k: not here" in text) == (profile == "paper")
    assert ("cae data get senteval" in text) == (profile == "paper")


def test_amounts_are_summed_by_family_and_told_apart_where_incomplete():
    def part(used: int, expected: int) -> dict:
        return {"n_used": used, "n_expected": expected}

    parts = {"aro/relation": part(3, 5), "aro/attribution": part(4, 4), "cola/multi": part(1, 1)}
    assert amounts("benchmarks", parts) == [
        "benchmarks, aro: 7 used of 9 expected",
        "benchmarks, cola: 1 used of 1 expected",
        "  incomplete: aro/relation, 3 used of 5 expected",
    ]
    assert amounts("phrases", part(7, 8) | {"kinds": {}}) == ["phrases: 7 used of 8 expected"]
    assert amounts("faithfulness", {"n_captions": 1, "n_expected": 2, "curves": part(0, 0)}) == [
        "faithfulness: 1 used of 2 expected"
    ]
    assert amounts("attribution", {"attention": {"n_captions": 3}}) == []


def test_a_retrieval_set_that_was_left_out_costs_its_rows_only(home):
    def record(*sets: str) -> dict:
        hits = {k: np.arange(4) < 2 for k in KS}
        parts = RetrievalResult(hits, hits, np.arange(4)).to_record()
        return dict.fromkeys(sets, parts | {"n_used": 4, "n_expected": 5})

    for run, sets in (("base", ("coco", "flickr30k")), ("clip-ft", ("coco",))):
        save_record(Record(f"{run}/0/retrieval", "0" * 12, {}, record(*sets), {}), "smoke")
    measurements._load.cache_clear()
    assert len(retrieval_table(["base"], "smoke", 1).rows) == 4
    table = retrieval_table(["base", "clip-ft"], "smoke", 1)
    assert {row[0] for row in table.rows} == {"COCO, image to text", "COCO, text to image"}
    with pytest.raises(NotMeasured, match="clip-ft/0/retrieval .* without flickr30k"):
        recall_difference("clip-ft", "base", "smoke", "flickr30k", "text", 1, 1)
    measurements._load.cache_clear()


@pytest.mark.parametrize("suite", ["benchmarks", "retrieval"])
def test_a_record_that_does_not_tell_the_pictures_is_named_with_the_command(home, suite):
    name = f"clip-ft/1/{suite}"
    for seed in range(2):
        save_record(Record(f"clip-ft/{seed}/{suite}", "0" * 12, {}, {}, {}), "smoke")
    path = save_record(Record(name, "0" * 12, {}, {"coco": {"text": {}}}, {}), "smoke")
    measurements._load.cache_clear()
    with pytest.raises(DataError) as caught:
        measurements.results("clip-ft", "smoke", suite, 2)
    assert str(path) in str(caught.value)
    assert "cae evaluate clip-ft --profile smoke --seed 1" in str(caught.value)
    measurements._load.cache_clear()
