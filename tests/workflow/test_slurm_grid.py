"""The smoke grid through the Slurm profile, on a real Slurm of one node."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from grids import Grid, wait

pytest.importorskip("snakemake_executor_plugin_slurm", reason="the extra `cluster` is missing")

FEW = ("--default-resources mem_mb=3000 runtime=20 cpus_per_task=1 --latency-wait 5 "
       "--slurm-status-command squeue --slurm-init-seconds-before-status-checks 5")


def node(state: str) -> None:
    change = ["scontrol", "update", "nodename=one-node", f"state={state}", "reason=test"]
    subprocess.run(change, check=True)


def test_a_killed_training_and_one_that_lost_its_node_go_on(grid: Grid, slurm: Path, monkeypatch):
    monkeypatch.setenv("CAE_SNAKEMAKE", FEW)
    grid.engine = "slurm"
    process = grid.start()
    try:
        wait(grid.states)
        os.kill(grid.job(), signal.SIGKILL)
        wait(lambda: "from step" in grid.told())
        node("down")
        node("resume")
        text, _ = process.communicate(timeout=800)
    finally:
        process.kill()
    assert process.returncode == 0, text
    starts = re.findall(r"clip-ft/0 from step (\d+)", grid.told())
    assert len(starts) >= 2 and grid.told().count("Training clip-ft") >= 3
    grid.finished()
