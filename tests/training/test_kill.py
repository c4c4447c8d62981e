"""A run killed at any moment goes on to the very weights of a run that was left alone."""

from __future__ import annotations

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

from cae_lib.data.images import Photographs
from cae_lib.runtime import one_thread
from cae_lib.training.execution import Execution

STEPS = 10
RUN = replace(FT, steps=STEPS, negatives=True, masked=0.5, method="attention", weight=1.0,
              margin=0.5, precision="bf16")


def run(folder: Path, out: str) -> bytes:
    """Train to the end on the photographs in `folder`, saving a state every other step."""
    paths = [folder / f"{row}.png" for row in range(8)]
    images, pairs = Photographs(paths, 112), toy_pairs(image_paths=paths)
    with one_thread(torch.device("cpu")):
        toy_train(RUN, folder / out, None, pairs, images, save_every=2,
                  execution=Execution(workers=1))
    return (folder / out / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    for row in range(8):
        noise = np.random.default_rng(row).integers(0, 256, (120, 150, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{row}.png")
    return folder


def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(folder: Path) -> None:
    expected, killed = run(folder, "whole"), folder / "killed"
    last = random.randint(3, STEPS - 3)  # not seeded: every test run tries another step
    delay = random.random() / 20
    path = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen([sys.executable, __file__, str(folder), "killed"], env=path)
    while len(lines(killed)) < last:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.001)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "model.safetensors").exists() and (killed / "state.pt").exists()
    assert run(folder, "killed") == expected, f"killed {delay} s after step {last}"
    assert len(lines(killed)) == STEPS


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2])
