"""Results that are loaded or computed: what is stored is read, all else is trained and measured
once, and stored beside the published tables."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pandas as pd
import pytest
from conftest import save_random

from cae_lab import measuring, results, store
from cae_lab.profiles import load_profile
from cae_lab.runs import Run
from cae_lab.suites import SUITES, Suite
from cae_lib.errors import CheckpointError, ConfigError, DataError, TimeLimitError
from cae_lib.training import inputs

FRAME = pd.DataFrame({"item": [0, 1], "correct": [True, False]})


SMOKE = load_profile("smoke")


def publish(name: str, seed: int, table: str = "retrieval") -> None:
    """Store rows of a run as those that come with a clone."""
    run = SMOKE.run(name, seed)
    provenance = {
        "suite": table,
        "version": SUITES[table].version,
        "training": inputs.TRAINING_VERSION,
        **run.described(),
    }
    path = store.save(table, SMOKE, name, seed, FRAME, key="published", provenance=provenance)
    store.pack(SMOKE, [(name, seed)])
    path.unlink()


@pytest.fixture
def measured(smoke_home: Path, monkeypatch) -> Iterator[Mock]:
    """A suite's measurement that takes no time, and knows how often it was called; the training
    takes one step."""
    measure = Mock(side_effect=lambda encoder, profile: FRAME)
    monkeypatch.setattr(Suite, "__call__", lambda self, *settings: measure(*settings))
    return measure


def compute(run: str = "cae-gradcam", seeds: object = (7,), **options: object) -> pd.DataFrame:
    settings = {"compute": True, "steps": 1, "batch_size": 4} | options
    return results.load("retrieval", "smoke", [run], seeds, **settings)


def test_a_run_with_another_setting_is_computed_once_and_then_found(measured, capsys):
    frame = compute(weight=0.25)
    name = "cae-gradcam+batch_size=4+steps=1+weight=0.25"
    assert f"Training {name}, seed 7: 1 steps of 4" in capsys.readouterr().out
    assert set(frame["run"]) == {name} and set(frame["seed"]) == {7} and measured.call_count == 1
    pd.testing.assert_frame_equal(compute(weight=0.25), frame)
    pd.testing.assert_frame_equal(compute(name), frame)
    assert measured.call_count == 1 and "Training" not in capsys.readouterr().out
    load_profile("smoke").run("cae-gradcam", 7, steps=1, batch_size=4, weight=0.25).path.unlink()
    pd.testing.assert_frame_equal(compute(weight=0.25), frame)
    assert measured.call_count == 1, "the weights are not asked for"


def test_a_control_that_reads_weights_with_gelu_is_computed_once(measured):
    compute("clip-ft-gelu")
    weights = load_profile("smoke").run("clip-ft-gelu", 7, steps=1, batch_size=4).path
    weights.unlink()
    compute("clip-ft-gelu")
    assert measured.call_count == 1 and not weights.exists(), "neither measured nor trained anew"


@pytest.mark.parametrize(
    "other",
    [
        {"weight": 0.5},
        {"margin": 0.1},
        {"method": "attention"},
        {"seeds": [8]},
        {"run": "clip-ft"},
        {"negatives": True},
        {"steps": 2},
    ],
)
def test_each_setting_is_a_run_of_its_own(measured, other):
    before, after = compute(), compute(**other)
    assert measured.call_count == 2
    assert not set(zip(before["run"], before["seed"], strict=True)) & set(
        zip(after["run"], after["seed"], strict=True)
    )


def test_published_tables_are_read_and_never_changed(measured):
    """Neither the settings that a run has already nor `compute` make another one of it."""
    publish("cae-gradcam", 0)
    path = store.packed_path("retrieval", SMOKE)
    before = path.read_bytes()
    configured = {"steps": 3, "batch_size": 16, "weight": 1.0}
    assert set(compute(seeds=1, **configured)["run"]) == {"cae-gradcam"}
    assert not measured.called
    with pytest.raises(DataError, match=r"seeds \[1\] .*cae reproduce"):
        results.load("retrieval", "smoke", ["cae-gradcam"], [0, 1])
    frame = compute(seeds=[0, 1], **configured)
    assert frame["seed"].unique().tolist() == [0, 1] and measured.call_count == 1
    assert compute(seeds=2, **configured)["seed"].unique().tolist() == [0, 1]
    assert path.read_bytes() == before and measured.call_count == 1
    keys = results.provenance_table("smoke").set_index("seed")["key"]
    assert keys[0] == "published" != keys[1]


CHANGES = {
    "weight was 1.0, is 0.5": lambda patch: patch.setitem(
        load_profile("smoke").runs["cae-gradcam"], "weight", 0.5
    ),
    "lr was 0.0003, is 0.01": lambda patch: patch.setitem(
        load_profile("smoke").training, "lr", 0.01
    ),
    "attribution was .*, is .*start_layer": lambda patch: patch.setitem(
        load_profile("smoke").runs["cae-gradcam"], "attribution", (("start_layer", 1),)
    ),
    "version of training": lambda patch: (
        patch.setattr(inputs, "TRAINING_VERSION", 99),
        patch.setattr(store, "TRAINING_VERSION", 99),
        patch.setattr(measuring, "TRAINING_VERSION", 99),
    ),
    "version of retrieval": lambda patch: patch.setitem(
        SUITES, "retrieval", replace(SUITES["retrieval"], version=99)
    ),
    "version of scene-graph": lambda patch: patch.setattr(
        inputs, "TAGGER_VERSIONS", inputs.TAGGER_VERSIONS | {"scene-graph": 99}
    ),
    "version of another text was None, is 1": lambda patch: [
        patch.setattr(f"{module}.text_versions", lambda config: READ(config) | {"another text": 1})
        for module in ("cae_lib.training.inputs", "cae_lab.runs", "cae_lab.store")
    ],
}
READ = inputs.text_versions


@pytest.mark.parametrize("message", CHANGES)
def test_stored_rows_are_used_only_while_their_settings_and_versions_are_the_runs(
    message: str, measured, monkeypatch
):
    """Without `compute` the error says what has changed; with it, the run is measured anew."""
    publish("cae-gradcam", 0)
    settings_of_run = {"steps": 3, "batch_size": 16}  # so that this is the published run
    assert len(compute(seeds=1, **settings_of_run)) == len(FRAME) and not measured.called
    CHANGES[message](monkeypatch)
    for runs in (["cae-gradcam"], None):
        with pytest.raises(DataError, match=f"cae-gradcam, seed 0, is out of date: {message}.*cae"):
            results.load("retrieval", "smoke", runs)
    assert not results.provenance_table("smoke")["current"].any()
    compute(seeds=1, **settings_of_run), compute(seeds=1, **settings_of_run)
    assert measured.call_count == 1


def test_a_setting_that_is_asked_for_is_not_answered_by_rows_of_another(measured, monkeypatch):
    publish("cae-gradcam", 0)
    monkeypatch.setitem(load_profile("smoke").runs["cae-gradcam"], "weight", 0.5)
    assert set(compute(seeds=1, steps=3, batch_size=16, weight=0.5)["run"]) == {"cae-gradcam"}
    assert measured.call_count == 1


def test_a_parameter_that_is_left_out_makes_another_run(measured):
    publish("cae-binding", 0)
    frame = compute("cae-binding", seeds=1, steps=3, batch_size=16, attribution=())
    assert set(frame["run"]) == {"cae-binding+samples=default"} and measured.call_count == 1


def test_weights_of_other_settings_are_not_measured(smoke_home: Path, monkeypatch):
    run = SMOKE.run("cae-gradcam", steps=1)
    path = run.train()
    other = SMOKE.run("cae-gradcam")
    other.path.parent.mkdir(parents=True)
    path.rename(other.path)
    with pytest.raises(CheckpointError, match="other settings.*cae train cae-gradcam"):
        measuring.measure(other, [SUITES["retrieval"]])


def test_nothing_is_computed_unless_it_is_asked_for(measured, monkeypatch):
    train = Mock(side_effect=RuntimeError("trained"))
    monkeypatch.setattr(Run, "train", train)
    for options in ({}, {"weight": 0.5}):
        with pytest.raises(DataError, match="cae-gradcam.*cae reproduce --profile smoke"):
            results.load("retrieval", "smoke", ["cae-gradcam"], 1, **options)
    with pytest.raises(DataError, match="nothing is stored"):
        results.load("retrieval", "smoke")
    with pytest.raises(RuntimeError, match="trained"):
        compute()


def test_what_is_stored_is_computed_anew_once_its_key_is_another(measured, monkeypatch, home):
    compute()
    monkeypatch.setitem(SUITES, "retrieval", replace(SUITES["retrieval"], version=2))
    compute(), compute()
    assert measured.call_count == 2
    save_random(load_profile("smoke").run("base").path, seed=4)
    compute(), compute()
    assert measured.call_count == 3


def test_the_base_model_and_the_tables_of_the_data_are_computed_as_well(measured):
    frame = results.load("retrieval", "smoke", ["base"], 3, compute=True)
    assert set(frame["run"]) == {"base"} and set(frame["seed"]) == {0}
    items = results.load("items", "smoke", [results.DATA_RUN], compute=True)
    assert {"aro", "crepe"} <= set(items["family"])
    assert not SMOKE.records.exists() and measured.call_count == 1


def test_what_is_wrong_is_said_before_anything_is_trained(measured, monkeypatch):
    monkeypatch.setattr(Run, "train", Mock(side_effect=RuntimeError("trained")))
    for options, message in (
        ({"run": "cae-gradcm"}, "unknown experiment"),
        ({"wieght": 1.0}, "unknown setting 'wieght'"),
        ({"weight": "much"}, "weight is 'much'"),
    ):
        with pytest.raises(ConfigError, match=message):
            compute(**options)
    with pytest.raises(DataError, match="nothing is stored"):
        results.load("blind spots", "smoke", ["clip-ft"], 1, compute=True)
    with pytest.raises(DataError):
        results.load("retrieval", "smoke", [], 1, compute=True)


@pytest.mark.parametrize("options", [{"compute": True}, {"weight": 0.5}])
def test_compute_and_settings_need_named_runs(smoke_home: Path, options: dict):
    publish("cae-gradcam", 0)
    assert len(results.load("retrieval", "smoke")) == len(FRAME)
    with pytest.raises(ConfigError, match="runs"):
        results.load("retrieval", "smoke", **options)


def test_a_run_that_takes_too_long_is_refused_and_may_be_allowed(measured):
    """However fast the machine: the limit is a nanosecond."""
    with pytest.raises(TimeLimitError, match="hours="):
        compute(steps=4, hours=1e-12)
    assert not measured.called
    assert len(compute(steps=4, hours=None)) == len(FRAME)
