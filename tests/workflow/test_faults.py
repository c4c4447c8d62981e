"""What may befall a grid, on one machine: nothing is lost and nothing is trained twice."""

import os
import re
import shutil
import signal
import subprocess
import time

import pytest
from grids import Grid, wait

pytest.importorskip("snakemake", reason="the extra `cluster` is not installed")


def test_a_second_controller_is_refused_and_a_killed_one_loses_nothing(grid: Grid):
    first = grid.start()
    wait(grid.states)
    code, text = grid.run()
    assert code == 2 and "another controller" in text
    children = subprocess.run(["pgrep", "-P", str(first.pid)], capture_output=True, text=True)
    for pid in (first.pid, *map(int, children.stdout.split())):
        os.kill(pid, signal.SIGKILL)  # `cae reproduce` and Snakemake; the job itself lives on
    first.wait()
    os.kill(grid.job(), 0)
    code, text = grid.run()
    assert code == 0, text
    assert grid.told().count("Training clip-ft") == 1, "the orphan's training was waited for"
    grid.finished()
    start = time.monotonic()
    code, text = grid.run()
    assert code == 0 and "5 of 5 jobs done" in text and time.monotonic() - start < 300
    assert grid.told().count("Training clip-ft") == 1


def test_a_killed_job_goes_on_where_its_state_was(grid: Grid):
    process = grid.start()
    wait(grid.states)
    os.kill(grid.job(), signal.SIGKILL)
    text, _ = process.communicate(timeout=800)
    assert process.returncode == 0, text
    assert re.search(r"from step (200|400)", grid.told())
    grid.finished()


def test_an_interrupted_grid_goes_on(grid: Grid):
    process = grid.start()
    wait(lambda: "Training" in grid.told())
    wait(grid.states)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    text, _ = process.communicate(timeout=800)
    assert process.returncode == 130, text
    assert grid.states(), "the job saved its state before it ended"
    code, text = grid.run()
    assert code == 0 and "from step" in grid.told(), text
    grid.finished()


def test_a_full_disk_fails_the_job_and_keeps_what_was_trained(grid: Grid):
    place = grid.home / "data/checkpoints/smoke"
    process = grid.start()
    wait(grid.states)
    (state,) = grid.states()
    os.kill(grid.job(), signal.SIGSTOP)  # so that its next state meets the full disk
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    kept = grid.home / "kept"
    place.rename(kept)
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size + 2**20}", "none", place],
                             capture_output=True, text=True)
    try:
        shutil.copytree(kept, place, dirs_exist_ok=True)
        os.kill(grid.job(), signal.SIGKILL)
        text, _ = process.communicate(timeout=800)
        if mounted.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr}")
        assert process.returncode == 2 and "1 of 5 jobs are not done" in text, text
        assert "free some space" in grid.told() and grid.states() == [state]
        shutil.copytree(place, kept, dirs_exist_ok=True)
    finally:
        subprocess.run(["umount", place], capture_output=True)
    shutil.rmtree(place)
    kept.rename(place)
    code, text = grid.run()
    assert code == 0 and "from step 200" in grid.told(), text
    grid.finished()
