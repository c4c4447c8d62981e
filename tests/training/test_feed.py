"""Batches from worker processes are those of the main process, errors and signals included."""

import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from toys import FT, random_clip, toy_alignment, toy_pairs

from cae_lib.data.images import ImagesOnDisk
from cae_lib.errors import DataError
from cae_lib.training.batch import Batch, Batches, prefetch

PATIENCE = 300
"""Seconds after which a process is taken to hang."""

SETTINGS = replace(FT, batch_size=3, negatives=True)


@pytest.fixture
def batches(tmp_path: Path) -> Batches:
    paths = [tmp_path / f"{row}.png" for row in range(8)]
    for row, path in enumerate(paths):
        noise = np.random.default_rng(row).integers(0, 256, (24, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    clip, pairs = random_clip(), toy_pairs(image_paths=paths)
    return Batches(SETTINGS, pairs, toy_alignment(clip), ImagesOnDisk(paths, 16), clip.tokenizer)


def same(a: Batch, b: Batch) -> bool:
    both = zip(
        *(vars(replace(batch, normalization=None)).values() for batch in (a, b)), strict=True
    )
    return all(torch.equal(x, y) if isinstance(x, Tensor) else x == y for x, y in both)


def taken(batches: Batches, workers: int) -> list[Batch]:
    with prefetch(batches.at, range(2, 7), workers) as source:
        return list(source)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_prepare_the_batches_of_the_main_process_in_order(batches, workers) -> None:
    expected, actual = [batches.at(step) for step in range(2, 7)], taken(batches, workers)
    assert not same(expected[0], expected[1])
    assert len(actual) == 5
    assert all(map(same, actual, expected))


def test_images_travel_as_bytes_and_are_normalised_on_arrival(batches) -> None:
    batch = batches.at(0)
    assert batch.image_inputs.dtype == torch.uint8
    assert batch.normalization is not None
    moved = batch.prepare(torch.device("cpu"))
    assert moved.normalization is None
    scale, shift = batch.normalization
    torch.testing.assert_close(moved.image_inputs, batch.image_inputs.float() * scale + shift)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named_in_its_turn(batches, workers) -> None:
    row, read = int(batches.row_numbers(1)[0]), []
    path = batches.pairs.image_paths[row]
    path.write_bytes(path.read_bytes()[:300])
    message = rf"^\S*{row}\.png \(row {row}\): "
    with (
        pytest.raises(DataError, match=message) as error,
        prefetch(batches.at, range(4), workers) as source,
    ):
        read.extend(source)
    assert "Traceback" not in str(error.value)
    assert all(map(batches.at, range(len(read))))
    with pytest.raises(DataError):
        batches.at(len(read))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_survive_a_signal(batches, number) -> None:
    with prefetch(batches.at, range(8), 2) as source:
        next(source)
        workers = multiprocessing.active_children()
        assert len(workers) == 2
        for worker in workers:
            os.kill(worker.pid, number)
        assert next(source) and next(source)
    assert not multiprocessing.active_children()


SCRIPT = """
import os, signal, time
from torch.utils.data import _utils
from cae_lib.training.batch import prefetch

_utils.MP_STATUS_CHECK_INTERVAL = 0.2  # seconds that PyTorch waits for a worker, twice

def slow(step):
    time.sleep(600 if step > 1 else 0)  # from the third on each takes for ever
    return step

if __name__ == "__main__":
    with prefetch(slow, range(6), 2) as source:
        print(next(source), next(source), flush=True)
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [("raise KeyError", 1), ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL)],
)
def test_no_worker_outlives_its_run(tmp_path, end, code) -> None:
    """It comes back once all workers are gone, too: they hold the pipe open."""
    script = tmp_path / "script.py"
    script.write_text(f"{SCRIPT}        {end}\n")
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}
    process = subprocess.Popen([sys.executable, script], text=True, **options)
    try:
        output, errors = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert (process.returncode, output) == (code, "0 1\n"), errors
