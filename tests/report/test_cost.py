"""Ratios, targets and words of the page `cost`, from records made up by hand."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from cae_lib.errors import DataError
from cae_lib.records import Record, save_record
from cae_lib.report import cost
from cae_lib.report.cost import SCORES, STEP, candidates, ratio, seconds, stored
from cae_lib.report.cost_figures import step_bars
from cae_lib.report.cost_profiles import reasons
from cae_lib.report.cost_tables import (
    conditions,
    memory_table,
    score_table,
    step_table,
    target_table,
)
from cae_lib.report.cost_targets import Target, verdict
from cae_lib.report.figure import MOST_BYTES

GAP = "\N{NO-BREAK SPACE}"
STEPS = {"open_clip": 10.0, "clip-ft": 6.0, "attention": 6.12, "gradcam": 7.0, "perturbation": 7.5,
         "gradient": 7.0, "plain-gradcam": 24.0, "plain-perturbation": 37.5,
         "images": 5.0, "images-open_clip": 6.0}  # fmt: skip
CONFIG = {"model": "ViT-B-32", "batch": 2, "rounds": 3, "device": "cpu", "threads": 1,
          "clock": "wall", "captions": "some.tsv", "precision": "float32"}  # fmt: skip
PROVENANCE = {"device": "A processor, 2 threads", "tree": "0" * 40}


def profile(total: float, size: int) -> dict:
    operators = [{"name": f"aten::op{i}", "seconds": total / 2**i, "calls": i}
                 for i in range(1, 11)]  # fmt: skip
    return {"bytes": size, "seconds": total, "phases": {"forward": total / 4},
            "operators": operators}  # fmt: skip


@pytest.fixture
def steps() -> Record:
    """Three rounds; the machine is twice as slow in the second, half as fast in none."""
    rounds = [{name: slow * value for name, value in STEPS.items()} for slow in (1.0, 2.0, 1.0)]
    rounds[0]["attention"] = 6.0
    rounds[2]["attention"] = 6.3
    del rounds[2]["plain-perturbation"]
    return Record(STEP, "0" * 12, CONFIG, {
        "rounds": rounds,
        "lengths": [[9, 14], [11, 12], [8, 20]],
        "profiles": {name: profile(value, int(1e9)) for name, value in STEPS.items()},
        "fixed_bytes": int(2e9),
        "equal": {"gradcam": {"scores": 3e-7}, "perturbation": {"scores": 1e-6}},
        "n_checked": 2, "n_captions": 6,
    }, PROVENANCE)  # fmt: skip


@pytest.fixture
def scores() -> Record:
    times = {"perturbation": 1.0, "captum": 8.0, "captum-all-words": 6.0,
             "captum-by-caption": 4.0, "gradcam": 2.0, "plain-gradcam": 5.0}  # fmt: skip
    return Record(SCORES, "0" * 12, CONFIG, {
        "rounds": [times, dict(times, captum=10.0)], "lengths": [[9, 14], [11, 12]],
        "equal": {"captum": {"scores": 2e-7}}, "n_checked": 2, "n_captions": 4,
    }, PROVENANCE)  # fmt: skip


def changed(record: Record, **seconds_of: float) -> Record:
    """The record with other seconds of some candidates in every round."""
    copied = copy.deepcopy(record)
    for one in copied.results["rounds"]:
        one.update({name.replace("_", "-"): value * one["clip-ft"] / 6
                    for name, value in seconds_of.items()})  # fmt: skip
    return copied


def test_ratios_are_taken_within_rounds(steps):
    assert ratio(steps, "clip-ft", "open_clip") == cost.Spread(0.6, 0.6, 0.6, 3)
    spread = ratio(steps, "attention", "clip-ft")
    assert (spread.median, spread.low, spread.n) == (pytest.approx(1.02), 1.0, 3)
    assert spread.high == pytest.approx(1.05) and spread.text() == f"1.02 [1.00,{GAP}1.05]"
    plain = ratio(steps, "plain-perturbation", "perturbation")
    assert (plain.median, plain.n) == (5.0, 2), "the third round lacks it"
    assert seconds(steps, "open_clip") == cost.Spread(10.0, 10.0, 20.0, 3)


def test_all_targets_are_judged_from_the_record(steps):
    rows = {row[0]: row[1:] for row in target_table(steps).rows}
    assert len(rows) == 14 and {row[-1] for row in rows.values()} == {"yes"}
    assert rows["(g) plain CAE, GradCAM ÷ (d) CAE, GradCAM"][:2] == ["at least 2.5",
        f"3.43 [3.43,{GAP}3.43]"]  # fmt: skip
    assert rows["memory, (d) CAE, GradCAM ÷ (b) CLIP-FT"] == ["at most 1.5", "1.00", "yes"]
    assert verdict(steps, STEP).source == "Of 14 targets set beforehand, 14 are met."
    assert reasons(steps).source == "No target is missed."


def test_missed_targets_are_named_with_their_profile(steps):
    worse = changed(steps, gradcam=9.3, plain_perturbation=18.0)
    worse.results["profiles"]["gradient"]["bytes"] = int(2.6e9)  # (2 + 2.6) / (2 + 1) > 1.5
    missed = [row[0] for row in target_table(worse).rows if row[-1] != "yes"]
    assert missed == ["(d) CAE, GradCAM ÷ (b) CLIP-FT",
                      "(g) plain CAE, perturbation ÷ (e) CAE, perturbation",
                      "memory, (f) CAE, gradient ÷ (b) CLIP-FT"]  # fmt: skip
    text = verdict(worse, STEP).source
    assert text.startswith("Of 14 targets set beforehand, 11 are met. Missed: (d) CAE, GradCAM")
    assert "(1.55, at most 1.2)" in text and "(2.40, at least 2.5)" in text
    shown = reasons(worse).source
    assert [shown.count(f"tab-operators-{name}\n") for name in
            ("clip-ft", "gradcam", "perturbation", "gradient")] == [1] * 4  # fmt: skip
    assert "tab-operators-plain-perturbation" not in shown, "the slow step is shown, not the plain"
    assert "tab-operators-attention" not in shown
    assert "| *forward* | 1.75 | 25 | – |" in shown and "`aten::op8`" in shown
    assert "`aten::op9`" not in shown, "eight operators are enough"


def test_a_limit_is_kept_when_it_is_just_reached(steps):
    most = Target("perturbation", "clip-ft", 1.25)
    assert most.met(most.found(steps))
    least = Target("plain-perturbation", "perturbation", 5.0, at_least=True)
    assert least.met(least.found(steps))
    assert not Target("perturbation", "clip-ft", 1.24).met(most.found(steps))


def test_what_was_not_measured_is_not_judged(steps):
    partial = copy.deepcopy(steps)
    for one in partial.results["rounds"]:
        one.pop("plain-perturbation", None)
    for one in (partial.results["rounds"], [partial.results["profiles"]]):
        for place in one:
            place.pop("attention")
    rows = {row[0]: row for row in target_table(partial).rows}
    assert rows["(c) CAE, attention ÷ (a) open_clip"][2:] == ["not measured", "–"]
    assert rows["memory, (c) CAE, attention ÷ (b) CLIP-FT"][2] == "not measured"
    assert verdict(partial, STEP).source == (
        "Of 10 targets set beforehand, 10 are met. 4 targets could not be judged: not measured."
    )
    assert [row[0] for row in step_table(partial).rows][2] == "(d) CAE, GradCAM"


def test_the_step_table(steps):
    rows = {row[0]: row[1:] for row in step_table(steps).rows}
    assert list(rows) == [cost.LABELS[name] for name in candidates(steps)]
    assert rows["(b) CLIP-FT"] == [f"6.0 [6.0,{GAP}12.0]", "0.60", "1.00", f"1.0 [1.0,{GAP}2.0]"]
    assert rows["(c) CAE, attention"][2] == f"1.02 [1.00,{GAP}1.05]"
    assert rows["(g) plain CAE, GradCAM"][3] == f"18.0 [18.0,{GAP}36.0]", "24 less open_clip's 6"
    assert rows["image encoder alone, in (a) and (g)"][3] == "–"
    assert "3 rounds ((g) plain CAE, perturbation: 2)" in step_table(steps).caption


def test_the_memory_table(steps):
    steps.results["profiles"]["gradcam"]["bytes"] = int(1.6e9)
    rows = {row[0]: row[1:] for row in memory_table(steps).rows}
    assert rows["(b) CLIP-FT"] == ["3.00", "1.00", "1.00", "1.00"]
    assert rows["(d) CAE, GradCAM"] == ["3.60", "1.20", "1.60", "1.60"]


def test_a_missed_speed_up_is_weighed_against_the_image_encoder(steps):
    worse = changed(steps, plain_gradcam=16.0)
    text = reasons(worse).source
    assert "(d) CAE, GradCAM: the image encoder alone takes 5.00 of the step's 7.00 seconds" in text
    assert "more than 3.20 times as fast as (g) plain CAE, GradCAM" in text
    assert "10.00 seconds stand against 2.00." in text
    for one in worse.results["rounds"]:
        del one["images"]
    assert "the image encoder was not measured alone" in reasons(worse).source


def test_the_conditions_are_those_of_the_record(steps, scores):
    text = conditions(steps).source
    assert "A processor, 1 thread, in float32: ViT-B-32" in text
    assert "2 captions a batch, 3 rounds" in text and "The 6 captions come from `some.tsv`" in text
    assert "8 to 20 tokens (median 11.5)" in text and "the longest of a batch 12 to 20" in text
    assert "(d) CAE, GradCAM 3e-07, (e) CAE, perturbation 1e-06." in text
    assert "seconds of the processor" not in text
    other = Record(SCORES, "", CONFIG | {"clock": "cpu"}, scores.results, PROVENANCE)
    assert "seconds of the processor" in conditions(other).source
    assert "captum, one word a pass 2e-07." in conditions(other).source


def test_scores_are_compared_with_ours(scores):
    table = score_table(scores)
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["captum, one word a pass"] == ["perturbation", f"9.00 [8.00,{GAP}10.00]",
                                               f"9.00 [8.00,{GAP}10.00]"]  # fmt: skip
    assert rows["the T × T rule, 77 tokens"][0] == "GradCAM"
    assert rows["the T × T rule, 77 tokens"][2] == "2.50"
    assert "Scoring 2 captions" in table.caption
    missed = [row[0] for row in target_table(scores).rows if row[-1] != "yes"]
    assert missed == ["captum, caption by caption ÷ perturbation"]
    assert "2 are met. Missed: captum, caption by caption ÷ perturbation (4.00, at least 5)" in (
        verdict(scores, SCORES).source
    )


def test_the_figure_tells_the_ratios(steps):
    figure = step_bars(steps)
    assert len(figure.png) <= MOST_BYTES
    assert "(b) CLIP-FT 0.60 [0.60," in figure.alt
    assert "(e) CAE, perturbation 0.75 [0.75," in figure.alt
    assert "alone" not in figure.alt
    for one in steps.results["rounds"]:
        del one["open_clip"]
    assert "no step of open_clip" in step_bars(steps).source


def test_without_a_record_the_page_says_how_to_make_it(home: Path):
    assert stored(STEP) is None and stored(SCORES) is None
    assert "benchmarks.step_cost" in verdict(None, STEP).source
    assert "benchmarks.attribution_cost" in verdict(None, SCORES).source
    for shown in (step_bars(None), step_table(None), reasons(None)):
        assert "benchmarks.step_cost" in shown.source
    assert "benchmarks.attribution_cost" in score_table(None).source
    assert conditions(None).source == memory_table(None).source == target_table(None).source == ""


def test_a_record_is_found_whatever_the_profile_and_must_be_whole(home: Path, steps):
    save_record(steps, cost.PROFILE)
    assert stored(STEP).results == steps.results
    broken = {key: value for key, value in steps.results.items() if key != "profiles"}
    save_record(Record(STEP, "", CONFIG, broken | {"rounds": []}, {}), cost.PROFILE)
    with pytest.raises(DataError, match="lacks rounds, profiles: make it with .*step_cost"):
        stored(STEP)


@pytest.mark.parametrize("name", [STEP, SCORES])
def test_the_command_names_a_script_that_exists(name):
    module = cost.COMMANDS[name].split("-m ")[1].split()[0]
    repository = Path(__file__).resolve().parents[2]
    assert (repository / module.replace(".", "/")).with_suffix(".py").is_file()
