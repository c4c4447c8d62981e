"""What may befall a grid, on one machine and on a real Slurm: nothing is lost, nothing trained
twice. Faults follow each other in one reproduction, since each start costs many seconds."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from grids import Reproduction, wait

pytest.importorskip("snakemake", reason="the extra `cluster` is not installed")
pytestmark = pytest.mark.slow

FEW = (
    "--default-resources mem_mb=3000 runtime=20 cpus_per_task=1 --latency-wait 5 "
    "--slurm-status-command squeue --slurm-init-seconds-before-status-checks 5"
)


def test_whatever_ends_a_job_or_a_grid_nothing_is_lost(
    reproduction: Reproduction, monkeypatch: pytest.MonkeyPatch
):
    """A killed job, a full disk, Ctrl-C, SIGTERM, and a killed controller, one after another."""

    def going_on(start: int) -> bool:
        """Whether the training goes on from a state in the start of that number."""
        *before, now = reproduction.log_text().split("Training negclip")
        return len(before) == start and "from step" in now

    monkeypatch.setenv("CAE_SNAKEMAKE", "--retries 1")
    process = reproduction.start()
    wait(reproduction.states, process)
    os.kill(reproduction.job(), signal.SIGSTOP)  # so that its next state meets the full disk
    (state,) = reproduction.states()
    code, text = reproduction.run()
    assert code == 2 and "another call" in text
    place = reproduction.home / "data/checkpoints/smoke"
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    kept = place.rename(reproduction.home / "kept")
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size + 2**20}", "none", place],
        capture_output=True,
        text=True,
    )
    try:
        shutil.copytree(kept, place, dirs_exist_ok=True)
        os.kill(reproduction.job(), signal.SIGKILL)
        if mounted.returncode:  # no small disk here: the job goes on
            wait(lambda: going_on(2), process)
            os.kill(reproduction.job(), signal.SIGKILL)
        text, _ = process.communicate(timeout=800)
        assert going_on(2), "it was started again from its state"
        assert process.returncode == 2 and "1 of 6 jobs" in text, text
        if not mounted.returncode:
            assert "free some space" in text and "free some space" in reproduction.log_text()
        assert reproduction.states() == [state]
        shutil.copytree(place, kept, dirs_exist_ok=True)
    finally:
        subprocess.run(["umount", place], capture_output=True)
    shutil.rmtree(place)
    kept.rename(place)

    process = reproduction.start()
    wait(lambda: going_on(3), process)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    text, _ = process.communicate(timeout=800)
    assert process.returncode == 130, text
    assert reproduction.states() == [state]  # the job saved it before it ended

    process = reproduction.start()
    wait(lambda: going_on(4), process)
    os.kill(process.pid, signal.SIGTERM)  # to the command alone
    text, _ = process.communicate(timeout=800)
    assert process.returncode == 143, text
    with pytest.raises(StopIteration):
        reproduction.job()
    assert reproduction.states() == [state]

    process = reproduction.start()
    wait(lambda: going_on(5), process)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
    for pid in (process.pid, *map(int, children.stdout.split())):
        os.kill(pid, signal.SIGKILL)  # `cae reproduce` and Snakemake; the job itself lives on
    process.wait()
    os.kill(reproduction.job(), 0)
    code, text = reproduction.run()
    assert code == 0, text
    assert reproduction.log_text().count("Training negclip") == 5, "the orphan was waited for"
    reproduction.finished()
    if mounted.returncode:
        pytest.skip(f"all but the full disk, which cannot be mounted here: {mounted.stderr}")


def test_on_slurm_a_killed_training_and_one_that_lost_its_node_go_on(
    reproduction: Reproduction, slurm: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="the extra `cluster` is missing")
    monkeypatch.setenv("CAE_SNAKEMAKE", FEW)
    reproduction.engine = "slurm"
    process = reproduction.start()
    try:
        wait(reproduction.states, process)
        os.kill(reproduction.job(), signal.SIGKILL)
        wait(lambda: "from step" in reproduction.log_text(), process)
        for state in ("down", "resume"):
            subprocess.run(
                ["scontrol", "update", "nodename=one-node", f"state={state}", "reason=test"],
                check=True,
            )
        text, _ = process.communicate(timeout=800)
    finally:
        process.kill()
    assert process.returncode == 0, text
    starts = re.findall(r"negclip\S*, seed 0 from step (\d+)", reproduction.log_text())
    assert len(starts) >= 2 and reproduction.log_text().count("Training negclip") >= 3
    reproduction.finished()
