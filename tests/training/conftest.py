"""A double-precision clip-mini with a mixed batch of captions, and what two processes leave."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import save_random, shared_folder
from torch import Tensor, nn
from toys import toy_alignment

from cae_lab.profiles import load_profile
from cae_lib.models import Clip

# The second caption has no composition word, "pterodactyls" has five tokens.
CAPTIONS = ["a red dog chases a cat", "the dog", "two pterodactyls under a striped mat", ""]


@pytest.fixture
def model(tiny_clip: Clip) -> nn.Module:
    """Return a float64 clip-mini whose scores are far from 0."""
    with torch.no_grad():
        tiny_clip.model.token_embedding.weight.mul_(20)
    return tiny_clip.model.double().train()


@pytest.fixture
def batch(tiny_clip: Clip) -> tuple[Tensor, Tensor, Tensor]:
    """Return image features `(4, 128)`, tokens and roles `(4, 77)`."""
    actual, generator = toy_alignment(tiny_clip, CAPTIONS), torch.Generator().manual_seed(1)
    images = torch.randn(4, 128, generator=generator, dtype=torch.float64)
    return F.normalize(images, dim=-1), actual.tokens, actual.roles


@pytest.fixture(scope="session")
def halves(tmp_path_factory: pytest.TempPathFactory, smoke_world: Path) -> Path:
    """Run `two_processes.py` once for all tests, in a home with the smoke world and a random base;
    returns this home, where the two wrote."""
    with shared_folder(tmp_path_factory, "halves") as home:
        if not (home / "done").exists():
            (home / "data").mkdir(parents=True, exist_ok=True)
            (home / "data" / "raw").symlink_to(smoke_world.parent)
            save_random(home / "data" / load_profile("smoke").experiment("clip-ft").weights, seed=3)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = str(probe.getsockname()[1])
            torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
            script = Path(__file__).with_name("two_processes.py")
            folders = script.parents[2], script.parents[1], script.parent
            ended = subprocess.run(
                [sys.executable, *torchrun, str(script), str(home), port],
                capture_output=True,
                text=True,
                timeout=800,
                env=os.environ
                | {
                    "CAE_HOME": str(home),
                    "OMP_NUM_THREADS": "1",
                    "PYTHONPATH": os.pathsep.join(map(str, folders)),
                },
            )
            assert ended.returncode == 0, ended.stderr
            (home / "done").touch()
        return home
