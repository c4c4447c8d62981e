"""A run killed at any moment goes on to the very weights of a run that was left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cae_lib.config import Experiment
from cae_lib.data.captions import Pairs
from cae_lib.data.images import Photographs
from cae_lib.models.clip import load_clip
from cae_lib.runtime import one_thread
from cae_lib.training.execution import Execution
from cae_lib.training.loop import train
from cae_lib.words.alignment import align
from cae_lib.words.roles import ATTRIBUTE, OBJECT, Span

STEPS = 10
RUN = Experiment("killed", "smoke", steps=STEPS, batch_size=4, warmup=2, lr=1e-3, negatives=True,
                 method="attention", weight=1.0, margin=0.5, precision="bf16")


def run(folder: Path, out: str) -> Path:
    """Train to the end on the photographs in `folder`, saving a state every other step."""
    captions = [f"a {c} {o}" for c in ("red", "blue", "big") for o in ("cat", "dog")]
    spans = [
        [Span(2, c.rindex(" "), ATTRIBUTE), Span(c.rindex(" ") + 1, len(c), OBJECT)]
        for c in captions
    ]
    clip = load_clip("clip-mini", seed=0)
    paths = [folder / f"{i}.png" for i in range(6)]
    negatives = [[f"not {caption}", f"no {caption}"] for caption in captions]
    hard = [[(row + 1) % 6, (row + 2) % 6, (row + 3) % 6] for row in range(6)]
    pairs = Pairs(paths, captions, torch.arange(6), "toy", 6, 6, negatives, hard)
    alignment = align(captions, spans, clip.tokenizer)
    images, execution = Photographs(paths, clip.image_size), Execution(workers=1)
    with one_thread(torch.device("cpu")):
        return train(RUN, clip, pairs, alignment, images, folder / out, log=False, save_every=2,
                     execution=execution).checkpoint


def steps_logged(folder: Path) -> int:
    log = folder / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    for row in range(6):
        noise = np.random.default_rng(row).integers(0, 256, (120, 150, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{row}.png")
    return folder


def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(folder: Path) -> None:
    expected = run(folder, "whole").read_bytes()
    command = [sys.executable, __file__, str(folder), "killed"]
    killed = folder / "killed"
    last = random.randint(3, STEPS - 3)  # not seeded: every test run tries another step
    delay = random.random() / 20
    process = subprocess.Popen(command)
    while steps_logged(killed) < last:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.001)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "model.safetensors").exists()
    assert (killed / "state.pt").exists()
    assert run(folder, "killed").read_bytes() == expected, f"killed {delay} s after step {last}"
    assert steps_logged(killed) == STEPS


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2])
