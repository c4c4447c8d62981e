"""`torchrun` on the command itself: two processes train, one writes, the numbers are the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cae_lib.config import experiment
from cae_lib.data.training_set import training_set
from cae_lib.models.checkpoint import CheckpointMeta, read_meta, save_checkpoint
from cae_lib.models.clip import load_clip
from cae_lib.runs import train_run

NAME = "cae-attention"


@pytest.fixture
def homes(tmp_path: Path, smoke_world: Path) -> list[Path]:
    """Two project folders with the smoke world and one base model of random weights."""
    clip = load_clip("clip-mini", seed=0)
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        (folder / "data" / "raw").mkdir(parents=True)
        (folder / "data" / "raw" / "world-smoke").symlink_to(smoke_world)
        base = folder / "data" / experiment(NAME, "smoke").weights
        save_checkpoint(base, clip, CheckpointMeta("clip-mini", "quickgelu"))
    return folders


def test_two_processes_train_a_row_of_the_table(homes, monkeypatch) -> None:
    one, two = homes
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               "-m", "cae_lib.cli", "train", NAME, "--profile", "smoke"]
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=600,
        env=os.environ | {"CAE_HOME": str(two), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("CAE_HOME", str(one))
    training_set.cache_clear()
    train_run(NAME, "smoke")
    training_set.cache_clear()
    place = Path("data/checkpoints/smoke") / NAME / "0"
    assert read_meta(two / place / "model.safetensors") == read_meta(
        one / place / "model.safetensors"
    )
    logs = [
        [json.loads(line) for line in (home / place / "log.jsonl").read_text().splitlines()]
        for home in homes
    ]
    assert len(logs[0]) == experiment(NAME, "smoke").steps
    for ours, theirs in zip(*logs, strict=True):
        ours["samples_per_second"] = theirs["samples_per_second"] = 0
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)
