"""Tables and figures of retrieval, similarity, phrases, zero-shot and hard negatives."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from cae_lib.errors import DataError
from cae_lib.evaluation.similarity import SimilarityResult
from cae_lib.measurements import results
from cae_lib.report import phrases, similarity_tables
from cae_lib.report.figure import MOST_BYTES, Figure
from cae_lib.report.markup import Text
from cae_lib.report.phrase_figures import phrase_figure
from cae_lib.report.retrieval import (
    hits,
    orientation,
    recall_forest,
    retrieval_difference_table,
    retrieval_differences,
    retrieval_table,
)
from cae_lib.report.runs import all_runs, hard_runs
from cae_lib.report.similarity import MEAN, correlation_differences, correlations
from cae_lib.report.zero_shot import shares, zero_shot_table

METHODS = ("attention", "gradcam", "perturbation", "gradient")
LEVELS = {"object": 0.5, "attribute": 0.4, "relation": 0.3}
CAE = [f"cae-{method}" for method in METHODS]


def test_every_table_says_what_is_missing(store):
    made = [
        similarity_tables.similarity_table(all_runs("smoke"), "smoke", 3, "spearman"),
        phrases.cosine_table(all_runs("smoke"), "smoke", 3),
        phrase_figure(all_runs("smoke"), "smoke", 3),
        zero_shot_table(all_runs("smoke"), "smoke", 3),
    ]
    for item in made:
        assert isinstance(item, Text) and "Not measured yet in the profile smoke" in item.source
        assert "`cae evaluate base --seed 0 --profile smoke`" in item.source
    assert "no runs to compare with NegCLIP" in (
        phrases.phrase_difference_table([], "smoke", 3, "negclip").source
    )


def test_recalls_have_all_intervals_and_their_differences(store):
    store.retrieval("cae-attention", (0.9, 0.95, 1.0))
    table = retrieval_table(["base", "cae-attention"], "smoke", 3, full=True)
    assert [row[1] for row in table.rows[:2]] == ["CLIP", "CLIP-CAE (attention)"]
    assert all("[" in cell for row in table.rows for cell in row[2:5])
    found = retrieval_differences(CAE, "smoke", 3)
    value = found["cae-attention"]["COCO, text to image, R@1"].estimate
    ours, theirs = (
        hits(run, "smoke", "coco", "image", 1, 3)[0].mean() for run in ("cae-attention", "clip-ft")
    )
    assert value == pytest.approx(ours - theirs) and value > 0.4
    row = retrieval_difference_table(CAE, "smoke", 3).rows[0]
    assert row[1].startswith("**+") and row[2].startswith("0.0<br>")
    figure = recall_forest(CAE, "smoke", 3)
    assert isinstance(figure, Figure) and "COCO, text to image, R@1" in figure.alt
    assert "30.5" in orientation().source


def test_correlations_are_those_of_scipy_averaged_over_seeds(store):
    store.similarity("clip-ft", 0.1)
    stored = [SimilarityResult.from_record(r.results["STS-B"])
              for r in results("clip-ft", "smoke", "similarity", 3)]  # fmt: skip
    expected = np.mean([spearmanr(part.cosine, part.gold).statistic for part in stored])
    found = correlations("clip-ft", "smoke", 3, "spearman")
    assert found["STS-B"].estimate == pytest.approx(expected)
    sets = [part.estimate for name, part in found.items() if name != MEAN]
    assert found[MEAN].estimate == pytest.approx(np.mean(sets))
    interval = found["STS-B"].interval()
    assert interval.low < expected < interval.high and interval.n_items == 120


def test_differences_of_correlations_are_paired(store):
    store.similarity("clip-ft", 0.1)
    store.similarity("cae-attention", 0.1)
    same = correlation_differences("cae-attention", "clip-ft", "smoke", 3, "pearson")
    assert {(value.low, value.estimate, value.high) for value in same.values()} == {(0, 0, 0)}
    store.similarity("cae-attention", 0.1, sets=("STS-B",))
    with pytest.raises(DataError, match="on different sets"):
        correlation_differences("cae-attention", "clip-ft", "smoke", 3, "pearson")


def test_tables_of_similarity(store):
    for run in all_runs("smoke"):
        store.similarity(run, 0.2 if run == "clip-ft" else 0.05)
    table = similarity_tables.similarity_table(all_runs("smoke"), "smoke", 3, "spearman")
    assert [row[:2] for row in table.rows] == [["STS-B", "120"], ["SICK-R", "120"],
                                               ["**mean**", "240"]]  # fmt: skip
    differences = similarity_tables.similarity_difference_table("smoke", 3, CAE)
    assert all(cell.startswith("**+") for row in differences.rows for cell in row[1:])
    rows = similarity_tables.similarity_paper_table("smoke", 3).rows
    assert [row[0] for row in rows][:2] == ["SICK-R, Spearman", "SICK-R, Pearson"]
    assert rows[0][1:5] == ["67.9", "68.0", "69.3", "+1.3"] and rows[0][-1] == "same"
    assert rows[1][4] == "\N{MINUS SIGN}1.8" and rows[1][-1] == "opposite"


def test_tables_and_figure_of_phrases(store):
    for run in all_runs("smoke"):
        up = 0.1 if run == "cae-gradient" else 0.0
        store.phrases(run, {kind: value + up for kind, value in LEVELS.items()})
    rows = phrases.cosine_table(all_runs("smoke"), "smoke", 3).rows
    assert [row[0] for row in rows[::6]] == ["relation", "attribute", "object"]
    assert rows[0][-1] == "40 (60)" and rows[6][-1] == "60 (60)"
    made = {tuple(row[:2]): row for row in
            phrases.phrase_difference_table(CAE, "smoke", 3).rows}  # fmt: skip
    changed = made["relation", "CLIP-CAE (gradient)"]
    assert changed[2].startswith("**+0.1") and changed[4].startswith("**+0.1")
    assert "**" not in "".join(made["relation", "CLIP-CAE (GradCAM)"])
    assert float(changed[3].split("<br>")[0]) > 2
    figure = phrase_figure(all_runs("smoke"), "smoke", 3)
    assert len(figure.png) <= MOST_BYTES
    assert "relation phrases: CLIP 0.3" in figure.alt and "CLIP-CAE (gradient) 0.4" in figure.alt


def test_phrases_with_hard_negatives_join_once_they_are_measured(store):
    for run in all_runs("smoke"):
        store.phrases(run, LEVELS)
    assert phrases.shown_runs("smoke", 3) == all_runs("smoke")
    missing = phrases.hard_phrase_tables("smoke", 3).source
    assert "15 records of the kind `phrases` missing" in missing and "`negclip/0/" in missing
    for run in hard_runs("smoke"):
        high = run == "negclip-cae-gradcam"
        store.phrases(run, {kind: value + 0.1 * high for kind, value in LEVELS.items()})
    assert phrases.shown_runs("smoke", 3) == all_runs("smoke") + hard_runs("smoke")
    made = phrases.hard_phrase_tables("smoke", 3).source
    assert "minus that in NegCLIP" in made and "minus that in CLIP-FT" in made
    assert "| relation | NegCLIP-CAE (GradCAM) | **+0.1" in made
    assert "| relation | NegCLIP | " in made and ":name: tab-phrases-negatives" in made
    shown = phrase_figure(phrases.shown_runs("smoke", 3), "smoke", 3)
    assert "NegCLIP-CAE (GradCAM) 0.4" in shown.alt and len(shown.png) <= MOST_BYTES


def test_a_space_that_shrinks_as_a_whole_is_told_by_the_control(store):
    store.phrases("clip-ft", LEVELS, other=0.2)
    store.phrases("cae-gradient", {kind: v + 0.1 for kind, v in LEVELS.items()}, other=0.3)
    rows = phrases.phrase_difference_table(["cae-gradient"], "smoke", 3).rows
    assert all(row[2].startswith("**+") and not row[4].startswith("**") for row in rows)


def test_zero_shot_against_clip_and_clip_ft(store):
    for run in all_runs("smoke"):
        store.zero_shot(run, {"base": 0.8, "clip-ft": 0.5}.get(run, 0.6))
    rows = zero_shot_table(all_runs("smoke"), "smoke", 3).rows
    assert [row[1] for row in rows] == 2 * [
        "CLIP", "CLIP-FT", *(f"CLIP-CAE ({m})" for m in ("attention", "GradCAM", "perturbation",
                                                         "gradient"))]  # fmt: skip
    assert rows[0][4:] == ["–", "–", "80"]
    assert rows[1][4].startswith("**\N{MINUS SIGN}") and rows[1][5] == "–"
    assert rows[2][5].startswith("**+")
    assert shares("base", "smoke", "coco", 1, 3).shape == (1, 80)
