"""Whole runs: killed and resumed, by `torchrun` on the command itself, and of the paper's model."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toys import FT, lines, toy_pairs, toy_train

from cae_lab.profiles import load_profile
from cae_lab.training_set import training_set
from cae_lib.data.images import ImagesOnDisk
from cae_lib.models.checkpoint import read_meta
from cae_lib.runtime import one_thread
from cae_lib.training.execution import ExecutionOptions

NAME = "cae-attention"
STEPS = 10
RUN = replace(
    FT,
    steps=STEPS,
    negatives=True,
    method="attention",
    weight=1.0,
    margin=0.5,
    precision="bf16",
)


def run(folder: Path, out: str) -> bytes:
    """Train to the end on the photographs in `folder`, saving a state every other step."""
    paths = [folder / f"{row}.png" for row in range(8)]
    images, pairs = ImagesOnDisk(paths, 112), toy_pairs(image_paths=paths)
    with one_thread(torch.device("cpu")):
        toy_train(
            RUN,
            folder / out,
            None,
            pairs,
            images,
            save_every=2,
            execution=ExecutionOptions(workers=1),
        )
    return (folder / out / "model.safetensors").read_bytes()


def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    for row in range(8):
        noise = np.random.default_rng(row).integers(0, 256, (120, 150, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{row}.png")
    expected, killed = run(tmp_path, "whole"), tmp_path / "killed"
    last = random.randint(3, STEPS - 3)  # not seeded: every test run tries another step
    delay = random.random() / 20
    folders = os.pathsep.join(map(str, Path(__file__).parents[1:3]))
    environment = os.environ | {"PYTHONPATH": folders}
    process = subprocess.Popen([sys.executable, __file__, str(tmp_path), "killed"], env=environment)
    while len(lines(killed)) < last:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.001)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "model.safetensors").exists()
    assert (killed / "state.pt").exists()
    assert run(tmp_path, "killed") == expected, f"killed {delay} s after step {last}"
    assert len(lines(killed)) == STEPS


def test_two_processes_train_a_row_of_the_table(halves: Path, smoke_home: Path) -> None:
    training_set.cache_clear()
    load_profile("smoke").run(NAME).train()
    training_set.cache_clear()
    one, two = (home / "data/checkpoints/smoke" / NAME / "0" for home in (smoke_home, halves))
    assert read_meta(two / "model.safetensors") == read_meta(one / "model.safetensors")
    assert len(lines(one)) == load_profile("smoke").experiment(NAME).steps
    for ours, theirs in zip(lines(two), lines(one), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2])
