"""A real Slurm of one node: GPUs of jobs, start and stop."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from grids import wait

PLUGIN = "snakemake_executor_plugin_slurm"
needs_snakemake = pytest.mark.skipif(
    importlib.util.find_spec(PLUGIN) is None,
    reason="Snakemake or its executor for Slurm is missing: install the extra cluster",
)
# Status by squeue, since no database knows finished jobs. The first look comes after 5 seconds, the
# next ones 15, 25, ... seconds later; each job that ends starts this anew.
COMMAND = [
    *(sys.executable, "-m", "snakemake", "--executor", "slurm", "--jobs", "4"),
    *("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "5"),
    *("--slurm-no-account", "--default-resources", "mem_mb=100", "runtime=5"),
]
GPUS = """
rule both:
    input: expand("device{n}", n=[1, 2])

rule one:  # waits for the other job, so that the two run at the same time
    output: "device{n}"
    resources: gpu=1
    shell: "touch here{wildcards.n}; until [ -e here1 -a -e here2 ]; do sleep .1; done; "
           "echo $CUDA_VISIBLE_DEVICES > {output}"
"""


@needs_snakemake
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two jobs at the same time need two cores")
@pytest.mark.slow
def test_each_job_gets_a_gpu_of_its_own(slurm: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "Snakefile").write_text(GPUS)
    ended = subprocess.run(COMMAND, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert {(tmp_path / f"device{n}").read_text().strip() for n in (1, 2)} == {"0", "1"}


def alive(process: str) -> bool:
    """Is this process there, and not only waiting for its parent to take note of its end?"""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_stop_ends_the_daemons_and_their_jobs(slurm_script: Path, tmp_path: Path) -> None:
    folder = tmp_path / "slurm"
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def daemons() -> list[str]:
        return [path.read_text().strip() for path in sorted(folder.glob("*.pid"))]

    try:
        subprocess.run([slurm_script, "start", folder], check=True)
        first = daemons()
        assert len(first) == 3 and all(map(alive, first))

        script = f"echo $$ > {tmp_path}/job; setsid sleep 600 & echo $! >> {tmp_path}/job; wait"
        job = ["sbatch", "--output=/dev/null", f"--wrap={script}"]
        subprocess.run(job, check=True, env=environment)
        written = tmp_path / "job"
        wait(lambda: written.exists() and len(written.read_text().split()) == 2)
        subprocess.run([slurm_script, "start", folder], check=True)
        assert daemons() == first, "a second start began anew"
    finally:
        subprocess.run([slurm_script, "stop", folder], check=True)
    assert not any(map(alive, [*first, *written.read_text().split()]))
    subprocess.run([slurm_script, "stop", folder], check=True)
