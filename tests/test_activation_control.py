"""Weights read with the other activation: measured apart, and only on purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

from cae_lib import activation_control as control
from cae_lib.cli import main
from cae_lib.config import experiment, profile
from cae_lib.experiments import checkpoint_path
from cae_lib.models.architecture import activation_of
from cae_lib.models.checkpoint import CheckpointMeta, read_meta, save_checkpoint
from cae_lib.models.clip import load_clip
from cae_lib.records import load_record


@pytest.fixture
def trained(home: Path, smoke_world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base and CLIP-FT of seed 0 in a home with a smoke world; the suites are stand-ins."""
    (home / "data").mkdir()
    (home / "data" / "raw").symlink_to(smoke_world.parent)
    for number, name in enumerate(("base", "clip-ft")):
        clip = load_clip("clip-mini", seed=number)
        save_checkpoint(checkpoint_path(name, "smoke", 0), clip,
                        CheckpointMeta("clip-mini", "quickgelu"))  # fmt: skip
    stand_in = dict.fromkeys(("benchmarks", "retrieval"), lambda encoder, name: {"n": 1})
    monkeypatch.setattr(control, "SUITES", stand_in)
    return home


def test_records_of_the_same_weights_with_gelu(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []

    def measure(encoder, profile_name: str) -> dict:
        seen.append(activation_of(encoder.clip.model))
        return {"sum": float(encoder.clip.model.visual.proj.detach().sum())}

    monkeypatch.setattr(control, "SUITES", {"benchmarks": measure, "retrieval": measure})
    control.evaluate_activation_control("smoke")
    assert seen == ["gelu"] * 4
    for name, number in (("base-gelu", 0), ("clip-ft-gelu", 1)):
        record = load_record(f"{name}/0/benchmarks", "smoke")
        expected = float(load_clip("clip-mini", seed=number).model.visual.proj.detach().sum())
        assert record.results["sum"] == pytest.approx(expected)
        assert record.config["activation"] == "gelu"
    printed = capsys.readouterr().out
    assert "clip-ft-gelu/1: left out, clip-ft/1 is not trained" in printed
    control.evaluate_activation_control("smoke")
    assert len(seen) == 4  # nothing is measured twice


def test_the_command(trained: Path) -> None:
    assert main(["evaluate", "base-gelu", "--profile", "smoke"]) == 0
    assert load_record("base-gelu/0/retrieval", "smoke").results == {"n": 1}


def test_fine_tuning_under_gelu(trained: Path) -> None:
    path = control.train_under_other("smoke", 1)
    meta = read_meta(path)
    assert meta.activation == "gelu"
    assert meta.step == experiment("clip-ft", "smoke").steps
    before = path.stat().st_mtime_ns
    assert control.train_under_other("smoke", 1) == path
    assert path.stat().st_mtime_ns == before
    control.evaluate_activation_control("smoke")
    assert load_record("clip-ft-under-gelu/1/benchmarks", "smoke").results == {"n": 1}


def test_names_do_not_collide_with_runs() -> None:
    assert not set(control.CONTROLS) & {"base", *profile("mini").methods}
