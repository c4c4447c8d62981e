"""What may befall a grid, on one machine and on a real Slurm: nothing is lost, nothing trained
twice. Faults follow each other in one grid, since each start costs many seconds."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from grids import Grid, wait

pytest.importorskip("snakemake", reason="the extra `cluster` is not installed")

FEW = (
    "--default-resources mem_mb=3000 runtime=20 cpus_per_task=1 --latency-wait 5 "
    "--slurm-status-command squeue --slurm-init-seconds-before-status-checks 5"
)


def test_a_killed_job_goes_on_and_a_killed_controller_loses_nothing(grid: Grid):
    first = grid.start()
    wait(grid.states)
    code, text = grid.run()
    assert code == 2 and "another call" in text
    os.kill(grid.job(), signal.SIGKILL)
    wait(lambda: re.search(r"from step (200|400)", grid.told()))
    children = subprocess.run(["pgrep", "-P", str(first.pid)], capture_output=True, text=True)
    for pid in (first.pid, *map(int, children.stdout.split())):
        os.kill(pid, signal.SIGKILL)  # `cae reproduce` and Snakemake; the job itself lives on
    first.wait()
    os.kill(grid.job(), 0)
    code, text = grid.run()
    assert code == 0, text
    assert grid.told().count("Training clip-ft") == 2, "the orphan's training was waited for"
    grid.finished()


def test_an_interrupted_grid_goes_on_and_a_full_disk_keeps_what_was_trained(
    grid: Grid, monkeypatch: pytest.MonkeyPatch
):
    def going_on(start: int) -> bool:
        """Whether the training goes on from a state in the start of that number."""
        *before, now = grid.told().split("Training clip-ft")
        return len(before) == start and "from step" in now

    monkeypatch.setenv("CAE_SNAKEMAKE", "--retries 1")
    process = grid.start()
    wait(grid.states)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    text, _ = process.communicate(timeout=800)
    assert process.returncode == 130, text
    (state,) = grid.states()  # the job saved it before it ended
    process = grid.start()
    wait(lambda: going_on(2))
    os.kill(process.pid, signal.SIGTERM)  # to the command alone
    text, _ = process.communicate(timeout=800)
    assert process.returncode == 143, text
    with pytest.raises(StopIteration):
        grid.job()
    assert grid.states() == [state]
    place = grid.home / "data/checkpoints/smoke"
    process = grid.start()
    wait(lambda: going_on(3))
    os.kill(grid.job(), signal.SIGSTOP)  # so that its next state meets the full disk
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    kept = place.rename(grid.home / "kept")
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size + 2**20}", "none", place],
        capture_output=True,
        text=True,
    )
    try:
        shutil.copytree(kept, place, dirs_exist_ok=True)
        os.kill(grid.job(), signal.SIGKILL)
        text, _ = process.communicate(timeout=800)
        if mounted.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr}")
        assert process.returncode == 2 and "1 of 5 jobs" in text, text
        assert "free some space" in text and "free some space" in grid.told()
        assert grid.states() == [state]
        shutil.copytree(place, kept, dirs_exist_ok=True)
    finally:
        subprocess.run(["umount", place], capture_output=True)
    place.rmdir()
    kept.rename(place)
    code, text = grid.run()
    assert code == 0 and grid.told().count("Training clip-ft") == 5, text
    assert "from step" in grid.told().rpartition("Training clip-ft")[2]
    grid.finished()


def test_on_slurm_a_killed_training_and_one_that_lost_its_node_go_on(
    grid: Grid, slurm: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="the extra `cluster` is missing")
    monkeypatch.setenv("CAE_SNAKEMAKE", FEW)
    grid.engine = "slurm"
    process = grid.start()
    try:
        wait(grid.states)
        os.kill(grid.job(), signal.SIGKILL)
        wait(lambda: "from step" in grid.told())
        for state in ("down", "resume"):
            subprocess.run(
                ["scontrol", "update", "nodename=one-node", f"state={state}", "reason=test"],
                check=True,
            )
        text, _ = process.communicate(timeout=800)
    finally:
        process.kill()
    assert process.returncode == 0, text
    starts = re.findall(r"clip-ft/0 from step (\d+)", grid.told())
    assert len(starts) >= 2 and grid.told().count("Training clip-ft") >= 3
    grid.finished()
