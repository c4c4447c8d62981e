"""Runs of the smoke profile, from a random base to stored tables; names, variants and controls."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import save_random

from cae_bench.encoder import Encoder
from cae_lab import measuring, results
from cae_lab.cli import main
from cae_lab.names import parse_setting
from cae_lab.profiles import PROFILES, load_profile
from cae_lab.runs import is_run, parse_name
from cae_lab.suites import SUITES, Suite, suites_of
from cae_lab.training_set import training_set
from cae_lib.attribution import get_method
from cae_lib.errors import CheckpointError, ConfigError, DataError
from cae_lib.methods import PAPER_METHODS
from cae_lib.models.checkpoint import read_meta
from cae_lib.models.clip import load_clip
from cae_lib.training import inputs


def test_before_the_data_are_built_a_training_says_how_to_build_them(home, capsys):
    def error_of_training(profile: str) -> str:
        assert main(["train", "clip-ft", "--profile", profile]) == 2
        return capsys.readouterr().err

    assert "`python -m data.recipes.base --profile smoke`" in error_of_training("smoke"), (
        "no base is shipped"
    )
    save_random(load_profile("smoke").run("base").path, seed=3)
    for profile in ("smoke", "mini", "photo"):
        assert load_profile(profile).build_command in error_of_training(profile)


def measure(name: str, *suites: str, seed: int = 0, **options: bool) -> None:
    """Measure some suites of a run of the profile smoke, or all that belong to it."""
    run = load_profile("smoke").run(name, seed)
    measuring.measure(run, [SUITES[each] for each in suites] or suites_of(run), **options)


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
        save_random(load_profile("smoke").run("base").path, seed=3)
        load_profile("smoke").run("cae-attention").train()
        measure("cae-attention", "benchmarks", "retrieval")
        measuring.measure_data(load_profile("smoke"))
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
        settings_of_run = {"weights": "start.safetensors", "steps": 1, "batch_size": 4} | settings
        load_profile("smoke").run("clip-ft", **settings_of_run).train()
        return capsys.readouterr().out

    assert "Training clip-ft" in train() and train() == ""
    (world / "manifest.json").write_text((world / "manifest.json").read_text() + " ")
    assert "other training data" in train() and train() == ""
    save_random(start, seed=4)
    assert "other first weights" in train() and train() == ""
    monkeypatch.setattr(inputs, "TRAINING_VERSION", inputs.TRAINING_VERSION + 1)
    assert "other training version" in train() and train() == ""
    assert "Training clip-ft+batch_size=4+lr=1e-05+steps=1" in train(lr=1e-5), "another run"
    monkeypatch.setattr(
        "cae_lab.training_set.training_set", Mock(side_effect=RuntimeError("data were read"))
    )
    assert train() == "", "a finished run is found without reading data"
    training_set.cache_clear()


def test_what_another_training_left_unfinished_stops_no_run(smoke_world, home, monkeypatch, capsys):
    link_world(home, smoke_world)
    training_set.cache_clear()
    settings = {"weights": None, "steps": 1, "batch_size": 4}
    path = load_profile("smoke").run("clip-ft", **settings).path
    left = path.with_name("state.pt")
    path.parent.mkdir(parents=True)
    torch.save({"identity": {"training version": "older"}}, left)
    assert load_profile("smoke").run("clip-ft", **settings).train() == path and not left.exists()
    assert "state.pt is out of date: other settings" in capsys.readouterr().out
    identity = read_meta(path).extra["identity"]
    torch.save({"weight": torch.zeros(2)}, left)
    path.unlink()
    with pytest.raises(CheckpointError, match="no state of a training"):
        load_profile("smoke").run("clip-ft", **settings).train()
    torch.save({"identity": identity}, left)
    monkeypatch.setattr("cae_lib.training.trainer.train", lambda *_, **__: left.exists())
    assert load_profile("smoke").run("clip-ft", **settings).train(), "its own state is gone on with"
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


def test_a_measurement_stays_until_the_version_of_its_suite_is_raised(at_home, monkeypatch):
    fail = Mock(side_effect=RuntimeError("measured again"))
    monkeypatch.setattr("cae_lab.suites.Suite.__call__", fail)
    measure("cae-attention", "benchmarks", "retrieval", remeasure=True)
    monkeypatch.setattr("cae_lab.data_tables.data_tables", fail)
    measuring.measure_data(load_profile("smoke"), remeasure=True)
    with pytest.raises(CheckpointError, match="train the model first"):
        measure("clip-ft")
    monkeypatch.setitem(SUITES, "retrieval", replace(SUITES["retrieval"], version=2))
    measure("cae-attention", "benchmarks")
    with pytest.raises(RuntimeError, match="measured again"):
        measure("cae-attention", "retrieval")


def test_known_texts_are_answered_without_the_model(home, monkeypatch):
    clip, texts = load_clip("clip-mini", seed=3), ["a dog", "a red hat", "a cat"]
    encoder, expected = Encoder(clip, store_images=True), Encoder(clip).encode_texts(texts)
    np.testing.assert_array_equal(encoder.encode_texts(texts), expected)
    asked = Mock(side_effect=RuntimeError("the model was asked"))
    monkeypatch.setattr("cae_bench.encoder.text_encoder", asked)
    np.testing.assert_array_equal(encoder.encode_texts(["a cat", "a dog"]), expected[[2, 0]])
    with pytest.raises(RuntimeError, match="asked"):
        encoder.encode_texts(["a dog", "a new text"])


def test_a_variant_has_files_and_tables_of_its_own(at_home):
    settings, name = {"lr": 1e-5, "steps": 1}, "cae-attention+lr=1e-05+steps=1"
    checkpoint = load_profile("smoke").run("cae-attention", **settings).train()
    assert (
        checkpoint.parent.name
        == load_profile("smoke").experiment("cae-attention", **settings).key()
    )
    measure(name, "similarity")
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
    assert load_profile("mini").run(run, **overrides).name == name
    assert load_profile("mini").run(run, **dict(reversed(overrides.items()))).name == name
    read = load_profile("mini").run(name)
    assert read.config == load_profile("mini").experiment(run, **overrides) and read.name == name


def test_an_unknown_parameter_in_a_name_is_refused():
    for name in ("cae-gradcam+startlayer=1", "clip-ft+samples=1", "base+samples=1"):
        with pytest.raises(ConfigError, match="expected a setting"):
            load_profile("mini").run(name)


@pytest.mark.parametrize(
    ("name", "profile_name", "settings"),
    [
        ("cae-gradcam+short+scope=word", "paper", {"steps": 427, "scope": "word"}),
        ("base+steps=600", "mini", {"weights": "mini/base-600.safetensors"}),
        ("clip-ft", "mini", {}),
    ],
)
def test_runs_of_the_studies_are_found_by_name(name: str, profile_name: str, settings: dict):
    row, parsed = parse_name(load_profile(profile_name), name)
    assert (row, parsed) == (name.partition("+")[0], settings)
    assert load_profile(profile_name).run(name).name == name


def test_values_are_read_as_python_reads_them():
    values = {"lr=0x10": 16.0, "lr=1": 1.0, "weights={[]: 1}": "{[]: 1}"}
    values |= {
        "further_methods={'gradcam': 0.1}": (("gradcam", 0.1),),
        "swapped=['left', 'right']": ("left", "right"),
    }
    for text, value in values.items():
        assert parse_setting(*text.split("=", 1)) == value


def test_a_path_with_a_plus_is_no_run():
    assert not is_run("c++/model.pt", load_profile("mini"))
    assert parse_name(load_profile("mini"), "c++/model.pt") == ("c++/model.pt", {})
    assert is_run("clip-ft+lr=5e-07+steps=100", load_profile("mini"))


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("cae-gradcam", {"weight": 0.3}, "cae-gradcam+weight=0.3"),
        ("cae-gradcam+weight=0.3", {"weight": 0.1}, "cae-gradcam"),
        ("cae-gradcam+weight=0.3", {"steps": 50}, "cae-gradcam+steps=50+weight=0.3"),
        ("cae-gradcam", load_profile("mini").short, "cae-gradcam+short"),
        (
            "cae-gradcam+short+second_order=False",
            {"weight": 0.1},
            "cae-gradcam+short+second_order=False",
        ),
        ("base", {}, "base"),
        ("base+steps=600", {}, "base+steps=600"),
    ],
)
def test_a_setting_that_a_run_has_already_is_no_part_of_its_name(name, settings, expected):
    assert load_profile("mini").run(name, **settings).name == expected


@pytest.mark.parametrize("name", [name for name in PROFILES if PROFILES[name].variants])
def test_variants_vary_one_setting_and_no_two_share_files(name: str):
    profile = load_profile(name)
    variants = [profile.run(each) for each in profile.variants]
    assert [run.name for run in variants] == [*profile.variants], "as names are written"
    assert len({run.path for run in variants}) == len(variants)
    trained = [run.name for run in variants if run.is_trained_here]
    seeds = {profile.run(each, seed).path for each in trained for seed in (0, 1)}
    assert len(seeds) == 2 * len(trained)
    for run in variants:
        is_short = profile.short.items() <= dict(run.settings).items()
        changed = dict(run.settings).items() - (profile.short.items() if is_short else ())
        assert len(changed - {("lock_image", False)}) < 2, run.name
        if run.config.method:
            get_method(run.config.method, **dict(run.config.attribution))


def test_the_variants_of_smoke_are_those_of_mini() -> None:
    """Each value of mini has one of smoke, so that a smoke test does what the book does."""
    names = [
        [re.sub(r"=[\d.]+", "=", each) for each in load_profile(name).variants]
        for name in ("mini", "smoke")
    ]
    assert names[0] == names[1]


@pytest.mark.parametrize("name", ["mini", "smoke"])
def test_multiples_of_a_weight_are_those_of_its_run(name: str) -> None:
    profile = load_profile(name)
    for method in PAPER_METHODS:
        configured = profile.experiment(f"cae-{method}").weight
        multiples = [
            profile.run(each).config.weight / configured
            for each in profile.variants
            if each.startswith(f"cae-{method}+weight=")
        ]
        assert multiples == pytest.approx([0.1, 0.3, 3, 10])


def test_controls_are_the_same_weights_read_with_gelu(home: Path, smoke_world: Path, monkeypatch):
    link_world(home, smoke_world)
    projections = []
    for seed, name in enumerate(("base", "clip-ft")):
        save_random(load_profile("smoke").run(name).path, seed)
        visual = load_clip("clip-mini", seed=seed).model.visual
        projections.append(float(visual.proj.detach().sum()))
    seen = []

    def sum_of(_: Suite, encoder: Encoder, profile: object) -> pd.DataFrame:
        seen.append(encoder.clip.activation)
        return pd.DataFrame({"sum": [float(encoder.clip.model.visual.proj.detach().sum())]})

    monkeypatch.setattr(Suite, "__call__", sum_of)
    controls = ["base-gelu", "clip-ft-gelu"]
    for name in (*controls, *controls):  # nothing is measured twice
        measure(name, "retrieval")
    assert seen == ["gelu", "gelu"]
    sums = results.load("retrieval", "smoke", controls)["sum"]
    assert sums.tolist() == pytest.approx(projections)
    with pytest.raises(CheckpointError, match="train the model first"):
        measure("clip-ft-gelu", "retrieval", seed=1)
    measure("base", "retrieval")
    assert seen == ["gelu", "gelu", "quickgelu"], "another key than the control's"


def test_a_model_is_checked_before_data_are_read(home, monkeypatch, capsys):
    read = Mock(side_effect=RuntimeError("data were read"))
    monkeypatch.setattr("cae_bench.datasets.load_benchmarks", read)
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
