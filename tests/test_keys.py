"""Keys of runs and tables: each declared input changes them, and nothing else does."""

from dataclasses import fields, replace

import pytest

from cae_lab.profiles import load_profile
from cae_lab.suites import SUITES
from cae_lib.config import Experiment
from cae_lib.training import inputs

CHANGED = {
    "hinge": "log", "scope": "word", "activation": "gelu", "weights": "other.safetensors",
    "method": "gradient", "further_methods": (("attention", 1.0),),
    "attribution": (("start_layer", 1),), "roles": "permuted",
    "tagger": "dependency", "foils": "given", "betas": (0.9, 0.99), "precision": "fp32",
    "swapped": ("relations",), "train_data": "pretrain", "margin_rule": "adaptive",
    "model": "ViT-B-32", "name": "other",
    "profile": "photo",
}  # fmt: skip


def changed(value: object) -> object:
    return not value if isinstance(value, bool) else value + 1


@pytest.mark.parametrize("name", [field.name for field in fields(Experiment)])
def test_each_setting_of_a_run_changes_its_inputs(name: str) -> None:
    settings = load_profile("mini").experiment("clip-ft")
    value = CHANGED[name] if name in CHANGED else changed(getattr(settings, name))
    before = inputs.run_inputs(settings, "data", "start")
    after = inputs.run_inputs(replace(settings, **{name: value}), "data", "start")
    assert {part for part in before if before[part] != after[part]} == {"settings"}


def test_data_start_and_version_each_change_one_part(monkeypatch) -> None:
    settings = load_profile("mini").experiment("clip-ft")
    before = inputs.run_inputs(settings, "data", "start")
    assert inputs.run_inputs(settings, "data", "start") == before
    assert inputs.run_inputs(settings, "other", "start") == before | {"training data": "other"}
    assert inputs.run_inputs(settings, "data", "other") == before | {"first weights": "other"}
    monkeypatch.setattr(inputs, "TRAINING_VERSION", 7)
    assert inputs.run_inputs(settings, "data", "start") == before | {"training version": "7"}


def test_a_results_key_covers_suite_version_model_and_data() -> None:
    suite = SUITES["retrieval"]
    key = suite.key("model", "data")
    assert key == suite.key("model", "data") and len(key) == 12
    changed_keys = [
        SUITES["phrases"].key("model", "data"),
        suite.key("other", "data"),
        suite.key("model", "other"),
        replace(suite, version=2).key("model", "data"),
    ]
    assert len({key, *changed_keys}) == 5


@pytest.mark.parametrize(
    ("run", "read"),
    [
        ("clip-ft", set()),
        ("negclip", set()),
        ("hinge-negclip", set()),
        ("cae-gradcam", {"scene-graph"}),
        ("negclip-cae-gradcam", {"scene-graph"}),
        ("placebo-gradcam", {"scene-graph"}),
        ("cae-binding", {"scene-graph"}),
        ("softmax-binding", {"scene-graph"}),
        ("truth-binding", {"truth"}),
        ("dependency-gradcam", {"dependency"}),
        ("dependency-binding", {"dependency", "swaps"}),
        ("dependency-softmax", {"dependency", "swaps"}),
        ("spacy-margin", {"negatives from text"}),
        ("spacy-negclip", {"negatives from text"}),
        ("kept-binding", {"negatives from text"}),
        ("spacy-margin-dependency-binding", {"dependency", "swaps", "negatives from text"}),
    ],
)
def test_the_versions_of_what_a_training_reads_from_text_are_in_its_key(
    run: str, read: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_profile("mini").experiment(run)
    before, changing = inputs.run_inputs(config, "data", "start"), set()
    versions = {
        "scene-graph": ("TAGGER_VERSIONS", inputs.TAGGER_VERSIONS | {"scene-graph": 99}),
        "dependency": ("TAGGER_VERSIONS", inputs.TAGGER_VERSIONS | {"dependency": 99}),
        "truth": ("TAGGER_VERSIONS", inputs.TAGGER_VERSIONS | {"truth": 99}),
        "swaps": ("SWAPS_VERSION", 99),
        "negatives from text": ("NEGATIVES_VERSION", 99),
    }
    for name, (constant, value) in versions.items():
        with monkeypatch.context() as patch:
            patch.setattr(inputs, constant, value)
            if inputs.run_inputs(config, "data", "start") != before:
                changing.add(name)
    assert changing == read
