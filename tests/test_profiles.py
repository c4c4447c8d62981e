"""Profiles as files: what an entry of a run says, and errors that name the file and the key."""

from pathlib import Path

import pytest

from cae_lab.cli import main
from cae_lab.profiles import PROFILES, read_profile
from cae_lib.config import Experiment
from cae_lib.errors import ConfigError

HEAD = "seeds: 2\ntraining: {steps: 5, betas: [0.8, 0.9]}\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_entry_takes_the_settings_of_others_and_then_its_own(tmp_path: Path) -> None:
    text = (
        f"{HEAD}base: {{}}\nruns:\n"
        "  one: {label: first, method: gradcam, weight: 0.5, attribution: {start_layer: 1}}\n"
        "  two: {negatives: true, batch_size: 4, weight: 3.0}\n"
        "  both: {like: [one, two], margin: 0.1}\n"
        "  again: {like: both, weight: 1.0}\n"
    )
    profile = read_profile(write(tmp_path, text))
    assert (profile.name, profile.seeds, profile.labels) == ("mine", 2, {"one": "first"})
    attribution = (("start_layer", 1),)
    both = {"method": "gradcam", "attribution": attribution, "negatives": True, "batch_size": 4}
    assert profile.runs["both"] == both | {"weight": 3.0, "margin": 0.1}
    assert profile.runs["again"] == both | {"weight": 1.0, "margin": 0.1}
    settings = Experiment("again", "mini", **profile.training | profile.runs["again"])
    assert (settings.betas, settings.steps, settings.weight) == ((0.8, 0.9), 5, 1.0)


def test_runs_beside_the_main_runs_are_studies(tmp_path: Path) -> None:
    runs = "runs: {one: {}, two: {study: true}, three: {}}"
    studies = read_profile(write(tmp_path, f"{HEAD}base: {{}}\n{runs}")).studies
    assert studies == {"two"}
    studies = read_profile(write(tmp_path, f"{HEAD}base: {{}}\nmain_runs: [one]\n{runs}")).studies
    assert studies == {"two", "three"}


def test_the_runs_of_a_profile_are_listed_with_what_differs(tmp_path, monkeypatch, capsys) -> None:
    text = (
        f"{HEAD}base: {{}}\nruns:\n"
        "  clip-ft: {batch_size: 8}\n"
        "  other: {batch_size: 8, method: gradcam, weight: 0.5, steps: 5}\n"
        "  cae-attention: {batch_size: 4}\n"
    )
    monkeypatch.setitem(PROFILES, "mine", read_profile(write(tmp_path, text)))
    assert main(["runs", "--profile", "mine"]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("clip-ft: CLIP-FT; ")
    assert others == [
        "other: other; method=gradcam, weight=0.5",
        "cae-attention: CLIP-CAE (attention); batch_size=4",
    ]
    assert main(["runs", "--profile", "nothing"]) == 2


RUN = "runs:\n  one: "


@pytest.mark.parametrize(("text", "named"), [
    (f"{HEAD}runs: [one]", ["runs"]),
    (f"{HEAD}sedes: 3\nruns: {{}}", ["sedes", "seeds"]),
    ("training: {}\nruns: {}", ["seeds"]),
    ("seeds: many\ntraining: {}\nruns: {}", ["seeds", "int"]),
    (f"{HEAD}{RUN}{{metod: gradcam}}", ["one", "metod", "method"]),
    (f"{HEAD}{RUN}{{weight: high}}", ["one", "weight", "float"]),
    (f"{HEAD}{RUN}{{seed: 3}}", ["one", "seed"]),
    (f"{HEAD}{RUN}{{like: one}}", ["one", "like"]),
    (f"{HEAD}search: {{rate: [1.0]}}\n{RUN}{{}}", ["search", "rate", "rates"]),
    (f"{HEAD}search: 3\n{RUN}{{}}", ["search"]),
    (f"{HEAD}search: {{rates: 3}}\n{RUN}{{}}", ["search", "rates"]),
    (f"{HEAD}earlier_bases: 3\n{RUN}{{}}", ["earlier_bases"]),
    (f"{HEAD}short:\n{RUN}{{}}", ["short"]),
    (f"{HEAD}main_runs: [two]\n{RUN}{{}}", ["main_runs", "two"]),
    ("seeds: [", ["YAML"]),
])  # fmt: skip
def test_an_error_names_the_file_the_key_and_what_is_allowed(text, named, tmp_path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_profile(path)
    assert all(word in str(caught.value) for word in [str(path), *named])


def test_a_profile_like_another_says_only_what_differs(tmp_path) -> None:
    (tmp_path / "first.yaml").write_text("""
seeds: 3
training: {steps: 9, lr: 0.1}
runs:
  one: {label: One, method: gradcam, weight: 0.5}
  two: {like: one, weight: 0.7}
""")
    (tmp_path / "second.yaml").write_text(
        "like: first\nseeds: 1\ntraining: {steps: 2}\nruns: {one: {margin: 0.3}}"
    )
    (tmp_path / "third.yaml").write_text("like: second\ntraining: {lr: 0.2}\nruns: {}")
    first, second, third = (
        read_profile(tmp_path / f"{name}.yaml") for name in ("first", "second", "third")
    )
    assert (first.like, second.like, third.like) == ("", "first", "first")
    assert (first.seeds, second.seeds, third.seeds) == (3, 1, 1)
    assert second.training == {"steps": 2, "lr": 0.1} and third.training == {"steps": 2, "lr": 0.2}
    assert second.runs["one"] == {"method": "gradcam", "weight": 0.5, "margin": 0.3}
    assert third.runs["two"] == {"method": "gradcam", "weight": 0.7, "margin": 0.3}
    assert third.labels == {"one": "One"}
    for wrong in ("third", "nowhere"):
        (tmp_path / "first.yaml").write_text(f"like: {wrong}\nruns: {{}}")
        with pytest.raises(ConfigError, match=f"first.yaml: like: '{wrong}'"):
            read_profile(tmp_path / "third.yaml")


def test_a_run_has_one_label_in_all_profiles() -> None:
    labels: dict[str, str] = {}
    for profile in PROFILES.values():
        for run, label in profile.labels.items():
            assert labels.setdefault(run, label) == label, (profile.name, run)


@pytest.mark.parametrize("profile", ["mini", "photo", "paired", "smoke"])
def test_several_methods_keep_the_weights_of_their_own_runs(profile: str) -> None:
    runs = PROFILES[profile].runs
    for name, settings in runs.items():
        if not settings.get("further_methods"):
            continue
        weights = {settings["method"]: settings["weight"], **dict(settings["further_methods"])}
        assert weights == {method: runs[f"cae-{method}"]["weight"] for method in weights}, name
    assert len(dict(runs["cae-all"]["further_methods"])) == 3
