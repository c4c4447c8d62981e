"""Script that `torchrun` starts in two processes: it runs a command, then the work of two tests.

The command opens and closes its process group; the work then uses a second group at PORT.

    torchrun ... two_processes.py FOLDER PORT
"""

import os
import sys
from pathlib import Path

import test_distributed
import test_openclip
import torch

from cae_lab.cli import main
from cae_lib.training.distributed import init_distributed

if __name__ == "__main__":
    folder, port = sys.argv[1:]
    torch.set_num_threads(1)
    assert main(["train", "cae-attention", "--profile", "smoke"]) == 0
    os.environ.update(TORCHELASTIC_USE_AGENT_STORE="False", MASTER_PORT=port)
    with init_distributed(torch.device("cpu")) as ranks:
        test_distributed.work(ranks, Path(folder))
        test_openclip.work(ranks.rank, Path(folder))
