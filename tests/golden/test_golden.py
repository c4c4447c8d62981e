"""Golden numbers: tiny fixed runs of every kind of loss, and every suite on a fixed model.

Keys of stored results do not read source code (see `Suite.key`), so this test is what notices
that code now gives other numbers under the same key. When it fails, either mend the code, or raise
the version that the failure names and write the new numbers: `python tests/golden/test_golden.py`.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from toys import FT, Toys, forget, lines, toy_clip, toy_pairs, toy_train, weights

from book.studies import ALL_SUITES
from cae_bench.encoder import Encoder
from cae_lab.data_tables import data_tables
from cae_lab.profiles import load_profile
from cae_lab.suites import DATA_VERSION
from cae_lab.training_set import default_tagger
from cae_lib.config import Experiment
from cae_lib.data.negatives import swap_negatives
from cae_lib.models.clip import Clip
from cae_lib.runtime import one_thread
from cae_lib.training.inputs import TRAINING_VERSION, text_versions
from cae_lib.training.trainer import train
from cae_lib.words.alignment import named_tagger, token_roles

STORED = Path(__file__).with_name("golden.json")
CHANGED = "name profile model weights train_data lock_image precision steps batch_size warmup lr"
"""Settings in which a toy run differs from the run of the profile that it stands for."""

TEXTS = [
    "a small brown dog chases two white cats near a red car",
    "a tall woman in a blue dress is holding an old umbrella",
    "the black horse and the spotted cow stand behind a wooden fence",
    "a young boy pushes a girl on a green swing",
    "an orange cat is sleeping on top of a grey laptop",
    "a man wearing a striped shirt feeds a large elephant",
    "a cat",
    "the yellow bus is driving next to a long white train",
]
"""Captions with swaps of each kind, and one without any."""

LOSSES = ("clip-ft", "cae-attention", "cae-gradcam", "cae-perturbation", "cae-gradient",
          "cae-counterfactual", "cae-binding", "negclip", "negclip-cae-attention",
          "placebo-attention", "random-perturbation", "placebo-binding", "wrong-binding",
          "softmax-binding", "hinge-negclip")  # fmt: skip
"""Runs of the smoke profile, one for each kind of loss and of control."""

OTHERS = {
    "log hinge": {"method": "attention", "weight": 1.0, "hinge": "log", "margin": 0.5},
    "words": {"method": "gradcam", "weight": 1.0, "scope": "word", "margin": 0.5},
    "captions, stopped gradient": {
        "method": "perturbation", "weight": 1.0, "scope": "caption", "stop_gradient": True,
        "margin": 0.1},
    "all four": {
        "method": "attention", "weight": 1.0, "margin": 0.1,
        "further_methods": (("gradcam", 0.5), ("perturbation", 2.0), ("gradient", 1.5))},
    "bf16": {"precision": "bf16", "method": "attention", "weight": 1.0},
}  # fmt: skip
"""Further settings of the loss, of a toy run."""

FROM_TEXT = ("dependency-gradcam", "dependency-binding", "dependency-binding-noun",
             "dependency-softmax", "spacy-negclip", "spacy-margin", "ce-clip-margin",
             "kept-binding", "spacy-margin-dependency-binding", "matched-gradcam",
             "both-binding")  # fmt: skip
"""Runs of the profile mini whose roles, swaps and negatives come from the text of the captions, by
the taggers and generators themselves; among them the adaptive margin and gradient matching."""

SUITE_VERSIONS = {name: suite.version for name, suite in ALL_SUITES.items()} | {
    "data": DATA_VERSION
}

TOLERANCE = {"rtol": 2e-3, "atol": 2e-5}
"""For other processors; bfloat16 has a wider one. A suite's shares may move by a few answers."""


def toy_settings(name: str, profile: str = "smoke") -> Experiment:
    """Return the settings of a run on the toy training set; a locked image tower stays locked only
    in the profile mini."""
    changed = [key for key in CHANGED.split() if (profile, key) != ("mini", "lock_image")]
    configured = vars(load_profile(profile).experiment(name))
    kept = {key: value for key, value in configured.items() if key not in changed}
    return Experiment(**vars(FT) | kept | {"margin": kept["margin"] or 0.1, "augment": True})


def of_training(settings: Experiment, folder: Path) -> list[float]:
    """Train five steps; return the loss of each, and the distance that all weights moved."""
    with one_thread(torch.device("cpu")):
        clip, log = toy_train(settings, folder)
    return log_and_distance(clip, log)


def of_training_from_text(name: str, folder: Path) -> list[float]:
    """Do the same for one of `FROM_TEXT`, with the roles and negatives that its settings name."""
    config, pairs = load_profile("mini").experiment(name), toy_pairs(TEXTS)
    if config.train_data != "coco":
        keeps = config.train_data == "kept"
        pairs = replace(pairs, negatives=swap_negatives(TEXTS, preserve_meaning=keeps))
    clip = toy_clip()
    tagger = default_tagger() if config.tagger == "scene-graph" else named_tagger(config.tagger)
    alignment = token_roles(TEXTS, clip.tokenizer, tagger)
    with one_thread(torch.device("cpu")):
        train(
            toy_settings(name, "mini"), clip, pairs, alignment, Toys(), folder, show_progress=False
        )
    return log_and_distance(clip, lines(folder))


def log_and_distance(clip: Clip, log: list[dict[str, float]]) -> list[float]:
    """Return the loss of each step, and the distance that all weights moved."""
    start, end = weights(toy_clip()), weights(clip)
    moved = sum(float((end[name] - start[name]).double().square().sum()) for name in end)
    return [line["loss"] for line in log] + [moved**0.5]


def of_table(frame: pd.DataFrame) -> dict[str, list[float]]:
    """Return the number of rows, and of each column mean and spread, of texts how many differ."""
    numbers = {"rows": [len(frame)]}
    for name, column in frame.items():
        if pd.api.types.is_numeric_dtype(column):
            values = column.astype(float)
            numbers[name] = [values.mean(), values.std(ddof=0), values.isna().sum()]
        else:
            numbers[name] = [column.nunique()]
    return {name: [float(value) for value in values] for name, values in numbers.items()}


def of_suite(name: str) -> dict[str, dict[str, list[float]]]:
    """Measure a suite of the smoke world on a model with fixed random weights."""
    if name == "data":
        return {
            table: of_table(frame) for table, frame in data_tables(load_profile("smoke")).items()
        }
    with one_thread(torch.device("cpu")):
        table = ALL_SUITES[name](Encoder(toy_clip()), load_profile("smoke"))
    return {name: of_table(table)}


@pytest.fixture(scope="module")
def stored() -> dict:
    return json.loads(STORED.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def golden_home(tmp_path_factory: pytest.TempPathFactory, smoke_world: Path):
    home = tmp_path_factory.mktemp("home")
    (home / "data").mkdir()
    (home / "data" / "raw").symlink_to(smoke_world.parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAE_HOME", str(home))
        forget()
        yield home
        forget()


def check_version(recorded: dict, version: int) -> None:
    assert recorded["version"] == version, f"write new numbers: python {Path(__file__).name}"


def runs() -> dict[str, Experiment]:
    named = {name: toy_settings(name) for name in LOSSES}
    return named | {name: Experiment(**vars(FT) | changes) for name, changes in OTHERS.items()}


@pytest.mark.parametrize("name", [*LOSSES, *OTHERS])
def test_training_gives_the_stored_numbers(name: str, stored: dict, tmp_path: Path) -> None:
    check_version(stored["training"], TRAINING_VERSION)
    wide = {"rtol": 2e-2, "atol": 1e-3} if name == "bf16" else TOLERANCE
    np.testing.assert_allclose(
        of_training(runs()[name], tmp_path),
        stored["training"][name],
        **wide,
        err_msg=f"{name}: mend the code, or raise TRAINING_VERSION in cae_lib/training/inputs.py",
    )


@pytest.mark.parametrize("name", FROM_TEXT)
def test_training_from_text_gives_the_stored_numbers(
    name: str, stored: dict, tmp_path: Path
) -> None:
    versions = text_versions(load_profile("mini").experiment(name))
    recorded = stored["from text"][name]
    assert recorded["versions"] == versions, f"write new numbers: python {Path(__file__).name}"
    np.testing.assert_allclose(
        of_training_from_text(name, tmp_path),
        recorded["numbers"],
        **TOLERANCE,
        err_msg=f"{name}: mend the code, or raise the version of roles, swaps or negatives in "
        "cae_lib/words/versions.py, or TRAINING_VERSION in cae_lib/training/inputs.py",
    )


@pytest.mark.parametrize("suite", SUITE_VERSIONS)
def test_a_suite_gives_the_stored_numbers(suite: str, stored: dict, golden_home: Path) -> None:
    recorded = stored["suites"][suite]
    check_version(recorded, SUITE_VERSIONS[suite])
    tables = of_suite(suite)
    assert tables.keys() == recorded["tables"].keys()
    for table, columns in recorded["tables"].items():
        assert tables[table].keys() == columns.keys()
        for column, numbers in columns.items():
            np.testing.assert_allclose(
                tables[table][column],
                numbers,
                rtol=5e-3,
                atol=2e-3,
                err_msg=f"{table}, {column}: mend the code, or raise the version of {suite!r} in "
                "its entry",
            )


def test_the_settings_of_the_golden_runs_give_different_numbers(stored: dict) -> None:
    ends = {name: values[-1] for name, values in stored["training"].items() if name != "version"}
    assert {*ends} == {*LOSSES, *OTHERS}
    ends |= {f"{name}, text": each["numbers"][-1] for name, each in stored["from text"].items()}
    assert len({round(value, 9) for value in ends.values()}) == len(ends)


def write(home: Path) -> None:
    """Write the numbers of the code that is here."""
    import os

    from data.recipes.synthetic_scenes.build import build

    os.environ["CAE_HOME"] = str(home)
    build("smoke", root=home / "data" / "raw")
    training = {name: of_training(settings, home / name) for name, settings in runs().items()}
    suites = {
        name: {"version": version, "tables": of_suite(name)}
        for name, version in SUITE_VERSIONS.items()
    }
    from_text = {
        name: {
            "versions": text_versions(load_profile("mini").experiment(name)),
            "numbers": of_training_from_text(name, home / "from text" / name),
        }
        for name in FROM_TEXT
    }
    content = {
        "training": {"version": TRAINING_VERSION} | training,
        "from text": from_text,
        "suites": suites,
    }
    STORED.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        write(Path(folder))
