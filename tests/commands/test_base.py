"""Base models of fewer steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from cae_lib.commands.base import base_config, card, train_base_as, training_table
from cae_lib.config import paths
from cae_lib.errors import ConfigError
from cae_lib.models.checkpoint import read_meta
from cae_lib.runs import earlier_base_path


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


def test_the_curve_and_the_final_numbers_are_one_table_and_a_card() -> None:
    kinds = ("object", "relation", "attribute")
    point = {"step": 3, "loss": 2.0, "retrieval_t2i_r1": 0.4} | dict.fromkeys(kinds, 0.5)
    point |= {f"attention_{kind}": 0.1 for kind in kinds}
    interval = {"estimate": 0.5, "low": 0.4, "high": 0.6, "n_items": 9}
    final = {name: interval for kind in kinds for name in (kind, f"attention_{kind}")}
    final |= {"retrieval_i2t_r1": 0.3, "retrieval_t2i_r1": 0.4, "n_pictures": 7}
    table = training_table(4, [point], final).set_index(["stored", "measure"])
    assert table.loc[(False, "loss"), "value"] == 2.0 and table.loc[(False, "loss"), "step"] == 3
    assert table.loc[(True, "object"), ["step", "low", "n"]].tolist() == [4, 0.4, 9]
    content = {"curve": [point], "final": final, "parameters": 2_000_000}
    text = card(base_config("smoke"), content, "0" * 64)
    assert "| object choices | 50.0 % [40.0, 60.0], n = 9 |" in text and "2.0 million" in text
