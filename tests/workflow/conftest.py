"""A real Slurm of one node, where this machine can run one."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import job
import pytest
from conftest import save_random, shared_folder
from grids import Reproduction

from cae_lab.names import BASE
from cae_lab.profiles import load_profile
from cae_lib.config import paths

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
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with datasets, parsed captions and a base of random weights, whose measurement counts
    as done; one worker makes it for all."""
    with (
        shared_folder(tmp_path_factory, "prepared") as home,
        pytest.MonkeyPatch.context() as patch,
    ):
        if not (home / "runs/smoke/base/0/done.json").exists():
            patch.setenv("CAE_HOME", str(home))
            job.make_data(load_profile("smoke"))
            job.parse_captions(load_profile("smoke"), "coco", "scene-graph")
            save_random(load_profile("smoke").run(BASE).path, 0)
            for name in ("data", "words/coco/scene-graph", "base", "data/0", "base/0"):
                path = paths().runs / "smoke" / name / "done.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("{}\n")
    return home


@pytest.fixture
def reproduction(prepared: Path, tmp_path: Path) -> Iterator[Reproduction]:
    home = tmp_path / "home"
    shutil.copytree(prepared, home)
    yield Reproduction(home)
    shutil.rmtree(home)
