"""Runs of the small world: by `torchrun` on the command itself, and of the paper's model."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toys import lines

from cae_lib.config import experiment
from cae_lib.data.images import Photographs
from cae_lib.data.training_set import training_set
from cae_lib.models.checkpoint import CheckpointMeta, read_meta, save_checkpoint
from cae_lib.models.clip import load_clip
from cae_lib.runs import train_run

NAME = "cae-attention"


@pytest.fixture
def homes(tmp_path: Path, smoke_world: Path, monkeypatch) -> list[Path]:
    """Two project folders with the smoke world and one base of random weights; we are in one."""
    clip = load_clip("clip-mini", seed=0)
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        (folder / "data" / "raw").mkdir(parents=True)
        (folder / "data" / "raw" / "world-smoke").symlink_to(smoke_world)
        base = folder / "data" / experiment(NAME, "smoke").weights
        save_checkpoint(base, clip, CheckpointMeta("clip-mini", "quickgelu"))
    monkeypatch.setenv("CAE_HOME", str(folders[0]))
    training_set.cache_clear()
    yield folders
    training_set.cache_clear()


def test_two_processes_train_a_row_of_the_table(homes) -> None:
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               "-m", "cae_lib.cli", "train", NAME, "--profile", "smoke"]
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=600,
        env=os.environ | {"CAE_HOME": str(homes[1]), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    train_run(NAME, "smoke")
    one, two = (home / "data/checkpoints/smoke" / NAME / "0" for home in homes)
    assert read_meta(two / "model.safetensors") == read_meta(one / "model.safetensors")
    assert len(lines(one)) == experiment(NAME, "smoke").steps
    for ours, theirs in zip(lines(two), lines(one), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)


def test_vit_b_32_of_full_size_takes_two_steps_of_negclip_with_cae(homes) -> None:
    path = train_run(NAME, "smoke", model="ViT-B-32", weights=None, steps=2, batch_size=4,
                     negatives=True, precision="bf16")
    assert isinstance(training_set("smoke", "coco", "ViT-B-32").images, Photographs)
    meta = read_meta(path)
    assert (meta.model, meta.step, meta.activation) == ("ViT-B-32", 2, "quickgelu")
    assert len(lines(path.parent)) == 2
    for line in lines(path.parent):
        assert math.isfinite(line["loss"]) and math.isfinite(line["gradient_norm"])
        assert line["n_similar"] == 4 and 0 < line["n_negatives"] <= 8
        assert line["n_objects"] > 0 and line["n_composition"] > 0
