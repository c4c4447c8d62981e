"""Base models of fewer steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from cae_lib.base import base_config, train_base_as
from cae_lib.config import paths
from cae_lib.errors import ConfigError
from cae_lib.models.checkpoint import read_meta
from cae_lib.studies import earlier_base_path


def test_a_shorter_base_lies_beside_the_base_and_is_trained_once(
    smoke_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "data" / "raw" / smoke_world.name).symlink_to(smoke_world)
    monkeypatch.setenv("CAE_HOME", str(tmp_path))
    train_base_as("smoke", {"steps": 1})
    path = earlier_base_path("smoke", 1)
    assert path.relative_to(paths().checkpoints).as_posix() == "smoke/base-1/model.safetensors"
    meta, written = read_meta(path), path.stat().st_mtime_ns
    assert (meta.step, meta.config_key) == (1, base_config("smoke", 1).key())
    train_base_as("smoke", {"steps": 1})
    assert path.stat().st_mtime_ns == written


@pytest.mark.parametrize("settings", [{"steps": 3600}, {"steps": 0}, {"steps": 9, "lr": 1.0}])
def test_other_settings_of_the_base_are_refused(settings: dict) -> None:
    with pytest.raises(ConfigError, match="steps=N with N from 1 to 3599"):
        train_base_as("mini", settings)


def test_the_shorter_bases_of_mini_are_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAE_HOME", raising=False)
    for steps in (600, 1800):
        meta = read_meta(earlier_base_path("mini", steps))
        assert (meta.step, meta.config_key) == (steps, base_config("mini", steps).key())
