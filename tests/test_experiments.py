"""Runs of the smoke profile, from a random base model to stored measurements."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from cae_lib import experiments, measurements
from cae_lib.config import experiment, paths
from cae_lib.data.training_set import training_set
from cae_lib.errors import CheckpointError, ConfigError, DataError
from cae_lib.evaluation.results import ChoiceResult
from cae_lib.models.checkpoint import CheckpointMeta, save_checkpoint
from cae_lib.models.clip import load_clip
from cae_lib.training import state
from cae_lib.tuning import best, levelling, validation_scores, walk


@pytest.fixture(scope="module")
def trained(smoke_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a smoke world with an untrained base and one CAE run of seed 0."""
    home = tmp_path_factory.mktemp("home")
    (home / "data").mkdir()
    (home / "data" / "raw").symlink_to(smoke_world.parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAE_HOME", str(home))
        clip = load_clip("clip-mini", seed=3)
        meta = CheckpointMeta(clip.name, clip.activation)
        save_checkpoint(experiments.checkpoint_path("base", "smoke", 0), clip, meta)
        experiments.run_training("cae-attention", "smoke")
        measurements.evaluate_run("cae-attention", "smoke")
    return home


@pytest.fixture(autouse=True)
def _home(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAE_HOME", str(trained))
    measurements._load.cache_clear()


def test_a_finished_run_is_not_trained_again(monkeypatch):
    monkeypatch.setattr(experiments, "train", lambda *a, **k: pytest.fail("trained again"))
    checkpoint = experiments.run_training("cae-attention", "smoke")
    assert checkpoint == experiments.checkpoint_path("cae-attention", "smoke", 0)


def test_a_run_from_other_weights_than_now_is_trained_again(monkeypatch, tmp_path):
    monkeypatch.setattr(experiments, "train", lambda *a, **k: pytest.fail("trained again"))
    clip = load_clip("clip-mini", seed=4)
    other = tmp_path / "other.safetensors"
    save_checkpoint(other, clip, CheckpointMeta(clip.name, clip.activation))
    monkeypatch.setattr(experiments, "weights_path", lambda config: other)
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        experiments.run_training("cae-attention", "smoke")


def test_a_run_is_trained_again_once_its_data_or_code_are_others(
    smoke_world, tmp_path, monkeypatch, capsys
):
    coco = tmp_path / "data" / "raw" / "world-smoke" / "coco"
    shutil.copytree(smoke_world / "coco", coco)
    monkeypatch.setenv("CAE_HOME", str(tmp_path))

    def trained() -> tuple[bool, str]:
        """Whether it was trained now, and all that was printed."""
        training_set.cache_clear()
        path = experiments.run_training("clip-ft", "smoke", weights=None, steps=1, batch_size=4)
        new = path.stat().st_mtime > 0
        os.utime(path, (0, 0))
        return new, capsys.readouterr().out

    assert trained()[0] and trained() == (False, "")
    table = coco / "train_neg_clip.tsv"
    table.write_text(table.read_text().replace(" red ", " blue "))
    new, said = trained()
    assert new and "training data" in said and "training code" not in said
    first, second = sorted((coco / "train2014").glob("*"))[:2]
    shutil.copy(second, first)
    new, said = trained()
    assert new and "training data" in said
    monkeypatch.setattr(state, "training_hash", lambda: "other")
    new, said = trained()
    assert new and "training code" in said and "training data" not in said
    assert trained() == (False, "")
    training_set.cache_clear()


def test_another_configuration_is_trained_in_a_folder_of_its_own():
    config = experiment("cae-attention", "smoke", lr=1e-5, steps=1)
    checkpoint = experiments.run_training("cae-attention", "smoke", lr=1e-5, steps=1)
    assert checkpoint.parent.name == config.key()
    assert checkpoint != experiments.checkpoint_path("cae-attention", "smoke", 0)


def test_every_benchmark_of_the_world_is_measured_completely():
    (record,) = measurements.results("cae-attention", "smoke", "benchmarks", seeds=1)
    families = {key.split("/")[0] for key in record.results}
    assert {"aro", "winoground", "sugarcrepe", "vl_checklist", "valse", "svo_probes",
            "crepe"} <= families  # fmt: skip
    for part in record.results.values():
        result = ChoiceResult.from_record(part)
        assert result.n_used == result.n_expected > 0


def test_measurements_are_loaded_while_weights_and_data_stay(monkeypatch):
    def fail(*_: object) -> None:
        pytest.fail("measured again")

    monkeypatch.setattr(measurements, "SUITES", dict.fromkeys(measurements.SUITES, fail))
    measurements.evaluate_run("cae-attention", "smoke", fresh=True)


def test_what_is_missing_is_said_with_the_command():
    with pytest.raises(DataError, match="make reproduce"):
        measurements.results("cae-attention", "smoke", "benchmarks", seeds=2)
    with pytest.raises(CheckpointError, match="train the model first"):
        measurements.evaluate_run("clip-ft", "smoke")
    with pytest.raises(ConfigError, match="expected 1 to 3"):
        measurements.results("cae-attention", "smoke", "benchmarks", seeds=9)


def test_a_variant_is_read_by_its_settings_and_missing_ones_are_said_with_them(monkeypatch):
    settings = {"lr": 1e-5, "steps": 1}
    experiments.run_training("cae-attention", "smoke", **settings)
    measurements.evaluate_run("cae-attention", "smoke", only=["similarity"], **settings)
    (record,) = measurements.results("cae-attention", "smoke", "similarity", 1, **settings)
    assert record.config["lr"] == 1e-5
    monkeypatch.setattr(measurements, "is_real", lambda profile: True)
    with pytest.raises(DataError, match="cae train cae-attention .* --set lr=1e-05 --set steps=1"):
        measurements.results("cae-attention", "smoke", "benchmarks", 1, **settings)


def test_another_tagger_gives_the_same_captions_other_roles():
    first, second = (training_set("smoke", tagger=name) for name in ("scene-graph", "dependency"))
    assert torch.equal(first.alignment.tokens, second.alignment.tokens)
    assert not torch.equal(first.alignment.roles, second.alignment.roles)
    with pytest.raises(ConfigError, match="'scene-graph' or 'dependency'"):
        training_set("smoke", tagger="none")


def test_the_best_setting_has_the_highest_score_and_of_equals_the_smallest_value():
    rows = [{"lr": 3.0, "score": 0.5}, {"lr": 1.0, "score": 0.5}, {"lr": 2.0, "score": 0.4}]
    assert best(rows, "lr") == 1.0


def test_lambda_is_the_smallest_that_levels_the_attribution():
    def rows(*gaps: float) -> list[dict]:
        weights = (0.3, 1.0, 3.0)
        return [{"run": "cae-attention", "weight": w, "gaps": {"attention": g}}
                for w, g in zip(weights, gaps, strict=True)]  # fmt: skip

    tuned = {"gaps": {"attention": 0.1}}
    assert levelling(rows(0.05, 0.009, 0.001), tuned) == 1.0
    assert levelling(rows(0.05, 0.02, 0.011), tuned) == 3.0
    assert levelling(rows(-0.05, 0.02, 0.011), tuned) == 0.3


def test_lambda_is_sought_only_around_the_smallest_that_is_enough():
    tuned = {"gaps": {"attention": 0.1}}

    def tried(enough: float) -> list[float]:
        def measure(weight: float) -> dict:
            gap = 0.0 if weight >= enough else 0.05
            return {"run": "cae-attention", "weight": weight, "gaps": {"attention": gap}}

        rows = walk(measure, tuned)
        assert levelling(rows, tuned) == min(enough, 100.0)
        return [row["weight"] for row in rows]

    assert tried(1.0) == [0.3, 1.0]
    assert tried(0.1) == [0.03, 0.1, 0.3, 1.0]
    assert tried(10.0) == [1.0, 3.0, 10.0]
    assert tried(1000.0) == [1.0, 3.0, 10.0, 30.0, 100.0]


def test_the_configured_values_are_those_of_the_recorded_sweep(monkeypatch):
    monkeypatch.delenv("CAE_HOME")
    from cae_lib.records import load_record

    chosen = load_record("sweep", "mini").results["chosen"]
    assert experiment("clip-ft", "mini").lr == chosen.pop("lr")
    for name, weight in chosen.items():
        assert experiment(name, "mini").weight == weight


def test_validation_scores_by_hand(tmp_path):
    """Two captions, three negatives: one of them is as close as the caption, which is wrong."""
    import numpy as np
    import torch

    from cae_lib.data.captions import Pairs

    class Fake:
        vectors = {"a": (1.0, 0.0), "b": (0.0, 1.0), "c": (0.6, 0.8)}

        def images(self, refs):
            return np.array([self.vectors[ref.path.name] for ref in refs], dtype=np.float32)

        def texts(self, texts):
            return np.array([self.vectors[text] for text in texts], dtype=np.float32)

    pairs = Pairs([Path("a"), Path("b")], ["a", "b"], torch.tensor([0, 1]), "hand", 2, 2,
                  negatives=[["b", "a"], ["c"]])  # fmt: skip
    scores = validation_scores(Fake(), pairs)
    assert scores["recall_at_1"] == 1.0
    assert scores["n_negatives"] == 3
    assert abs(scores["against_negatives"] - 2 / 3) < 1e-9
    assert abs(scores["score"] - 5 / 6) < 1e-9


def test_smoke_never_reads_the_published_records():
    assert not (paths().records / "smoke").exists()
