"""A real Slurm of one node, where this machine can run one."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from grids import Grid

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "one-node-slurm.sh"
PROGRAMS = ("munged", "slurmctld", "slurmd")


@pytest.fixture(scope="session")
def slurm_script() -> Path:
    """The script that starts and stops a one-node Slurm, on a machine that can run it."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} missing: install slurm-wlm and munge")
    if os.geteuid() != 0:
        pytest.skip("only root can start a one-node Slurm")
    return SCRIPT


@pytest.fixture(scope="session")
def slurm(slurm_script: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a running one-node Slurm that Slurm's commands, and Snakemake, find."""
    folder = tmp_path_factory.mktemp("slurm")
    try:
        subprocess.run([slurm_script, "start", folder], check=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
            patch.setenv("PATH", str(folder / "bin"), prepend=os.pathsep)
            yield folder
    finally:
        subprocess.run([slurm_script, "stop", folder], check=True)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home whose sets, captions and base are done, and no run."""
    home = tmp_path_factory.mktemp("grid")
    code, text = Grid(home, "clip-ft+steps=1").run()
    assert code == 0 and "3 of 3 runs done" in text, text
    shutil.rmtree(home / "data/checkpoints/smoke/variants")
    yield home
    shutil.rmtree(home)


@pytest.fixture
def grid(prepared: Path, tmp_path: Path) -> Iterator[Grid]:
    home = tmp_path / "home"
    shutil.copytree(prepared, home)
    yield Grid(home)
    shutil.rmtree(home)
