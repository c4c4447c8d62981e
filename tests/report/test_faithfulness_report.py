"""Tables, figures and sentences of faithfulness from records made up by hand, both ways."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cae_lib.errors import DataError
from cae_lib.report import faithfulness_claims as claims
from cae_lib.report import faithfulness_figures as figures
from cae_lib.report import faithfulness_tables as tables
from cae_lib.report.example import example_figure, example_runs
from cae_lib.report.faithfulness import SCORERS, faithfulness, own_pairs
from cae_lib.report.runs import cae_runs

PROFILE = "smoke"
N = 40
METHODS = ("attention", "gradcam", "perturbation", "gradient")
STAGES = ("projection", "block 2", "blocks 2-1", "embeddings")
WORDS = ["a", "red", "cat", "on", "a", "mat"]
RUNS = tuple(cae_runs(PROFILE))


def record(gains: dict[str, float], kept: dict[str, float], seed: int = 0, drop: float = 0.4,
           agreed: float = 0.5) -> dict:  # fmt: skip
    """A record in which method m has the faithfulness `gains[m]`, and `kept[m]` of its ranking.

    S falls from 0.6 by `drop`. The agreement of all pairs is `agreed`.
    """
    rng = np.random.default_rng(seed)

    def near(value: float, spread: float = 0.01) -> list[float]:
        return (value + rng.normal(0, spread, N)).tolist()

    middle = 0.6 - drop / 2
    grid = np.linspace(0, 1, 11)
    line = {"mean": (0.6 - drop * grid).tolist(), "error": [0.01] * 11}
    methods = {}
    for scorer in SCORERS:
        half = gains.get(scorer, 0.3) * drop / 2
        methods[scorer] = {"deletion": {"area": near(middle - half)} | line,
                           "insertion": {"area": near(middle + half)} | line}  # fmt: skip
    fates = {m: {stage: near(1 - (1 - kept.get(m, 0.0)) * i / 2 if i < 3 else 0.0)
                 for i, stage in enumerate(STAGES)} for m in METHODS}  # fmt: skip
    scores = [0.1 * i + 0.001 * seed for i in range(6)]
    example = {
        "words": WORDS, "roles": [0, 2, 1, 3, 0, 1], "scores": dict.fromkeys(SCORERS, scores)
    }  # fmt: skip
    pairs = {f"{a}/{b}": [None, *near(agreed)[1:]] for a, b in itertools.combinations(SCORERS, 2)}
    return {
        "n_captions": N, "n_expected": N, "agreement": pairs, "example": example,
        "curves": {"grid": grid.tolist(), "whole": near(0.6, 0), "empty": near(0.6 - drop, 0),
                   "random": {"area": near(middle)} | line, "methods": methods},
        "randomisation": {"stages": list(STAGES), "methods": fates, "n_captions": N},
        "integrated": {"mean_delta": 0.001, "largest_delta": 0.0099, "most_steps": 32,
                       "mean_steps": 9.0},
    }  # fmt: skip


def put(store, run: str, gains: dict[str, float] | None = None, **fields) -> None:
    """The records of a run, one a seed."""
    kept = fields.pop("kept", {})
    for seed in range(1 if run == "base" else 3):
        content = record(gains or {}, kept, seed, **fields)
        store.save(f"{run}/{seed}/faithfulness", content)


@pytest.fixture
def full(store):
    for run in ("base", "clip-ft", *RUNS):
        put(store, run)
    return store


def test_faithfulness_is_a_share_of_what_all_words_are_worth(full):
    put(full, "base", {"attention": 0.5}, drop=0.2)
    areas = faithfulness("base", PROFILE, 1).areas("attention")
    assert areas.faithfulness.estimate == pytest.approx(0.5, abs=0.03)
    assert areas.deletion_lead.estimate == pytest.approx(0.25, abs=0.03)
    assert areas.insertion_lead.estimate == pytest.approx(0.25, abs=0.03)
    assert faithfulness("clip-ft", PROFILE, 2).areas("attention").deletion.shape == (2, N)


def test_without_a_drop_there_is_no_share(full):
    put(full, "base", drop=-0.1)
    base = faithfulness("base", PROFILE, 1)
    assert base.areas("attention").faithfulness is None
    assert tables.area_table(base).rows[0][-1] == "–"
    assert "cannot be said for certain" in claims.judge_chance(base).source
    put(full, "clip-ft", drop=-0.1)
    row = tables.own_table(own_pairs(PROFILE, 3)).rows[0]
    assert row[1] == "–" and row[5] == "not defined"


def test_methods_beat_chance_or_do_not(full):
    text = claims.judge_chance(faithfulness("base", PROFILE, 1)).source
    assert text.startswith("In CLIP, words that score high by attention, GradCAM, perturbation, "
                           "gradient and integrated gradients")  # fmt: skip
    assert "certain" not in text
    put(full, "base", {"gradient": -0.2, "attention": 0.0, "gradcam": 0.8})
    text = claims.judge_chance(faithfulness("base", PROFILE, 1)).source
    assert "by GradCAM, perturbation and integrated gradients are those" in text
    assert "For attention and gradient this cannot be said for certain." in text
    assert "The most faithful scores are those by GradCAM (0.8" in text
    assert "the least faithful those by gradient (−0.2" in text


def test_training_on_a_method_may_spoil_it_or_not(full):
    same = claims.judge_training(own_pairs(PROFILE, 3)).source
    assert "Not that it could be told here." in same and "does not change so that" in same
    assert "integrated gradients themselves falls after no training" in same
    for run in RUNS:
        put(full, run, dict.fromkeys(METHODS, 0.1))
    spoilt = claims.judge_training(own_pairs(PROFILE, 3)).source
    assert "faithful?** Yes. Measured by" in spoilt and "falls by attention (−0.6" in spoilt
    assert "rises" not in spoilt and "does not change" not in spoilt
    put(full, "cae-attention", dict.fromkeys(METHODS, 0.6))
    mixed = claims.judge_training(own_pairs(PROFILE, 3)).source
    n = len(RUNS)
    assert "it rises by attention (+1.0" in mixed or "it rises by attention (+0.9" in mixed
    if n > 1:
        assert f"For {n - 1} of {n} methods." in mixed
    assert claims.judge_training({}).source.endswith("No CAE run has been measured.")


def test_a_model_that_rests_on_more_words_is_no_fault_of_the_scores(full):
    """Both fall alike: the share stays, and the text says where the fall comes from."""
    put(full, "cae-attention", dict.fromkeys(SCORERS, 0.15))
    tuned, cae = own_pairs(PROFILE, 3)["attention"]
    assert claims.absolute_change(tuned, cae, "attention").interval().high < -0.1
    assert cae.relative("attention").estimate == pytest.approx(1, abs=0.1)
    assert claims.change(tuned, cae, "attention") == "same"
    text = claims.judge_training({"attention": (tuned, cae)}).source
    assert "Not that it could be told here." in text
    assert "falls after training on attention (−0.1" in text and "more words at once" in text


def test_no_reference_no_share(full):
    put(full, "cae-attention", {"integrated_gradients": 0.0})
    tuned, cae = own_pairs(PROFILE, 3)["attention"]
    assert cae.relative("attention") is None
    text = claims.judge_training({"attention": (tuned, cae)}).source
    assert "is not defined, since integrated gradients do no better than chance" in text
    assert tables.own_table({"attention": (tuned, cae)}).rows[0][3].endswith("→ –")


def test_a_run_is_judged_by_its_own_method_only(full):
    """Scores by other methods do not enter the verdict."""
    put(full, "cae-attention", {m: 0.0 for m in METHODS if m != "attention"})
    assert "falls by" not in claims.judge_training(own_pairs(PROFILE, 3)).source
    rows = {row[0]: row for row in tables.training_table(PROFILE, 3).rows}
    cells = rows["CLIP-CAE (attention)"]
    assert "**" not in cells[1] and cells[2].startswith("**") and "**" not in rows["CLIP"][2]


def test_randomisation_passes_and_fails(full):
    base = faithfulness("base", PROFILE, 1)
    text = claims.judge_randomisation(base).source
    assert "attention, GradCAM, perturbation and gradient keep less than half" in text
    assert "none keeps more than half for certain" in text
    put(full, "base", kept={"gradient": 0.9, "gradcam": 0.5, "attention": 0.2})
    text = claims.judge_randomisation(faithfulness("base", PROFILE, 1)).source
    assert "by attention and perturbation keep less than half" in text
    assert "by gradient keep more than half of their ranking although every block" in text
    assert "For GradCAM the interval holds 0.5." in text
    assert "the scores by attention, GradCAM and gradient still keep more than half" in text


def test_agreement_reads_both_orders_and_leaves_out_what_is_missing(full):
    put(full, "base", agreed=0.7)
    base = faithfulness("base", PROFILE, 1)
    one, other = base.agreement("gradient", "attention"), base.agreement("attention", "gradient")
    assert one.estimate == other.estimate == pytest.approx(0.7, abs=0.01)
    table = tables.agreement_table(base)
    assert [len([c for c in row[1:] if c]) for row in table.rows] == [1, 2, 3, 4]
    assert table.rows[0][:2] == ["GradCAM", table.rows[0][1]]


def test_what_training_did_to_the_agreement(full):
    put(full, "cae-attention", agreed=0.2)
    row = tables.own_table(own_pairs(PROFILE, 3)).rows[0]
    assert row[0] == "attention" and row[5] == "not told apart" and row[6].startswith("−0.3")
    rows = tables.reference_table(PROFILE, 3).rows
    assert [row[0] for row in rows][:3] == ["CLIP", "CLIP-FT", "CLIP-CAE (attention)"]
    assert rows[2][1].startswith("0.2") and rows[1][1].startswith("0.5")


def test_tables_of_every_run(full):
    rows = tables.randomisation_table(PROFILE, 3).rows
    assert len(rows) == 2 * (2 + len(RUNS))
    assert [row[1] for row in rows[:2]] == ["projection, block 2", "projection, blocks 2-1"]
    note = tables.convergence_note(faithfulness("base", PROFILE, 1)).source
    assert "up to 32" in note and "0.0010 on average and 0.0099 at most" in note


def test_figures_say_what_they_show(full):
    base = faithfulness("base", PROFILE, 1)
    assert "random order 0.40" in figures.curves_figure(base).alt
    alt = figures.training_figure(PROFILE, 3).alt
    assert all(f"CLIP-CAE ({name})" in alt for name in ("attention",))
    assert "projection 1.00, block 2 0.50" in figures.randomisation_figure(base).alt


def test_the_example_is_one_caption(full):
    figure = example_figure(example_runs(PROFILE, 3))
    assert "caption “a red cat on a mat”" in figure.alt
    assert "CLIP-CAE (attention) by attention a 0.00, red 0.10, cat 0.20" in figure.alt
    content = record({}, {})
    content["example"]["words"] = ["another", *WORDS[1:]]
    full.save("clip-ft/0/faithfulness", content)
    with pytest.raises(DataError, match="different examples"):
        example_figure(example_runs(PROFILE, 3))


def test_broken_records_are_named(full):
    content = record({}, {})
    del content["agreement"]
    full.save("base/0/faithfulness", content)
    with pytest.raises(DataError, match="base/0/faithfulness lacks agreement"):
        faithfulness("base", PROFILE, 1)
    full.save("clip-ft/1/faithfulness", record({}, {}) | {"n_captions": 3})
    with pytest.raises(DataError, match="clip-ft: its seeds scored different captions"):
        faithfulness("clip-ft", PROFILE, 3)
