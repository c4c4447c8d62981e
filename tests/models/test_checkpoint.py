"""Checkpoints: what they keep, and what happens to broken ones."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cae_lib.errors import CheckpointError, DataError
from cae_lib.models.checkpoint import (
    CheckpointMeta,
    read_meta,
    read_state_dict,
    save_checkpoint,
)

META = CheckpointMeta("clip-mini", "quickgelu", step=12, config_key="ab12", extra={"loss": 0.5})


@pytest.fixture
def model() -> nn.Module:
    return nn.Linear(3, 2)


def test_meta_round_trip(model: nn.Module, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "deep" / "model.safetensors", model, META)
    assert read_meta(path) == META
    assert json.loads(path.with_suffix(".json").read_text())["activation"] == "quickgelu"
    assert sorted(p.name for p in path.parent.iterdir()) == ["model.json", "model.safetensors"]


def test_float16_storage(model: nn.Module, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "model", model, META, dtype=torch.float16)
    weight = read_state_dict(path)["weight"]
    assert weight.dtype == torch.float16
    torch.testing.assert_close(weight.float(), model.weight.detach(), atol=1e-3, rtol=1e-3)


def test_crash_leaves_the_old_checkpoint(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_checkpoint(tmp_path / "model", model, META)
    before = path.read_bytes()

    def torn(file: Path, content: bytes) -> None:
        Path.write_text(file, "half")
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", torn)
    with pytest.raises(DataError, match="disk full.*free some space"):
        save_checkpoint(path, model, META)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.safetensors"]


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder nobody may write to; root gives up its rights for the test."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)


def test_no_write_permission(model: nn.Module, read_only: Path) -> None:
    with pytest.raises(DataError, match="cannot write.*make the folder writable"):
        save_checkpoint(read_only / "model", model, META)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty"])
def test_damaged_file(model: nn.Module, tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"model{suffix}"
    if suffix == ".pt":
        torch.save(model.state_dict(), path)
    else:
        save_checkpoint(path, model, META)
    content = path.read_bytes()
    path.write_bytes({"truncated": content[:-9], "foreign": b"GIF89a" * 40, "empty": b""}[damage])
    with pytest.raises(CheckpointError, match=f"model{suffix} cannot be read") as raised:
        read_state_dict(path)
    assert "write it again" in str(raised.value)
    assert "weights_only" not in str(raised.value)  # torch's advice to trust the file


def test_truncated_file_has_no_meta(model: nn.Module, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "model", model, META)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_meta(path)


def test_foreign_meta_is_refused(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(dict(model.state_dict()), path, metadata={"cae_lib": '{"architecture": "other"}'})
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_meta(path)


def test_weights_of_others_have_no_meta(model: nn.Module, tmp_path: Path) -> None:
    save_file(dict(model.state_dict()), tmp_path / "other.safetensors")
    torch.save(model.state_dict(), tmp_path / "other.pt")
    assert read_meta(tmp_path / "other.safetensors") is None
    assert read_meta(tmp_path / "other.pt") is None


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple:
            return (os.mkdir, (str(tmp_path / "harmed"),))

    torch.save({"state_dict": Harmful()}, tmp_path / "harmful.pt")
    with pytest.raises(CheckpointError, match="holds posix.mkdir.*nothing of it was run"):
        read_state_dict(tmp_path / "harmful.pt")
    assert not (tmp_path / "harmed").exists()


def test_other_objects_are_named(model: nn.Module, tmp_path: Path) -> None:
    options = argparse.Namespace(lr=1e-6)
    torch.save({"args": options, "state_dict": model.state_dict()}, tmp_path / "options.pt")
    with pytest.raises(CheckpointError, match="holds argparse.Namespace.*state dict alone"):
        read_state_dict(tmp_path / "options.pt")


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")
def test_archives_of_programs_are_refused(model: nn.Module, tmp_path: Path) -> None:
    torch.jit.script(model).save(tmp_path / "program.pt")
    with pytest.raises(CheckpointError, match="TorchScript archive.*open_clip's tag 'openai'"):
        read_state_dict(tmp_path / "program.pt")


@pytest.mark.parametrize("nested", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_published_layouts(
    model: nn.Module, tmp_path: Path, nested: str | None, prefix: str
) -> None:
    state = {prefix + name: value for name, value in model.state_dict().items()}
    state |= {"input_resolution": torch.tensor(224), "vocab_size": torch.tensor(49408)}
    rest = {"epoch": 5, "loss": np.float64(2.5), "step": np.int64(7), "optimizer": {"state": {}}}
    torch.save(state if nested is None else {nested: state, **rest}, tmp_path / "model.pt")
    found = read_state_dict(tmp_path / "model.pt")
    assert sorted(found) == ["bias", "weight"]
    assert torch.equal(found["weight"], model.weight)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint at .*check the path"):
        read_meta(tmp_path / "gone.safetensors")
