"""Profiles as files: what an entry of a run says, and errors that name the file and the key."""

from pathlib import Path

import pytest

from cae_lib.config import Experiment
from cae_lib.errors import ConfigError
from cae_lib.profiles import PROFILES, config_folder, read_profile

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


RUN = "runs:\n  one: "


@pytest.mark.parametrize(("text", "named"), [
    (f"{HEAD}runs: [one]", ["runs"]),
    (f"{HEAD}sedes: 3\nruns: {{}}", ["sedes", "seeds"]),
    ("training: {}\nruns: {}", ["seeds"]),
    ("seeds: many\ntraining: {}\nruns: {}", ["seeds", "int"]),
    (f"{HEAD}{RUN}gradcam", ["one", "method"]),
    (f"{HEAD}{RUN}{{metod: gradcam}}", ["one", "metod", "method"]),
    (f"{HEAD}{RUN}{{weight: high}}", ["one", "weight", "float"]),
    (f"{HEAD}{RUN}{{seed: 3}}", ["one", "seed"]),
    (f"{HEAD}{RUN}{{like: two}}", ["one", "like", "two"]),
    (f"{HEAD}{RUN}{{like: one}}", ["one", "like"]),
    (f"{HEAD}{RUN}{{label: 3}}", ["one", "label"]),
    (f"{HEAD}search: {{rate: [1.0]}}\n{RUN}{{}}", ["search", "rate", "rates"]),
    ("seeds: 1\ntraining: {step: 3}\nruns: {}", ["training", "step"]),
    ("seeds: [", ["YAML"]),
    ("just words", ["seeds"]),
])  # fmt: skip
def test_an_error_names_the_file_the_key_and_what_is_allowed(text, named, tmp_path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_profile(path)
    assert all(word in str(caught.value) for word in [str(path), *named])


def test_what_was_chosen_reaches_the_runs_that_are_like_others() -> None:
    path = config_folder() / "paper.yaml"
    chosen = {"lr": 5e-6, "weights": {"gradcam": 0.25}, "margin": 0.2, "binding": 2.5}
    found, before = read_profile(path, chosen), read_profile(path)
    assert found.training["lr"] == 5e-6 != before.training["lr"]
    for run in ("cae-gradcam", "placebo-gradcam", "negclip-cae-gradcam", "dependency-gradcam"):
        assert found.runs[run]["weight"] == 0.25
    assert found.runs["cae-gradient"] == before.runs["cae-gradient"]
    for run in ("cae-binding", "placebo-binding", "hinge-negclip", "kept-binding"):
        assert (found.runs[run]["margin"], found.runs[run]["weight"]) == (0.2, 2.5)


def test_a_run_has_one_label_in_all_profiles() -> None:
    labels: dict[str, str] = {}
    for profile in PROFILES.values():
        for run, label in profile.labels.items():
            assert labels.setdefault(run, label) == label, (profile.name, run)
