"""Keys of runs and tables: each declared input changes them, and nothing else does."""

from dataclasses import fields, replace

import pytest

from cae_lib import keys
from cae_lib.config import Experiment
from cae_lib.evaluation.suites import ALL_SUITES
from cae_lib.profiles import experiment

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
    known = experiment("clip-ft", "mini")
    value = CHANGED[name] if name in CHANGED else changed(getattr(known, name))
    before = keys.run_inputs(known, "data", "start")
    after = keys.run_inputs(replace(known, **{name: value}), "data", "start")
    assert {part for part in before if before[part] != after[part]} == {"settings"}


def test_data_start_and_version_each_change_one_part(monkeypatch) -> None:
    known = experiment("clip-ft", "mini")
    before = keys.run_inputs(known, "data", "start")
    assert keys.run_inputs(known, "data", "start") == before
    assert keys.run_inputs(known, "other", "start") == before | {"training data": "other"}
    assert keys.run_inputs(known, "data", "other") == before | {"first weights": "other"}
    monkeypatch.setattr(keys, "TRAINING_VERSION", 7)
    assert keys.run_inputs(known, "data", "start") == before | {"training version": "7"}


def test_a_tables_key_covers_suite_version_model_and_data(monkeypatch) -> None:
    known = keys.table_key("retrieval", "model", "data")
    assert known == keys.table_key("retrieval", "model", "data") and len(known) == 12
    changes = (
        ("blind", "model", "data"),
        ("retrieval", "other", "data"),
        ("retrieval", "model", "other"),
    )
    others = [keys.table_key(*change) for change in changes]
    monkeypatch.setattr(keys, "SUITE_VERSIONS", keys.SUITE_VERSIONS | {"retrieval": 2})
    others.append(keys.table_key("retrieval", "model", "data"))
    assert len({known, *others}) == 5


def test_every_suite_has_a_version() -> None:
    assert {*ALL_SUITES, "data"} == {*keys.SUITE_VERSIONS}


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
    config = experiment(run, "mini")
    before, changing = keys.run_inputs(config, "data", "start"), set()
    versions = {
        "scene-graph": ("TAGGER_VERSIONS", keys.TAGGER_VERSIONS | {"scene-graph": 99}),
        "dependency": ("TAGGER_VERSIONS", keys.TAGGER_VERSIONS | {"dependency": 99}),
        "truth": ("TAGGER_VERSIONS", keys.TAGGER_VERSIONS | {"truth": 99}),
        "swaps": ("SWAPS_VERSION", 99),
        "negatives from text": ("NEGATIVES_VERSION", 99),
    }
    for name, (constant, value) in versions.items():
        with monkeypatch.context() as patch:
            patch.setattr(keys, constant, value)
            if keys.run_inputs(config, "data", "start") != before:
                changing.add(name)
    assert changing == read
