"""The runs of the studies: what each one differs in, which are shared, and where they lie."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from cae_lib.attribution import get_method
from cae_lib.attribution.gradcam import GradcamAttribution
from cae_lib.base import base_config
from cae_lib.config import PROFILES, experiment, profile
from cae_lib.experiments import checkpoint_path
from cae_lib.measurements import run_label
from cae_lib.studies import (
    SUITES,
    Variant,
    ablations,
    base_variants,
    earlier_base_path,
    evaluate_variant,
    study_runs,
)


def config(variant: Variant, profile_name: str) -> dict:
    return asdict(experiment(variant.run, profile_name, **variant.settings))


@pytest.mark.parametrize("name", PROFILES)
def test_each_ablation_differs_from_its_reference_in_one_setting(name):
    variants = ablations(name)
    references = {v.run: config(v, name) for v in variants if v.group == "reference"}
    changed = [
        (v.run, [(key, value) for key, value in config(v, name).items()
                 if value != references[v.run][key]])
        for v in variants if v.group != "reference"
    ]  # fmt: skip
    weight = references["cae-gradcam"]["weight"]
    settings = [("weight", weight / 10), ("weight", weight * 10), ("margin", 0.05),
                ("scope", "caption"), ("scope", "word"), ("stop_gradient", True),
                ("attribution", (("start_layer", -1),)),
                ("attribution", (("second_order", False),)),
                ("tagger", "dependency"), ("lock_image", True)]  # fmt: skip
    assert changed == [
        *(("cae-gradcam", [setting]) for setting in settings),
        ("clip-ft", [("lock_image", True)]),
    ]
    assert [v.run for v in variants[:2]] == list(references)
    assert all(v.seeds == 1 for v in variants)


@pytest.mark.parametrize("name", PROFILES)
def test_the_references_are_the_rows_of_the_tables_but_for_their_length(name):
    short = profile(name).short
    for variant in ablations(name)[:2]:
        whole = asdict(experiment(variant.run, name))
        assert config(variant, name) == whole | short
        assert short["steps"] < whole["steps"]


def test_the_methods_take_the_settings_that_are_varied():
    found = [experiment(v.run, "mini", **v.settings) for v in ablations("mini")]
    made = [get_method(c.method, **dict(c.attribution)) for c in found if c.attribution]
    assert made == [GradcamAttribution(start_layer=-1), GradcamAttribution(second_order=False)]


@pytest.mark.parametrize("name", PROFILES)
def test_no_two_runs_share_files_or_records(name):
    variants = {
        (v.run, *map(repr, sorted(v.settings.items()))): v
        for v in (*ablations(name), *base_variants(name))
    }
    trained = [v for v in variants.values() if v.run != "base"]
    labels = {run_label(v.run, name, **v.settings) for v in variants.values()}
    places = {checkpoint_path(v.run, name, 0, **v.settings) for v in trained}
    assert len(labels) == len(variants) and len(places) == len(trained)


def test_bases_of_three_lengths_with_the_same_runs_from_each():
    variants = base_variants("mini")
    assert [(v.run, v.group, v.settings.get("weights"), v.seeds) for v in variants] == [
        (run, steps, weights, seeds)
        for steps, weights in (("600", "mini/base-600.safetensors"),
                               ("1800", "mini/base-1800.safetensors"), ("3600", None))
        for run, seeds in (("base", 1), ("clip-ft", 2), ("cae-perturbation", 2))
    ]  # fmt: skip
    assert base_variants("paper") == []
    assert [base_config("mini", 600).steps, base_config("mini").steps] == [600, 3600]


def test_a_run_of_both_studies_is_one_run_with_all_its_seeds():
    runs = study_runs("mini")
    places = [checkpoint_path(v.run, "mini", seed, **v.settings) for v, seed in runs]
    # Three bases, two runs from each, two seeds; 13 ablations less the reference in common.
    assert len(set(places)) == len(places) == 3 * 2 * 2 + 13 - 1
    assert "base" not in {v.run for v, _ in runs}
    short = profile("mini").short
    seeds = [seed for v, seed in runs if v.run == "clip-ft" and v.settings == short]
    assert seeds == [0, 1]
    assert len(study_runs("paper")) == 13


def test_earlier_bases_lie_beside_the_base(home: Path):
    assert earlier_base_path("mini", 600) == home / "data" / "mini" / "base-600.safetensors"
    smoke = home / "data" / "checkpoints" / "smoke"
    assert earlier_base_path("smoke", 1) == smoke / "base-1" / "model.safetensors"
    (start,) = {v.settings["weights"] for v in base_variants("smoke") if v.group == "1"}
    assert home / "data" / start == earlier_base_path("smoke", 1)
    assert checkpoint_path("base", "smoke", 0, weights=start) == earlier_base_path("smoke", 1)


def test_a_variant_is_measured_by_its_settings_on_the_suites_of_the_studies(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "cae_lib.studies.evaluate_run",
        lambda run, profile, seed, fresh, only, **rest: seen.append((run, seed, fresh, only, rest)),
    )
    variant = ablations("smoke")[4]
    evaluate_variant(variant, "smoke", 2, True)
    assert seen == [("cae-gradcam", 2, True, SUITES, variant.settings)]
    assert SUITES == ("benchmarks", "attribution")
