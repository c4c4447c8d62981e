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


def test_a_killed_job_goes_on_and_a_killed_controller_loses_nothing(reproduction: Reproduction):
    first = reproduction.start()
    wait(reproduction.states, first)
    code, text = reproduction.run()
    assert code == 2 and "another call" in text
    os.kill(reproduction.job(), signal.SIGKILL)
    wait(lambda: re.search(r"from step (200|400)", reproduction.told()), first)
    children = subprocess.run(["pgrep", "-P", str(first.pid)], capture_output=True, text=True)
    for pid in (first.pid, *map(int, children.stdout.split())):
        os.kill(pid, signal.SIGKILL)  # `cae reproduce` and Snakemake; the job itself lives on
    first.wait()
    os.kill(reproduction.job(), 0)
    code, text = reproduction.run()
    assert code == 0, text
    assert reproduction.told().count("Training negclip") == 2, (
        "the orphan's training was waited for"
    )
    reproduction.finished()


def test_an_interrupted_grid_goes_on_and_a_full_disk_keeps_what_was_trained(
    reproduction: Reproduction, monkeypatch: pytest.MonkeyPatch
):
    def going_on(start: int) -> bool:
        """Whether the training goes on from a state in the start of that number."""
        *before, now = reproduction.told().split("Training negclip")
        return len(before) == start and "from step" in now

    monkeypatch.setenv("CAE_SNAKEMAKE", "--retries 1")
    process = reproduction.start()
    wait(reproduction.states, process)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    text, _ = process.communicate(timeout=800)
    assert process.returncode == 130, text
    (state,) = reproduction.states()  # the job saved it before it ended
    process = reproduction.start()
    wait(lambda: going_on(2), process)
    os.kill(process.pid, signal.SIGTERM)  # to the command alone
    text, _ = process.communicate(timeout=800)
    assert process.returncode == 143, text
    with pytest.raises(StopIteration):
        reproduction.job()
    assert reproduction.states() == [state]
    place = reproduction.home / "data/checkpoints/smoke"
    process = reproduction.start()
    wait(lambda: going_on(3), process)
    os.kill(reproduction.job(), signal.SIGSTOP)  # so that its next state meets the full disk
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
        text, _ = process.communicate(timeout=800)
        if mounted.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr}")
        assert process.returncode == 2 and "1 of 5 jobs" in text, text
        assert "free some space" in text and "free some space" in reproduction.told()
        assert reproduction.states() == [state]
        shutil.copytree(place, kept, dirs_exist_ok=True)
    finally:
        subprocess.run(["umount", place], capture_output=True)
    place.rmdir()
    kept.rename(place)
    code, text = reproduction.run()
    assert code == 0 and reproduction.told().count("Training negclip") == 5, text
    assert "from step" in reproduction.told().rpartition("Training negclip")[2]
    reproduction.finished()


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
        wait(lambda: "from step" in reproduction.told(), process)
        for state in ("down", "resume"):
            subprocess.run(
                ["scontrol", "update", "nodename=one-node", f"state={state}", "reason=test"],
                check=True,
            )
        text, _ = process.communicate(timeout=800)
    finally:
        process.kill()
    assert process.returncode == 0, text
    starts = re.findall(r"negclip/0 from step (\d+)", reproduction.told())
    assert len(starts) >= 2 and reproduction.told().count("Training negclip") >= 3
    reproduction.finished()
