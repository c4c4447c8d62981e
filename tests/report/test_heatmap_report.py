"""Tables and figures of relevance by region and word, from records written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cae_lib.attribution import METHODS
from cae_lib.errors import DataError
from cae_lib.evaluation.example_scenes import EXAMPLES
from cae_lib.report import heatmaps
from cae_lib.report.figure import Figure
from cae_lib.report.heatmap_figures import examples_figure, region_figure
from cae_lib.report.markup import Table, Text
from cae_lib.report.runs import all_runs
from cae_lib.report.verdicts import judge

RUNS = all_runs("smoke")
N = 24


def content(relation: float, seed: int, word: float = 0.1) -> dict:
    """Relation's share of the picture about a mean, the words' about another."""
    wave = np.random.default_rng([seed, 1]).normal(0, 0.01, N)
    half = (0.6 - relation - wave) / 2
    regions = {"subject": half, "relation": relation + wave, "object": half}
    shares = {"subject": np.full(N, 0.4), "relation": word + wave, "object": np.full(N, 0.3)}
    peak = np.full((7, 7), 0.01)
    peak[2, 4] = relation + 0.2
    examples = [
        {"caption": e.caption, "words": e.caption.split(), "cosine": 0.4,
         "maps": {"last layer": peak, "all layers": peak},
         "shares": {m: [0.1, 0.2, 0.1, word, 0.1, 0.3] for m in METHODS}}
        for e in EXAMPLES
    ]  # fmt: skip
    return {
        "n_used": N, "n_expected": N, "relations": ["on"] * N, "examples": examples,
        "area": {"subject": 0.15, "relation": 0.1, "object": 0.15, "rest": 0.6},
        "regions": {"last layer": regions, "all layers": regions},
        "words": {m: shares for m in METHODS},
        "scores": {m: np.full(N, 0.2) for m in METHODS},
    }  # fmt: skip


@pytest.fixture
def measured(store):
    heatmaps.relevance.cache_clear()
    for run in RUNS:
        level = 0.2 if run.startswith("cae") else 0.1
        for seed in range(1 if run == "base" else 3):
            store.save(f"{run}/{seed}/heatmaps", content(level, seed, word=level))
    yield store
    heatmaps.relevance.cache_clear()


def test_regions_sum_to_one_and_have_their_area(measured):
    table = heatmaps.region_table(RUNS, "smoke", 3)
    rows = [row for row in table.rows if row[0] == "last layer"]
    assert [row[1] for row in rows] == ["subject", "relation", "object", "rest"]
    assert [row[2] for row in rows] == ["15.0", "10.0", "15.0", "60.0"]
    for column in range(3, 3 + len(RUNS)):
        assert sum(float(row[column].split("<br>")[0]) for row in rows) == pytest.approx(100, 0.2)
    assert f"{N} scenes" in table.caption and "3 seeds" in table.caption


def test_differences_are_those_to_clip_ft(measured):
    table = heatmaps.region_difference_table(["cae-attention"], "smoke", 3)
    rows = {(row[0], row[1]): row[2] for row in table.rows}
    assert rows["last layer", "relation"].startswith("**+10.0**")
    assert rows["last layer", "subject"].startswith("**−5.0**")
    assert rows["last layer", "rest"].startswith("0.0")


def test_words_by_every_method_and_the_own_one_in_bold(measured):
    table = heatmaps.word_table(RUNS, "smoke", 3)
    assert len(table.rows) == 4 * 3
    row = next(r for r in table.rows if r[:2] == ["gradient", "relation"])
    bold = [cell for cell in row[2:] if cell.startswith("**")]
    assert len(bold) == 1 and bold[0].startswith("**0.20**")
    assert row[2].startswith("0.10<br>[")


def test_the_drawn_scenes_words(measured):
    table = heatmaps.example_table(RUNS, "smoke", 3)
    assert table.rows[0][:2] == ["the cat is touching the elephant", "attention"]
    assert table.rows[0][2:] == ["0.10", "0.10", "0.20", "0.20", "0.20", "0.20"]
    assert len(table.rows) == 4 * len(EXAMPLES)


def test_figures_say_what_they_show(measured):
    figure = examples_figure(["base", "clip-ft", "cae-attention"], "smoke")
    assert isinstance(figure, Figure)
    for part in ("“the cat is touching the elephant”, CLIP: strongest patch in row 3, column 5",
                 "touching 0.10", "CLIP-CAE (attention): strongest patch"):  # fmt: skip
        assert part in figure.alt
    alt = region_figure(RUNS, "smoke", 3).alt
    assert "relation, last layer: CLIP 10." in alt or "relation, last layer: CLIP 9." in alt


def test_the_verdict_follows_the_records(measured):
    assert judge("C8", "smoke", 3).status == "reproduced"
    for seed in range(3):
        measured.save(f"cae-gradient/{seed}/heatmaps", content(0.05, seed, word=0.05))
    assert judge("C8", "smoke", 3).status == "partly"


def test_what_is_missing_or_unusable_is_said(store):
    heatmaps.relevance.cache_clear()
    assert isinstance(heatmaps.region_table(RUNS, "smoke", 3), Text)
    store.save("base/0/heatmaps", {"n_used": 0, "n_expected": 0, "reason": "no gold boxes"})
    assert "no gold boxes" in heatmaps.region_table(["base"], "smoke", 3).source
    broken = content(0.1, 0)
    del broken["words"]
    store.save("base/0/heatmaps", broken)
    with pytest.raises(DataError, match="base/0/heatmaps is no measurement of relevance"):
        heatmaps.region_table(["base"], "smoke", 3)


def test_seeds_with_other_scenes_are_refused(measured):
    changed = content(0.1, 1) | {"relations": ["under"] * N}
    measured.save("clip-ft/1/heatmaps", changed)
    with pytest.raises(DataError, match="different scenes"):
        heatmaps.region_table(["clip-ft"], "smoke", 3)
    assert isinstance(heatmaps.region_table(["base"], "smoke", 3), Table)
