"""Runs of the smoke profile, from a random base to stored tables; names, variants and controls."""

import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import save_random

from cae_lib import keys, measuring, results, runs
from cae_lib.attribution import get_method
from cae_lib.cli import main
from cae_lib.data.training_set import training_set
from cae_lib.errors import CheckpointError, ConfigError, DataError
from cae_lib.evaluation.encoder import Encoder
from cae_lib.models.checkpoint import read_meta
from cae_lib.models.clip import load_clip
from cae_lib.profiles import PROFILES, experiment, find_profile
from cae_lib.runs import checkpoint_path, is_run
from cae_lib.variants import (
    ablations,
    base_variants,
    find_variant,
    parse_run_name,
    parse_setting,
    run_name,
    study_runs,
)


def test_before_the_data_are_built_a_training_says_how_to_build_them(home, capsys):
    def said(profile: str) -> str:
        assert main(["train", "clip-ft", "--profile", profile]) == 2
        return capsys.readouterr().err

    assert "`python -m data.recipes.base --profile smoke`" in said("smoke"), "no base is shipped"
    save_random(checkpoint_path("base", "smoke"), seed=3)
    for profile in ("smoke", "mini", "photo"):
        assert find_profile(profile).build_command in said(profile)


def link_world(home: Path, smoke_world: Path) -> None:
    (home / "data").mkdir()
    (home / "data" / "raw").symlink_to(smoke_world.parent)


@pytest.fixture(scope="module")
def trained(smoke_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a smoke world with an untrained base and one CAE run of seed 0."""
    home = tmp_path_factory.mktemp("home")
    link_world(home, smoke_world)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAE_HOME", str(home))
        save_random(checkpoint_path("base", "smoke"), seed=3)
        runs.train_run("cae-attention", "smoke")
        measuring.measure_run("cae-attention", "smoke", only=["benchmarks", "retrieval"])
        measuring.measure_data("smoke")
    return home


@pytest.fixture
def at_home(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAE_HOME", str(trained))
    return trained


def test_a_run_is_trained_again_once_an_input_is_another(smoke_world, home, monkeypatch, capsys):
    world = home / "data" / "raw" / "world-smoke"
    world.mkdir(parents=True)
    (world / "coco").symlink_to(smoke_world / "coco")
    shutil.copy(smoke_world / "manifest.json", world)
    start = save_random(home / "data" / "start.safetensors", seed=3)
    training_set.cache_clear()

    def train(**settings) -> str:
        """Train, and return what was printed: nothing if the run was found."""
        given = {"weights": "start.safetensors", "steps": 1, "batch_size": 4} | settings
        runs.train_run("clip-ft", "smoke", **given)
        return capsys.readouterr().out

    assert "Training clip-ft" in train() and train() == ""
    (world / "manifest.json").write_text((world / "manifest.json").read_text() + " ")
    assert "other training data" in train() and train() == ""
    save_random(start, seed=4)
    assert "other first weights" in train() and train() == ""
    monkeypatch.setattr(keys, "TRAINING_VERSION", keys.TRAINING_VERSION + 1)
    assert "other training version" in train() and train() == ""
    assert "Training clip-ft+batch_size=4+lr=1e-05+steps=1" in train(lr=1e-5), "another run"
    monkeypatch.setattr(runs, "training_set", Mock(side_effect=RuntimeError("data were read")))
    assert train() == "", "a finished run is found without reading data"
    training_set.cache_clear()


def test_what_another_training_left_unfinished_stops_no_run(smoke_world, home, monkeypatch, capsys):
    link_world(home, smoke_world)
    training_set.cache_clear()
    settings = {"weights": None, "steps": 1, "batch_size": 4}
    path = runs.checkpoint_path("clip-ft", "smoke", **settings)
    left = path.with_name("state.pt")
    path.parent.mkdir(parents=True)
    torch.save({"identity": {"training version": "older"}}, left)
    assert runs.train_run("clip-ft", "smoke", **settings) == path and not left.exists()
    assert "state.pt is out of date: other settings" in capsys.readouterr().out
    identity = read_meta(path).extra["identity"]
    torch.save({"weight": torch.zeros(2)}, left)
    path.unlink()
    with pytest.raises(CheckpointError, match="no state of a training"):
        runs.train_run("clip-ft", "smoke", **settings)
    torch.save({"identity": identity}, left)
    monkeypatch.setattr("cae_lib.training.trainer.train", lambda *_, **__: left.exists())
    assert runs.train_run("clip-ft", "smoke", **settings), "its own state is gone on with"
    training_set.cache_clear()


def test_every_benchmark_of_the_world_is_measured_completely(at_home):
    answers = results.load("benchmarks", "smoke", ["cae-attention"])
    assert {
        "aro",
        "winoground",
        "sugarcrepe",
        "vl_checklist",
        "valse",
        "svo_probes",
        "crepe",
    } <= set(answers["family"])
    keys = ["family", "subset", "item"]
    items = results.load("items", "smoke", [results.DATA_RUN])
    pd.testing.assert_frame_equal(answers[keys], items[keys])
    known = results.load("subsets", "smoke").query("suite == 'benchmarks'")
    assert len(known) and (known["n_used"] == known["n_expected"]).all()


@pytest.mark.parametrize("profile", ["smoke", "paper"])
def test_an_unknown_suite_is_refused_for_generated_and_for_real_data(home, profile):
    with pytest.raises(ConfigError, match="no-suite"):
        measuring.measure_model("clip-ft", profile, only=["no-suite"])


def test_a_measurement_stays_until_the_version_of_its_suite_is_raised(at_home, monkeypatch):
    fail = Mock(side_effect=RuntimeError("measured again"))
    monkeypatch.setattr("cae_lib.evaluation.suites.Suite.__call__", fail)
    measuring.measure_run(
        "cae-attention", "smoke", remeasure=True, only=["benchmarks", "retrieval"]
    )
    monkeypatch.setattr("cae_lib.evaluation.items.data_tables", fail)
    measuring.measure_data("smoke", remeasure=True)
    with pytest.raises(CheckpointError, match="train the model first"):
        measuring.measure_run("clip-ft", "smoke")
    raised = keys.SUITE_VERSIONS | {"retrieval": 2}
    monkeypatch.setattr(keys, "SUITE_VERSIONS", raised)
    measuring.measure_run("cae-attention", "smoke", only=["benchmarks"])
    with pytest.raises(RuntimeError, match="measured again"):
        measuring.measure_run("cae-attention", "smoke", only=["retrieval"])


def test_known_texts_are_answered_without_the_model(home, monkeypatch):
    clip, texts = load_clip("clip-mini", seed=3), ["a dog", "a red hat", "a cat"]
    encoder, expected = Encoder(clip, "smoke"), Encoder(clip).encode_texts(texts)
    np.testing.assert_array_equal(encoder.encode_texts(texts), expected)
    asked = Mock(side_effect=RuntimeError("the model was asked"))
    monkeypatch.setattr("cae_lib.evaluation.encoder.text_encoder", asked)
    np.testing.assert_array_equal(encoder.encode_texts(["a cat", "a dog"]), expected[[2, 0]])
    with pytest.raises(RuntimeError, match="asked"):
        encoder.encode_texts(["a dog", "a new text"])


def test_a_variant_has_files_and_tables_of_its_own(at_home):
    settings, name = {"lr": 1e-5, "steps": 1}, "cae-attention+lr=1e-05+steps=1"
    checkpoint = runs.train_run("cae-attention", "smoke", **settings)
    assert checkpoint.parent.name == experiment("cae-attention", "smoke", **settings).key()
    measuring.measure_run("cae-attention", "smoke", only=["similarity"], **settings)
    rows = results.index_of("similarity", "smoke")[name, 0]
    assert settings.items() <= rows.provenance["settings"].items()
    with pytest.raises(DataError, match=r"nothing is stored for 'cae-attention\+lr=1e-05"):
        results.load("benchmarks", "smoke", [name])


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ({"steps": 100, "batch_size": 64, "warmup": 10}, "cae-gradcam+short"),
        ({"steps": 100, "scope": "word"}, "cae-gradcam+scope=word+steps=100"),
        ({"weights": "mini/base-600.safetensors"}, "cae-gradcam+base=600"),
        ({"weights": None, "lr": 0.1 + 0.2}, "cae-gradcam+lr=0.30000000000000004+weights=None"),
        ({"weights": "other/base.safetensors"}, "cae-gradcam+weights=other%2Fbase.safetensors"),
        ({"betas": (0.9, 0.99)}, "cae-gradcam+betas=%280.9%2C%200.99%29"),
        ({"attribution": (("start_layer", -1),)}, "cae-gradcam+start_layer=-1"),
        ({"attribution": ()}, "cae-binding+samples=default"),
        ({"attribution": (("exchange", "any"),)}, "cae-binding+exchange=any+samples=default"),
        ({"attribution": (("samples", None),)}, "cae-binding+samples=None"),
        ({"attribution": (("samples", 1), ("swap", "noun"))}, "dependency-binding+swap=noun"),
        ({"method": "attention", "attribution": (("layers", (0, 1)),)},
         "cae-gradcam+layers=%280%2C%201%29+method=attention"),
    ],
)  # fmt: skip
def test_the_name_of_a_variant_says_all_its_settings_and_is_read_back(overrides: dict, name: str):
    run = name.partition("+")[0]
    assert run_name(run, "mini", **overrides) == name
    assert run_name(run, "mini", **dict(reversed(overrides.items()))) == name
    parsed, settings = parse_run_name(name, "mini")
    expected = experiment(run, "mini", **overrides)
    assert parsed == run and experiment(run, "mini", **settings) == expected


def test_an_unknown_parameter_in_a_name_is_refused():
    for name in ("cae-gradcam+startlayer=1", "clip-ft+samples=1", "base+samples=1"):
        with pytest.raises(ConfigError, match="expected a setting"):
            parse_run_name(name, "mini")


@pytest.mark.parametrize(
    ("name", "chosen", "settings"),
    [
        ("cae-gradcam+short+scope=word", "paper", {"steps": 427, "scope": "word"}),
        ("base+steps=600", "mini", {"weights": "mini/base-600.safetensors"}),
        ("clip-ft", "mini", {}),
    ],
)
def test_runs_of_the_studies_are_found_by_name(name: str, chosen: str, settings: dict):
    row, found = parse_run_name(name, chosen)
    assert (row, found) == (name.partition("+")[0], settings)
    assert run_name(row, chosen, **settings) == name


def test_values_are_read_as_python_reads_them():
    values = {"lr=0x10": 16.0, "lr=1": 1.0, "weights={[]: 1}": "{[]: 1}"}
    values |= {
        "further_methods={'gradcam': 0.1}": (("gradcam", 0.1),),
        "swapped=['left', 'right']": ("left", "right"),
    }
    for text, value in values.items():
        assert parse_setting(*text.split("=", 1)) == value


def test_a_path_with_a_plus_is_no_run():
    assert not is_run("c++/model.pt", "mini")
    assert parse_run_name("c++/model.pt", "mini") == ("c++/model.pt", {})
    assert is_run("clip-ft+lr=5e-07+steps=100", "mini")


@pytest.mark.parametrize(
    ("name", "settings", "found"),
    [
        ("cae-gradcam", {"weight": 0.3}, "cae-gradcam+weight=0.3"),
        ("cae-gradcam+weight=0.3", {"weight": 0.1}, "cae-gradcam"),
        ("cae-gradcam+weight=0.3", {"steps": 50}, "cae-gradcam+steps=50+weight=0.3"),
        ("cae-gradcam", find_profile("mini").short, "cae-gradcam+short"),
        (
            "cae-gradcam+short+second_order=False",
            {"weight": 0.1},
            "cae-gradcam+short+second_order=False",
        ),
        ("base", {}, "base"),
        ("base+steps=600", {}, "base+steps=600"),
    ],
)
def test_a_setting_that_a_run_has_already_is_no_part_of_its_name(name, settings, found):
    assert find_variant(name, "mini", **settings).name("mini") == found


@pytest.mark.parametrize("name", [name for name in PROFILES if PROFILES[name].short])
def test_each_ablation_varies_one_setting_and_no_two_variants_share_files(name: str):
    for run in ("clip-ft", "cae-gradcam"):
        reference, *others = [v.settings for v in ablations(name) if v.run == run]
        assert reference == find_profile(name).short and len(others) >= (run == "cae-gradcam")
        for settings in others:
            changed = settings.items() - reference.items() - {("lock_image", False)}
            for key, value in changed or {("lock_image", False)}:
                assert getattr(experiment(run, name, **reference), key) != value
            assert len(changed) < 2
            get_method("gradcam", **dict(experiment(run, name, **settings).attribution))
    variants = {v.name(name): v for v in (*ablations(name), *base_variants(name))}
    places = {checkpoint_path(v.run, name, **v.settings) for v in variants.values()}
    assert len(places) == len(variants)
    assert all("/" not in label and " " not in label for label in variants)


def test_a_run_of_both_studies_is_one_run_with_all_its_seeds():
    found = study_runs("mini")
    places = {checkpoint_path(v.run, "mini", seed, **v.settings) for v, seed in found}
    # Three bases, two runs from each, two seeds; 14 ablations less the reference in common; four
    # weights of four methods, of one of them three seeds.
    assert len(places) == len(found) == 3 * 2 * 2 + 14 - 1 + 4 * (3 + 3)
    assert [seed for v, seed in found if v.name("mini") == "clip-ft+short"] == [0, 1]
    # No profile without a locked image tower has the two runs that open it.
    assert len(study_runs("paper")) == 14 - 2 and base_variants("paper") == []
    assert study_runs("photo") == [], "no short settings, no studies"


def test_controls_are_the_same_weights_read_with_gelu(home: Path, smoke_world: Path, monkeypatch):
    link_world(home, smoke_world)
    projections = []
    for seed, name in enumerate(("base", "clip-ft")):
        save_random(checkpoint_path(name, "smoke"), seed)
        visual = load_clip("clip-mini", seed=seed).model.visual
        projections.append(float(visual.proj.detach().sum()))
    seen = []

    def measure(encoder, profile_name: str) -> dict[str, pd.DataFrame]:
        seen.append(encoder.clip.activation)
        total = float(encoder.clip.model.visual.proj.detach().sum())
        return {"retrieval": pd.DataFrame({"sum": [total]})}

    monkeypatch.setattr("cae_lib.evaluation.suites.Suite.__call__", lambda _, *args: measure(*args))
    monkeypatch.setattr(measuring, "GELU_SUITES", ("retrieval",))
    controls = ["base-gelu", "clip-ft-gelu"]
    for name in (*controls, *controls):  # nothing is measured twice
        measuring.measure_run(name, "smoke")
    assert seen == ["gelu", "gelu"]
    sums = results.load("retrieval", "smoke", controls)["sum"]
    assert sums.tolist() == pytest.approx(projections)
    with pytest.raises(CheckpointError, match="train the model first"):
        measuring.measure_run("clip-ft-gelu", "smoke", 1)
    measuring.measure_run("base", "smoke", only=["retrieval"])
    assert seen == ["gelu", "gelu", "quickgelu"], "another key than the control's"


def test_a_model_is_checked_before_data_are_read(home, monkeypatch, capsys):
    read = Mock(side_effect=RuntimeError("data were read"))
    monkeypatch.setattr("cae_lib.evaluation.datasets.load_benchmarks", read)
    file = home / "model.pt"
    torch.save({}, file)
    for words, message in (
        ([str(file), "--model", "ViT-B-32"], "does not say its activation"),
        ([str(file), "--model", "ViT-B-33", "--activation", "gelu"], "'ViT-B-33'"),
        (["ViT-B-33:openai"], "'ViT-B-33'"),
        ([str(home / "absent.pt")], "absent.pt"),
        (["clip-ft", "--seed", "5", "--profile", "smoke"], "clip-ft/5/model.safetensors"),
    ):
        assert main(["evaluate", *words, "--only", "sugarcrepe"]) == 2
        assert message in capsys.readouterr().err
